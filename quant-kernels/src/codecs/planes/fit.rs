//! Fitting a page's centres, scales and codes to its numbers, one after the other, each to the least squared error.
//!
//! With the codes fixed, a channel's centre and half step are a regression of its numbers on its codes times the tokens'
//! scales; a token's scale is one on its codes times the half steps. With both fixed, the nearest cell is the best code.
//! So every step makes the page's squared error smaller (but for rounding to halves), and errors of large tokens count
//! as large as they are: a score is off by as much as its key. On keys with an outlier token this is worth most.
//!
//! Sums over tokens go token after token, sums over channels by lanes and the tree; multiply, then add.

use super::PAGE;
use super::encode::{add, inverse};
use crate::simd::{LANES, Simd};
use crate::types::f32::tree;
use half::f16;

/// Rounds of fitting.
pub(super) const REFITS: usize = 3;
/// Ranges that are tried for a start.
const RANGES: usize = 4;
/// Rounds to an integer in the low bits, as in `score`.
const ROUND: f32 = 12_582_912.0;
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

/// The code, as a float, of a number in steps.
#[inline(always)]
fn cell(steps: f32, middle: f32, last: f32) -> f32 {
    let clamped = (steps + middle).max(0.0).min(last);
    (clamped + ROUND) - ROUND
}

/// The first guess of half a step of every channel: of a few ranges, from the largest magnitude of the channel inwards,
/// that with the least squared error of `u`, the numbers over their tokens' scales. `buffers` is overwritten.
#[inline(always)]
pub(super) fn choose_ranges(bits: usize, u: &[f32], best: &mut [f32], buffers: &mut [f32]) {
    let dim = best.len();
    let (middle, last) = middle_and_last(bits);
    let (largest, error) = buffers[..2 * dim].split_at_mut(dim);
    largest.fill(0.0);
    for u in u.chunks_exact(dim) {
        add(largest, u, |max, u| if u.abs() > max { u.abs() } else { max });
    }
    error.fill(f32::INFINITY);
    let cells = (1u32 << bits) as f32;
    let columns = best.as_chunks_mut::<LANES>().0.iter_mut().zip(largest.as_chunks::<LANES>().0);
    for (i, ((best, largest), error)) in columns.zip(error.as_chunks_mut::<LANES>().0).enumerate() {
        for range in 0..RANGES {
            let factor = (1.0 - range as f32 * range_step(bits)) / cells;
            let half = largest.map(|x| x * factor);
            let inverse = half.map(|half| 0.5 * inverse(half));
            let mut sum = [0f32; LANES];
            for u in u.chunks_exact(dim) {
                let u = &u.as_chunks::<LANES>().0[i];
                for l in 0..LANES {
                    let cell = cell(u[l] * inverse[l], middle, last);
                    let off = u[l] - half[l] * (2.0 * cell - last);
                    sum[l] += off * off;
                }
            }
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
    pub y: &'a mut [f32],
    /// As large: what the codes stand for, odd numbers.
    pub z: &'a mut [f32],
    /// Half a step of every channel.
    pub half: &'a mut [f32],
    pub scales: &'a mut [f32; PAGE],
    pub codes: &'a mut [u8],
}

impl PageFit<'_> {
    /// Codes: the nearest cells.
    #[inline(always)]
    pub fn code(&mut self, buffers: &mut [f32]) {
        let dim = self.half.len();
        let (middle, last) = middle_and_last(self.bits);
        let by_channel = &mut buffers[..dim];
        for (inverse_step, half) in by_channel.iter_mut().zip(&*self.half) {
            *inverse_step = 0.5 * inverse(*half);
        }
        let rows = self.y.chunks_exact(dim).zip(self.z.chunks_exact_mut(dim));
        for (((y, z), codes), scale) in rows.zip(self.codes.chunks_exact_mut(dim)).zip(&*self.scales) {
            let by_token = inverse(*scale);
            for (((y, z), code), by_channel) in y.iter().zip(z).zip(codes).zip(&*by_channel) {
                let cell = cell((y * by_token) * by_channel, middle, last);
                *code = (cell + ROUND).to_bits() as u8;
                *z = 2.0 * cell - last;
            }
        }
    }

    /// Centres (halves in bytes) and half steps of the channels; `buffers` is `[4][dim]`. The half steps are not
    /// rounded.
    #[inline(always)]
    pub fn fit_channels(&mut self, centres: &mut [u8], buffers: &mut [f32]) {
        let dim = self.half.len();
        buffers.fill(0.0);
        let (squares, rest) = buffers.split_at_mut(dim);
        let (products, rest) = rest.split_at_mut(dim);
        let (weights, sums) = rest.split_at_mut(dim);
        for ((y, z), scale) in self.y.chunks_exact(dim).zip(self.z.chunks_exact(dim)).zip(&*self.scales) {
            let columns = squares.iter_mut().zip(&mut *products).zip(&mut *weights).zip(&mut *sums);
            for ((((squares, products), weights), sums), (y, z)) in columns.zip(y.iter().zip(z)) {
                let w = scale * z;
                *squares += w * w;
                *products += w * y;
                *weights += w;
                *sums += y;
            }
        }
        const COUNT: f32 = PAGE as f32;
        let channels = self.half.iter_mut().zip(centres.as_chunks_mut::<2>().0);
        let columns = squares.iter().zip(products).zip(weights).zip(&mut *sums);
        for ((half, centre), (((squares, products), weights), shift)) in channels.zip(columns) {
            let whole = *squares * COUNT;
            let varies = whole - *weights * *weights;
            let slope = (*products * COUNT - *weights * *shift) / varies;
            let old = f16::from_le_bytes(*centre);
            let mut new = old;
            if varies > CONSTANT * whole && slope > 0.0 {
                *half = slope.min(LARGEST);
                new = f16::from_f32(old.to_f32() + (*shift - *half * *weights) / COUNT);
            }
            *centre = new.to_le_bytes();
            *shift = new.to_f32() - old.to_f32();
        }
        for y in self.y.chunks_exact_mut(dim) {
            add(y, sums, |y, shift| y - shift);
        }
    }

    /// Scales of the tokens, not rounded.
    #[inline(always)]
    pub fn fit_tokens<S: Simd>(&mut self, s: S, how: TokenFit) {
        let dim = self.half.len();
        for ((y, z), scale) in self.y.chunks_exact(dim).zip(self.z.chunks_exact(dim)).zip(&mut *self.scales) {
            let (mut squares, mut products) = (s.splat(0.0), s.splat(0.0));
            let columns = y.as_chunks::<LANES>().0.iter().zip(z.as_chunks::<LANES>().0);
            for ((y, z), half) in columns.zip(self.half.as_chunks::<LANES>().0) {
                let (y, w) = (s.load(y), s.mul(s.load(half), s.load(z)));
                let with = if how == TokenFit::Length { y } else { w };
                squares = s.add(squares, s.mul(w, w));
                products = s.add(products, s.mul(y, with));
            }
            let (squares, products) = (tree(s.lanes(squares)), tree(s.lanes(products)));
            if squares > NOTHING {
                let ratio = products / squares;
                let fitted = if how == TokenFit::Length { ratio.sqrt() } else { ratio.max(0.0) };
                *scale = fitted.min(LARGEST);
            }
        }
    }
}
