//! RMS norm (Zhang and Sennrich, arXiv 1910.07467).

use crate::Isa;
use crate::simd::{self, Kernel, LANES, Simd, padded};
use crate::types::f32::tree;

/// `out = (x * r) * weight` with `r = 1 / sqrt(mean(x^2) + eps)`, one row.
///
/// The sum of squares goes by lanes (index mod 16, multiply then add) and the tree; root and divisions are IEEE
/// operations.
///
/// # Panics
/// If the three lengths differ.
pub fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == out.len(), "rms_norm: the lengths differ");
    weighted(isa, x, weight, scale(isa, x, eps), out);
}

/// [`rms_norm`] of a row in place.
///
/// # Panics
/// If the lengths differ.
pub fn rms_norm_in_place(isa: Isa, x: &mut [f32], weight: &[f32], eps: f32) {
    assert!(x.len() == weight.len(), "rms_norm: the lengths differ");
    let r = scale(isa, x, eps);
    simd::dispatch(isa, simd::Zip { x, y: weight, f: |x, w| (x * r) * w });
}

/// `r` of a row.
pub(crate) fn scale(isa: Isa, x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_of_squares(isa, x) / x.len() as f32 + eps).sqrt()
}

/// `out = (x * r) * weight`.
pub(crate) fn weighted(isa: Isa, x: &[f32], weight: &[f32], r: f32, out: &mut [f32]) {
    simd::dispatch(isa, Weighted { x, weight, r, out });
}

/// By lanes (index mod 16), multiply then add, and the tree.
pub(crate) fn sum_of_squares(isa: Isa, x: &[f32]) -> f32 {
    simd::dispatch(isa, SumOfSquares { x })
}

struct SumOfSquares<'a> {
    x: &'a [f32],
}

impl Kernel for SumOfSquares<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (chunks, tail) = self.x.as_chunks::<LANES>();
        let mut sum = s.splat(0.0);
        for chunk in chunks {
            let v = s.load(chunk);
            sum = s.add(sum, s.mul(v, v));
        }
        if !tail.is_empty() {
            let v = s.load(&padded(tail));
            sum = s.add(sum, s.mul(v, v));
        }
        tree(s.lanes(sum))
    }
}

struct Weighted<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    r: f32,
    out: &'a mut [f32],
}

impl Kernel for Weighted<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        for ((out, x), w) in self.out.iter_mut().zip(self.x).zip(self.weight) {
            *out = (x * self.r) * w;
        }
    }
}
