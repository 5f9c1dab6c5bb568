//! exp and tanh: our own polynomials, the same operations in the same order on every tier.
//!
//! Multiply, then add: no fused operation, so that every target computes the same bits.

use crate::Isa;
use crate::simd::{self, Map, Simd};

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts (Cody and Waite): the first has 10 bits, so that its product with an exponent is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// 1.5 * 2^23: adding it rounds to an integer (ties to even) and leaves that integer in the low bits.
const ROUND: f32 = 12_582_912.0;
/// Below this exp is 0; at and above it every result is a normal number.
const LOWEST: f32 = -87.0;
/// The largest argument whose exp is finite.
const HIGHEST: f32 = 88.722_83;
/// (e^r - 1 - r) / r^2, the highest power first.
const POLYNOMIAL: [f32; 6] = [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];

/// e^x with an error below 1 ulp; 0 below -87, infinity above 88.72283, NaN for NaN.
///
/// The polynomial is that of Cephes' `expf` (S. Moshier).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = POLYNOMIAL[0];
    for c in &POLYNOMIAL[1..] {
        p = p * r + c;
    }
    let y = (p * (r * r) + r) + 1.0;
    // times 2^n: y's exponent grows by the low bits of `shifted`
    let y = f32::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 23));
    let y = if x <= HIGHEST { y } else { x + f32::INFINITY };
    if x < LOWEST { 0.0 } else { y }
}

/// The first half of [`exp`] of lanes, none of them above 0: what is left of the argument, and the power of two. In halves,
/// because a processor looks only so far ahead for operations that need not wait: many first halves, then many second ones,
/// take less time than one exp after the other.
#[inline(always)]
pub(crate) fn exp_reduce<S: Simd>(s: S, x: S::V) -> [S::V; 2] {
    // NaN stays NaN in what is left
    let at_least = s.max(s.splat(LOWEST), x);
    let shifted = s.add(s.mul(at_least, s.splat(LOG2_E)), s.splat(ROUND));
    let n = s.sub(shifted, s.splat(ROUND));
    let r = s.sub(s.sub(at_least, s.mul(n, s.splat(LN2_HIGH))), s.mul(n, s.splat(LN2_LOW)));
    let power = s.raise(s.splat(1.0), shifted);
    [r, s.select(x, LOWEST, s.splat(0.0), power)]
}

/// The second half.
#[inline(always)]
pub(crate) fn exp_reduced<S: Simd>(s: S, r: S::V, power: S::V) -> S::V {
    let mut p = s.splat(POLYNOMIAL[0]);
    for c in &POLYNOMIAL[1..] {
        p = s.add(s.mul(p, r), s.splat(*c));
    }
    let y = s.add(s.add(s.mul(p, s.mul(r, r)), r), s.splat(1.0));
    s.mul(y, power)
}

/// tanh with an error below 1.3 ulp: a polynomial below 0.625 (Cephes' `tanhf`), else from [`exp`].
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let z = a * a;
    let mut p = -5.704_988_7e-3;
    p = p * z + 2.063_909e-2;
    p = p * z - 5.373_971_6e-2;
    p = p * z + 1.333_144_2e-1;
    p = p * z - 3.333_328e-1;
    let small = (p * z) * a + a;
    let large = 1.0 - 2.0 / (exp(a + a) + 1.0);
    let y = if a < 0.625 { small } else { large };
    y.copysign(x)
}

/// [`exp`] of every element.
pub fn exp_slice(isa: Isa, x: &mut [f32]) {
    simd::dispatch(isa, Map { x, f: exp });
}

/// [`tanh`] of every element.
pub fn tanh_slice(isa: Isa, x: &mut [f32]) {
    simd::dispatch(isa, Map { x, f: tanh });
}
