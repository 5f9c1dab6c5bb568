//! Softmax of a row: exact maximum, exp, sum by lanes, division.

use crate::Isa;
use crate::exp::{exp, exp_reduce, exp_reduced};
use crate::simd::{self, Kernel, LANES, Simd, padded};
use crate::types::f32::tree;

/// `x[i] = exp(x[i] - max) / sum`; the sum by lanes (index mod 16), then the tree.
///
/// NaN or +infinity anywhere, or -infinity everywhere, makes the row NaN. An empty row stays empty.
pub fn softmax(isa: Isa, x: &mut [f32]) {
    simd::dispatch(isa, Softmax { x });
}

struct Softmax<'a> {
    x: &'a mut [f32],
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let max = maximum(s, self.x);
        exp_minus(self.x, max);
        let sum = sum(s, self.x);
        for x in self.x {
            *x /= sum;
        }
    }
}

/// The exact maximum, NaN apart; minus infinity for an empty slice.
#[inline(always)]
pub(crate) fn maximum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut max = s.splat(f32::NEG_INFINITY);
    for chunk in chunks {
        max = s.max(s.load(chunk), max);
    }
    s.lanes(max).iter().chain(tail).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// `x[i] = exp(x[i] - max)`.
#[inline(always)]
pub(crate) fn exp_minus(x: &mut [f32], max: f32) {
    for x in x {
        *x = exp(*x - max);
    }
}

/// [`exp_minus`] of whole lines, of which none is above `max`, and [`sum`].
#[inline(always)]
pub(crate) fn exp_minus_sum<S: Simd>(s: S, lines: &mut [[f32; LANES]], max: f32) -> f32 {
    let (max, mut sum) = (s.splat(max), s.splat(0.0));
    let mut powers = [[0.0; LANES]; 16];
    for lines in lines.chunks_mut(powers.len()) {
        for (line, power) in lines.iter_mut().zip(&mut powers) {
            let halves = exp_reduce(s, s.sub(s.load(line), max));
            s.store(halves[0], line);
            s.store(halves[1], power);
        }
        for (line, power) in lines.iter_mut().zip(&powers) {
            let weight = exp_reduced(s, s.load(line), s.load(power));
            s.store(weight, line);
            sum = s.add(sum, weight);
        }
    }
    tree(s.lanes(sum))
}

/// The sum by lanes (index mod 16), then the tree.
#[inline(always)]
pub(crate) fn sum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut sum = s.splat(0.0);
    for chunk in chunks {
        sum = s.add(sum, s.load(chunk));
    }
    if !tail.is_empty() {
        sum = s.add(sum, s.load(&padded(tail)));
    }
    tree(s.lanes(sum))
}
