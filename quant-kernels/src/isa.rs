//! SIMD tiers. A value of [`Isa`] is a proof that this CPU has the tier.

use crate::Error;
use std::fmt;

/// Proof that the CPU has AVX2, FMA and F16C. Only detection makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx2(());

/// Proof that the CPU has AVX-VNNI (the byte dot products of AVX-512 in 256 bits) beside AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AvxVnni(());

/// Proof that the CPU has AVX-512 F, BW, VL, DQ, VNNI and VBMI beside AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx512(());

impl From<AvxVnni> for Avx2 {
    fn from(_: AvxVnni) -> Self {
        Self(())
    }
}

impl From<Avx512> for Avx2 {
    fn from(_: Avx512) -> Self {
        Self(())
    }
}

/// Proof that the CPU has NEON, and which products of bytes beside it. Only detection makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neon(NeonLevel);

/// The products of bytes that a CPU with NEON has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NeonLevel {
    /// Widening multiplications of ARMv8.0.
    Base,
    /// Sums of four products (`sdot`).
    DotProd,
    /// 2 x 2 matrices of sums of eight products (`smmla`), and `sdot`.
    I8mm,
}

impl Neon {
    /// The products that this proof covers.
    pub const fn level(self) -> NeonLevel {
        self.0
    }
}

/// Proof that the module runs where WASM's 128-bit SIMD exists: it is compiled with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Simd128(());

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
impl Simd128 {
    /// The proof: this code is compiled with it.
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

/// A SIMD tier that this CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Portable code: the specification.
    Scalar,
    /// 256-bit x86.
    Avx2(Avx2),
    /// 256-bit x86 with byte dot products.
    AvxVnni(AvxVnni),
    /// 512-bit x86 with byte dot products.
    Avx512(Avx512),
    /// 128-bit ARM, in three levels.
    Neon(Neon),
    /// 128-bit WebAssembly.
    Simd128(Simd128),
}

impl Isa {
    /// The tiers of this CPU, the best last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "some targets have only scalar")]
        let mut tiers = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                tiers.push(Self::Avx2(Avx2(())));
                if is_x86_feature_detected!("avxvnni") {
                    tiers.push(Self::AvxVnni(AvxVnni(())));
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("avx512vbmi")
                {
                    tiers.push(Self::Avx512(Avx512(())));
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected;
            // Every CPU of the target has NEON.
            tiers.push(Self::Neon(Neon(NeonLevel::Base)));
            if is_aarch64_feature_detected!("dotprod") {
                tiers.push(Self::Neon(Neon(NeonLevel::DotProd)));
                if is_aarch64_feature_detected!("i8mm") {
                    tiers.push(Self::Neon(Neon(NeonLevel::I8mm)));
                }
            }
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        tiers.push(Self::Simd128(Simd128::new()));
        tiers
    }

    /// The best tier of this CPU.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::Scalar)
    }

    /// The tier with this name; `neon` is the best of NEON's levels.
    ///
    /// # Errors
    /// [`Error::IsaUnavailable`] if the name is unknown or the CPU lacks the tier.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        let available = Self::available();
        let named = |isa: &Self| isa.name() == name || name == "neon" && matches!(isa, Self::Neon(_));
        available.iter().copied().rfind(named).ok_or_else(|| Error::IsaUnavailable {
            wanted: name.to_owned(),
            available: available.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", "),
        })
    }

    /// `scalar`, `avx2`, `avxvnni`, `avx512`, `neon-base`, `neon-dotprod`, `neon-i8mm` or `simd128`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2(_) => "avx2",
            Self::AvxVnni(_) => "avxvnni",
            Self::Avx512(_) => "avx512",
            Self::Neon(Neon(NeonLevel::Base)) => "neon-base",
            Self::Neon(Neon(NeonLevel::DotProd)) => "neon-dotprod",
            Self::Neon(Neon(NeonLevel::I8mm)) => "neon-i8mm",
            Self::Simd128(_) => "simd128",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
