//! Fitting a page's centres, scales and codes to its numbers, one after the other, each to the least squared error.
//!
//! With the codes fixed, a channel's centre and half step are a regression of its numbers on its codes times the tokens'
//! scales; a token's scale is one on its codes times the half steps. With both fixed, the nearest cell is the best code.
//! So every step makes the page's squared error smaller (but for rounding to halves), and errors of large tokens count
//! as large as they are: a score is off by as much as its key. On keys with an outlier token this is worth most.
//!
//! Sums over tokens go token after token, sums over channels by lanes and the tree; multiply, then add.

use super::PAGE;
use super::encode::{Lanes, inverse, round_halves};
use super::ops::PlaneOps;
use super::quantize::trees;
use crate::simd::{LANES, Simd};
use half::f16;

/// Rounds of fitting.
pub(super) const REFITS: usize = 3;
/// Ranges that are tried for a start.
const RANGES: usize = 4;
/// A channel whose codes vary less than this part of their squares is left as it is.
const CONSTANT: f32 = 1e-5;
/// A sum of squares below this is none.
const NOTHING: f32 = 1e-20;
/// The largest half.
const LARGEST: f32 = 65504.0;

/// How far one range lies within the one before, as a part of the largest magnitude: wide cells gain from cutting
/// rare large numbers off, narrow ones do not.
const fn range_step(bits: usize) -> f32 {
    match bits {
        2 => 0.11,
        3 => 0.09,
        4 => 0.06,
        5 => 0.04,
        _ => 0.02,
    }
}

/// Half the number of codes, less the half that rounding adds; and the last code.
#[inline(always)]
fn middle_and_last(bits: usize) -> (f32, f32) {
    ((1u32 << (bits - 1)) as f32 - 0.5, ((1u32 << bits) - 1) as f32)
}

/// The codes of numbers in steps; 0 for NaN.
#[inline(always)]
fn nearest<P: PlaneOps>(p: P, steps: P::V, middle: f32, last: f32) -> P::Ints {
    let above = p.max(p.add(steps, p.splat(middle)), p.splat(0.0));
    p.round(p.min(above, p.splat(last)))
}

/// What codes stand for: odd numbers around 0.
#[inline(always)]
fn odd<P: PlaneOps>(p: P, codes: P::Ints, last: f32) -> P::V {
    p.sub(p.mul(p.float(codes), p.splat(2.0)), p.splat(last))
}

/// The first guess of half a step of every channel: of a few ranges, from the largest magnitude of the channel inwards,
/// that with the least squared error of `u`, the numbers over their tokens' scales.
#[inline(always)]
pub(super) fn choose_ranges<P: PlaneOps>(p: P, bits: usize, u: &[Lanes], best: &mut [Lanes]) {
    let (middle, last) = middle_and_last(bits);
    let width = best.len();
    let cells = (1u32 << bits) as f32;
    let zero = p.splat(0.0);
    for (i, best) in best.iter_mut().enumerate() {
        let mut largest = zero;
        for u in u.chunks_exact(width) {
            largest = p.max(p.abs(p.load(&u[i])), largest);
        }
        // all ranges at once: their sums need not wait for each other
        let (mut half, mut inverse_steps, mut sums) = ([zero; RANGES], [zero; RANGES], [zero; RANGES]);
        for r in 0..RANGES {
            let factor = (1.0 - r as f32 * range_step(bits)) / cells;
            half[r] = p.mul(largest, p.splat(factor));
            let mut inverses = p.lanes(half[r]);
            for half in &mut inverses {
                *half = 0.5 * inverse(*half);
            }
            inverse_steps[r] = p.load(&inverses);
        }
        for u in u.chunks_exact(width) {
            let u = p.load(&u[i]);
            for r in 0..RANGES {
                let z = odd(p, nearest(p, p.mul(u, inverse_steps[r]), middle, last), last);
                let off = p.sub(u, p.mul(half[r], z));
                sums[r] = p.add(sums[r], p.mul(off, off));
            }
        }
        let mut error = [f32::INFINITY; LANES];
        for r in 0..RANGES {
            let (sum, half) = (p.lanes(sums[r]), p.lanes(half[r]));
            for l in 0..LANES {
                if sum[l] < error[l] {
                    (error[l], best[l]) = (sum[l], half[l]);
                }
            }
        }
    }
}

/// How a token's scale is fitted to its codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenFit {
    /// The least squared error.
    LeastSquares,
    /// The same length.
    Length,
}

/// A page and what it is coded by.
pub(super) struct PageFit<'a> {
    pub bits: usize,
    /// `[PAGE][dim]`, less the centres.
    pub y: &'a mut [Lanes],
    /// As large: what the codes stand for, odd numbers.
    pub z: &'a mut [Lanes],
    /// Half a step of every channel.
    pub half: &'a mut [Lanes],
    /// The inverses of whole steps.
    pub inverse_steps: &'a mut [Lanes],
    pub scales: &'a mut [f32; PAGE],
    pub codes: &'a mut [[u8; LANES]],
}

impl PageFit<'_> {
    /// Rounds half steps to halves and stores those.
    #[inline(always)]
    pub fn round_steps<P: PlaneOps>(&mut self, p: P, channels: &mut [[u8; 2 * LANES]]) {
        for ((half, inverse_steps), out) in self.half.iter_mut().zip(&mut *self.inverse_steps).zip(channels) {
            p.store(round_halves(p, p.load(half), out), half);
            for (inverse_step, half) in inverse_steps.iter_mut().zip(&*half) {
                *inverse_step = 0.5 * inverse(*half);
            }
        }
    }

    /// Codes: the nearest cells.
    #[inline(always)]
    pub fn code<P: PlaneOps>(&mut self, p: P) {
        let width = self.half.len();
        let (middle, last) = middle_and_last(self.bits);
        let rows = self.y.chunks_exact(width).zip(self.z.chunks_exact_mut(width));
        for (((y, z), codes), scale) in rows.zip(self.codes.chunks_exact_mut(width)).zip(&*self.scales) {
            let by_token = p.splat(inverse(*scale));
            for (((y, z), codes), inverse_step) in y.iter().zip(z).zip(codes).zip(&*self.inverse_steps) {
                let steps = p.mul(p.mul(p.load(y), by_token), p.load(inverse_step));
                let cells = nearest(p, steps, middle, last);
                p.narrow_codes(cells, codes);
                p.store(odd(p, cells, last), z);
            }
        }
    }

    /// Centres (halves in bytes) and half steps of the channels. The half steps are not rounded.
    #[inline(always)]
    pub fn fit_channels<P: PlaneOps>(&mut self, p: P, centres: &mut [[u8; 2 * LANES]]) {
        let mut first = 0;
        if P::WIDE {
            while first + 4 <= centres.len() {
                self.fit_columns::<P, 4>(p, first, centres);
                first += 4;
            }
        }
        while first < centres.len() {
            self.fit_columns::<P, 1>(p, first, centres);
            first += 1;
        }
    }

    /// `N` lines of channels from `first` on.
    #[inline(always)]
    fn fit_columns<P: PlaneOps, const N: usize>(
        &mut self,
        p: P,
        first: usize,
        centres: &mut [[u8; 2 * LANES]],
    ) {
        const COUNT: f32 = PAGE as f32;
        let (width, zero) = (self.half.len(), p.splat(0.0));
        let (mut squares, mut products, mut weights, mut sums) = ([zero; N], [zero; N], [zero; N], [zero; N]);
        let tokens = self.y.chunks_exact(width).zip(self.z.chunks_exact(width)).zip(&*self.scales);
        for ((y, z), scale) in tokens {
            let (y, z, scale) = (&y[first..first + N], &z[first..first + N], p.splat(*scale));
            for i in 0..N {
                let (y, w) = (p.load(&y[i]), p.mul(scale, p.load(&z[i])));
                squares[i] = p.add(squares[i], p.mul(w, w));
                products[i] = p.add(products[i], p.mul(w, y));
                weights[i] = p.add(weights[i], w);
                sums[i] = p.add(sums[i], y);
            }
        }
        let mut shifts = [zero; N];
        for i in 0..N {
            let (squares, products) = (p.lanes(squares[i]), p.lanes(products[i]));
            let (weights, sums) = (p.lanes(weights[i]), p.lanes(sums[i]));
            let (half, centre) = (&mut self.half[first + i], &mut centres[first + i]);
            let mut old = [f16::ZERO; LANES];
            for (old, bytes) in old.iter_mut().zip(centre.as_chunks::<2>().0) {
                *old = f16::from_le_bytes(*bytes);
            }
            let olds = p.load_f16(&old);
            let (mut fits, mut moved) = ([false; LANES], p.lanes(olds));
            for l in 0..LANES {
                let whole = squares[l] * COUNT;
                let varies = whole - weights[l] * weights[l];
                let slope = (products[l] * COUNT - weights[l] * sums[l]) / varies;
                fits[l] = varies > CONSTANT * whole && slope > 0.0;
                if fits[l] {
                    half[l] = slope.min(LARGEST);
                    moved[l] += (sums[l] - half[l] * weights[l]) / COUNT;
                }
            }
            let mut new = [f16::ZERO; LANES];
            p.store_f16(p.load(&moved), &mut new);
            for (l, bytes) in centre.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                new[l] = if fits[l] { new[l] } else { old[l] };
                *bytes = new[l].to_le_bytes();
            }
            shifts[i] = p.sub(p.load_f16(&new), olds);
        }
        for y in self.y.chunks_exact_mut(width) {
            let y = &mut y[first..first + N];
            for i in 0..N {
                p.store(p.sub(p.load(&y[i]), shifts[i]), &mut y[i]);
            }
        }
    }

    /// Scales of the tokens, not rounded.
    #[inline(always)]
    pub fn fit_tokens<S: Simd>(&mut self, s: S, how: TokenFit) {
        let width = self.half.len();
        let tokens = self.y.chunks_exact(width).zip(self.z.chunks_exact(width));
        for ((y, z), scale) in tokens.zip(&mut *self.scales) {
            let (mut squares, mut products) = (s.splat(0.0), s.splat(0.0));
            for ((y, z), half) in y.iter().zip(z).zip(&*self.half) {
                let (y, w) = (s.load(y), s.mul(s.load(half), s.load(z)));
                let with = if how == TokenFit::Length { y } else { w };
                squares = s.add(squares, s.mul(w, w));
                products = s.add(products, s.mul(y, with));
            }
            let [squares, products, _, _] = trees(s, [squares, products, squares, products]);
            if squares > NOTHING {
                let ratio = products / squares;
                let fitted = if how == TokenFit::Length { ratio.sqrt() } else { ratio.max(0.0) };
                *scale = fitted.min(LARGEST);
            }
        }
    }
}
