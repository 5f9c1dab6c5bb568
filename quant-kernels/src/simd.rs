//! Sixteen float lanes on every tier, and the way from an [`Isa`] to code compiled for it.
//!
//! A kernel is written once over [`Simd`], so that no tier can differ in the order of operations. All of it is
//! `inline(always)`: the code ends up in one function per tier that has the tier's target features.

use crate::Isa;
use half::f16;

/// Lanes of the contract: sums go by index mod 16.
pub(crate) const LANES: usize = 16;

/// Sixteen f32 lanes. A value of an implementing type is a proof that the CPU has the instructions.
pub(crate) trait Simd: Copy {
    /// Sixteen lanes.
    type V: Copy;
    /// Whether 16 accumulators fit in the registers beside their operands.
    const WIDE: bool;

    /// The same value in all lanes.
    fn splat(self, x: f32) -> Self::V;
    /// Lanes from memory.
    fn load(self, x: &[f32; LANES]) -> Self::V;
    /// Lanes from halves, exactly.
    fn load_f16(self, x: &[f16; LANES]) -> Self::V;
    /// Lanes to memory.
    fn store(self, v: Self::V, out: &mut [f32; LANES]);
    /// Lanes to halves: nearest, ties to even, overflow to infinity.
    fn store_f16(self, v: Self::V, out: &mut [f16; LANES]);
    /// a + b.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b.
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        self.add(a, self.mul(b, self.splat(-1.0)))
    }
    /// a * b.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// Without the sign.
    #[inline(always)]
    fn abs(self, v: Self::V) -> Self::V {
        self.max(v, self.mul(v, self.splat(-1.0)))
    }
    /// a * b + c with one rounding.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where `a` is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of two numbers.
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        let minus = self.splat(-1.0);
        self.mul(self.max(self.mul(a, minus), self.mul(b, minus)), minus)
    }
    /// `below` in the lanes where `x < limit`, `other` elsewhere and where `x` is NaN.
    fn select(self, x: Self::V, limit: f32, below: Self::V, other: Self::V) -> Self::V;
    /// The bits of `v` plus the low bits of `exponent` in the exponent's place.
    fn raise(self, v: Self::V, exponent: Self::V) -> Self::V;
    /// The tree's first half (+8, +4) of four vectors: four groups of four lanes.
    fn tree_to_quads(self, v: [Self::V; 4]) -> Self::V;
    /// The tree's second half (+2, +1) of four results of [`Simd::tree_to_quads`]: lane `4 i + j` is the tree of
    /// vector `i` of result `j`.
    fn tree_of_quads(self, v: [Self::V; 4]) -> Self::V;

    /// Lanes as an array.
    #[inline(always)]
    fn lanes(self, v: Self::V) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        self.store(v, &mut out);
        out
    }

    /// Butterflies of a Hadamard transform inside the lanes, at strides 1, 2, ... below `strides` and 16.
    #[inline(always)]
    fn butterflies(self, v: Self::V, strides: usize) -> Self::V {
        let mut x = self.lanes(v);
        let mut stride = 1;
        while stride < strides.min(LANES) {
            x = each(|i| if i & stride == 0 { x[i] + x[i | stride] } else { x[i ^ stride] - x[i] });
            stride *= 2;
        }
        self.load(&x)
    }
}

/// Work that runs on any tier.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// The work; must be `inline(always)`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs a kernel compiled for the tier.
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(proof) => crate::x86::avx2::simd::run(proof, kernel),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni(proof) => crate::x86::avx2::simd::run(proof.into(), kernel),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(proof) => crate::x86::avx512::simd::run(proof, kernel),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(_) => kernel.run(crate::arm::neon::lanes()),
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Isa::Simd128(proof) => kernel.run(proof),
        // Scalar; the tiers of other architectures have no values here.
        _ => kernel.run(Portable),
    }
}

/// `x[i] = f(x[i])`.
pub(crate) struct Map<'a, F> {
    pub(crate) x: &'a mut [f32],
    pub(crate) f: F,
}

impl<F: Fn(f32) -> f32> Kernel for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        for x in self.x {
            *x = (self.f)(*x);
        }
    }
}

/// `x[i] = f(x[i], y[i])`.
pub(crate) struct Zip<'a, F> {
    pub(crate) x: &'a mut [f32],
    pub(crate) y: &'a [f32],
    pub(crate) f: F,
}

impl<F: Fn(f32, f32) -> f32> Kernel for Zip<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        debug_assert_eq!(self.x.len(), self.y.len());
        for (x, y) in self.x.iter_mut().zip(self.y) {
            *x = (self.f)(*x, *y);
        }
    }
}

/// Up to 16 values, padded with +0.0.
#[inline(always)]
pub(crate) fn padded(x: &[f32]) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    out[..x.len()].copy_from_slice(x);
    out
}

/// The lanes in plain Rust: the specification, and the tier of every other CPU.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

impl Simd for Portable {
    type V = [f32; LANES];
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::V {
        *x
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::V {
        each(|i| x[i].to_f32())
    }

    #[inline(always)]
    fn store(self, v: Self::V, out: &mut [f32; LANES]) {
        *out = v;
    }

    #[inline(always)]
    fn store_f16(self, v: Self::V, out: &mut [f16; LANES]) {
        *out = v.map(f16::from_f32);
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn select(self, x: Self::V, limit: f32, below: Self::V, other: Self::V) -> Self::V {
        each(|i| if x[i] < limit { below[i] } else { other[i] })
    }

    #[inline(always)]
    fn raise(self, v: Self::V, exponent: Self::V) -> Self::V {
        each(|i| f32::from_bits(v[i].to_bits().wrapping_add(exponent[i].to_bits() << 23)))
    }

    #[inline(always)]
    fn tree_to_quads(self, v: [Self::V; 4]) -> Self::V {
        each(|i| {
            let (v, l) = (&v[i / 4], i % 4);
            (v[l] + v[l + 8]) + (v[l + 4] + v[l + 12])
        })
    }

    #[inline(always)]
    fn tree_of_quads(self, v: [Self::V; 4]) -> Self::V {
        each(|i| {
            let q = &v[i % 4][i / 4 * 4..][..4];
            (q[0] + q[2]) + (q[1] + q[3])
        })
    }
}
