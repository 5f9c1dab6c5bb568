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
}

impl Isa {
    /// The tiers of this CPU, the best last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other architectures have only scalar so far")]
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
        tiers
    }

    /// The best tier of this CPU.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::Scalar)
    }

    /// The tier with this name.
    ///
    /// # Errors
    /// [`Error::IsaUnavailable`] if the name is unknown or the CPU lacks the tier.
    pub fn from_name(name: &str) -> Result<Self, Error> {
        let available = Self::available();
        available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| Error::IsaUnavailable {
            wanted: name.to_owned(),
            available: available.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", "),
        })
    }

    /// `scalar`, `avx2`, `avxvnni` or `avx512`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2(_) => "avx2",
            Self::AvxVnni(_) => "avxvnni",
            Self::Avx512(_) => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
