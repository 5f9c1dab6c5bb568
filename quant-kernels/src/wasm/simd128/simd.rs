//! Sixteen float lanes in four registers.

use crate::isa::Simd128;
use crate::simd::{LANES, Simd};
use crate::vec128::four;
use half::f16;
use std::arch::wasm32::*;

impl Simd for Simd128 {
    /// Lanes 0..4, 4..8, 8..12 and 12..16.
    type V = [v128; 4];
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [f32x4_splat(x); 4]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::V {
        let x = x.as_chunks::<4>().0;
        // SAFETY: four values each.
        four!(i => unsafe { v128_load(x[i].as_ptr().cast()) })
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::V {
        let x = x.as_chunks::<4>().0;
        // SAFETY: four halves each, and f16 is a transparent u16.
        four!(i => widen(unsafe { u32x4_load_extend_u16x4(x[i].as_ptr().cast()) }))
    }

    #[inline(always)]
    fn store(self, v: Self::V, out: &mut [f32; LANES]) {
        for (out, v) in out.as_chunks_mut::<4>().0.iter_mut().zip(v) {
            // SAFETY: four values.
            unsafe { v128_store(out.as_mut_ptr().cast(), v) };
        }
    }

    #[inline(always)]
    fn store_f16(self, v: Self::V, out: &mut [f16; LANES]) {
        *out = self.lanes(v).map(f16::from_f32);
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        four!(i => f32x4_add(a[i], b[i]))
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        four!(i => f32x4_sub(a[i], b[i]))
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        four!(i => f32x4_mul(a[i], b[i]))
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        four!(i => fused(a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // b < a ? a : b
        four!(i => f32x4_pmax(b[i], a[i]))
    }

    #[inline(always)]
    fn butterflies(self, v: Self::V, strides: usize) -> Self::V {
        let mut v = v;
        if strides > 1 {
            let signs = f32x4(0.0, -0.0, 0.0, -0.0);
            v = four!(i => butterfly(v[i], i32x4_shuffle::<1, 0, 3, 2>(v[i], v[i]), signs));
        }
        if strides > 2 {
            let signs = f32x4(0.0, 0.0, -0.0, -0.0);
            v = four!(i => butterfly(v[i], i32x4_shuffle::<2, 3, 0, 1>(v[i], v[i]), signs));
        }
        if strides > 4 {
            let (first, second) = (pair(v[0], v[1]), pair(v[2], v[3]));
            v = [first[0], first[1], second[0], second[1]];
        }
        if strides > 8 {
            let (first, second) = (pair(v[0], v[2]), pair(v[1], v[3]));
            v = [first[0], second[0], first[1], second[1]];
        }
        v
    }

    #[inline(always)]
    fn select(self, x: Self::V, limit: f32, below: Self::V, other: Self::V) -> Self::V {
        four!(i => v128_bitselect(below[i], other[i], f32x4_lt(x[i], f32x4_splat(limit))))
    }

    #[inline(always)]
    fn raise(self, v: Self::V, exponent: Self::V) -> Self::V {
        four!(i => i32x4_add(v[i], i32x4_shl(exponent[i], 23)))
    }

    #[inline(always)]
    fn tree_to_quads(self, v: [Self::V; 4]) -> Self::V {
        four!(i => f32x4_add(f32x4_add(v[i][0], v[i][2]), f32x4_add(v[i][1], v[i][3])))
    }

    #[inline(always)]
    fn tree_of_quads(self, v: [Self::V; 4]) -> Self::V {
        four!(i => {
            let (first, second) = (halves(v[0][i], v[1][i]), halves(v[2][i], v[3][i]));
            f32x4_add(
                i32x4_shuffle::<0, 2, 4, 6>(first, second),
                i32x4_shuffle::<1, 3, 5, 7>(first, second),
            )
        })
    }
}

/// `partner + x`, or `partner - x` where `signs` has a sign.
#[inline(always)]
fn butterfly(x: v128, partner: v128, signs: v128) -> v128 {
    f32x4_add(partner, v128_xor(x, signs))
}

/// `a + b` and `a - b`.
#[inline(always)]
fn pair(a: v128, b: v128) -> [v128; 2] {
    [f32x4_add(a, b), f32x4_sub(a, b)]
}

/// Lanes 0, 1 plus 2, 3 of both.
#[inline(always)]
fn halves(a: v128, b: v128) -> v128 {
    f32x4_add(i32x4_shuffle::<0, 1, 4, 5>(a, b), i32x4_shuffle::<2, 3, 6, 7>(a, b))
}

/// Four halves, each in the lower half of a lane, as floats, exactly.
///
/// Exponent and mantissa in place are the value times 2^-112, subnormals included; infinities and NaN get the
/// largest exponent afterwards.
#[inline(always)]
pub(super) fn widen(halves: v128) -> v128 {
    let magnitude = v128_and(halves, u32x4_splat(0x7fff));
    let sign = u32x4_shl(v128_xor(halves, magnitude), 16);
    let scaled = f32x4_mul(u32x4_shl(magnitude, 13), f32x4_splat(f32::from_bits((127 + 112) << 23)));
    let endless = v128_and(u32x4_gt(magnitude, u32x4_splat(0x7bff)), u32x4_splat(0x7f80_0000));
    v128_or(v128_or(scaled, endless), sign)
}

/// a * b + c with one rounding, as the instruction that WebAssembly lacks.
#[inline(always)]
fn fused(a: v128, b: v128, c: v128) -> v128 {
    let low = fused_pair(f64x2_promote_low_f32x4(a), f64x2_promote_low_f32x4(b), f64x2_promote_low_f32x4(c));
    let high = |x| f64x2_promote_low_f32x4(i64x2_shuffle::<1, 1>(x, x));
    let high = fused_pair(high(a), high(b), high(c));
    i64x2_shuffle::<0, 2>(f32x4_demote_f64x2_zero(low), f32x4_demote_f64x2_zero(high))
}

/// a * b + c of two floats in f64, rounded to odd, so that the rounding to f32 that follows is the only one.
///
/// The product of two floats is exact in f64. The sum is rounded to nearest and its error is known exactly
/// (Knuth's two-sum); where there is one and the last bit is even, the odd neighbour on the error's side is the
/// sum rounded to odd. See Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums" (2008).
#[inline(always)]
fn fused_pair(a: v128, b: v128, c: v128) -> v128 {
    let product = f64x2_mul(a, b);
    let sum = f64x2_add(product, c);
    let of_c = f64x2_sub(sum, product);
    let error = f64x2_add(f64x2_sub(product, f64x2_sub(sum, of_c)), f64x2_sub(c, of_c));
    // Comparisons with the NaN that infinities leave here are false.
    let zero = f64x2_splat(0.0);
    let (above, below) = (f64x2_gt(error, zero), f64x2_lt(error, zero));
    // Away from zero if error and sum have the same sign: the bits grow by one, else they shrink by one.
    let negative = i64x2_shr(sum, 63);
    let grow = v128_bitselect(below, above, negative);
    let shrink = v128_bitselect(above, below, negative);
    let even = i64x2_eq(v128_and(sum, i64x2_splat(1)), i64x2_splat(0));
    let step = i64x2_sub(v128_and(shrink, even), v128_and(grow, even));
    i64x2_add(sum, step)
}
