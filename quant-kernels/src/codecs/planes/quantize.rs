//! Rows of numbers in integers, for the dots with codes.
#![allow(clippy::needless_range_loop, reason = "register tiles: one index walks several arrays")]

use super::dots::Quantized;
use super::halves;
use super::ops::PlaneOps;
use crate::activations::TINY;
use crate::simd::{LANES, Simd};

/// Rows (queries or weights) times pages of one pass: what belongs to them stays in cache.
pub(super) const PAIRS: usize = 16;
/// Pages of one pass at most. Few rows are quantized for several pages at once: while the largest number of one pair is
/// waited for, there is work for another.
pub(super) const PASS_PAGES: usize = 4;
/// Steps of a coarse quantity: one signed byte.
const COARSE: f32 = 127.0;
/// Steps of a fine one: 127 * 128, a high part of 127 and a low part of 7 bits.
const FINE: f32 = 16256.0;

/// Halves as floats.
#[inline(always)]
pub(super) fn widen<S: Simd>(s: S, from: &[[u8; 32]], out: &mut [f32]) {
    for (out, x) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(from) {
        s.store(x.load(s), out);
    }
}

/// Sixteen numbers that belong to a page.
pub(super) trait Line {
    fn load<S: Simd>(&self, s: S) -> S::V;
}

impl Line for [f32; LANES] {
    #[inline(always)]
    fn load<S: Simd>(&self, s: S) -> S::V {
        s.load(self)
    }
}

/// Halves as they lie in the page.
impl Line for [u8; 32] {
    #[inline(always)]
    fn load<S: Simd>(&self, s: S) -> S::V {
        s.load_f16(&halves(self))
    }
}

/// Rows on each of some pages, row after row on the first page, then on the next.
///
/// Closures and arrays made by them would be neater, but are not inlined and copied about.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a, L> {
    pub x: &'a [f32],
    pub rows: usize,
    /// Numbers between rows, and between pages, in `x`.
    pub strides: [usize; 2],
    pub lines: usize,
    /// Of each page what a row is multiplied by, and what the row is weighted with for the sum.
    pub scales: [[&'a [L]; 2]; PASS_PAGES],
}

impl<'a, L: Line> Pairs<'a, L> {
    /// Pair `i`: its row, scales and weights.
    #[inline(always)]
    fn at(&self, i: usize) -> (&'a [[f32; LANES]], &'a [L], &'a [L]) {
        let (page, row) = (i / self.rows, i % self.rows);
        let x = self.x[row * self.strides[0] + page * self.strides[1]..].as_chunks().0;
        let [scale, weight] = self.scales[page];
        (&x[..self.lines], &scale[..self.lines], &weight[..self.lines])
    }

    /// Quantizes `count` pairs, four at a time, that what goes across lanes is done for four at once.
    #[inline(always)]
    pub fn quantize<P: PlaneOps, const N: usize, const WEIGHTED: bool>(
        &self,
        p: P,
        count: usize,
        codes: &mut [i8],
        out: &mut [Quantized; PAIRS],
    ) {
        let len = N * self.lines * LANES;
        let (fours, rest) = out[..count].as_chunks_mut::<4>();
        let (codes, rest_codes) = codes[..count * len].split_at_mut(fours.len() * 4 * len);
        for (i, (out, codes)) in fours.iter_mut().zip(codes.chunks_exact_mut(4 * len)).enumerate() {
            quantize::<P, L, 4, N, WEIGHTED>(p, self, 4 * i, codes, out);
        }
        let whole = count - rest.len();
        let (rest, _) = rest.as_chunks_mut::<1>();
        for (i, (out, codes)) in rest.iter_mut().zip(rest_codes.chunks_exact_mut(len)).enumerate() {
            quantize::<P, L, 1, N, WEIGHTED>(p, self, whole + i, codes, out);
        }
    }
}

/// `x[i] * scale[i]` of each pair from `first` on in integers: one part of `codes` for 127 steps, two (high, low) for
/// 16256. The rule of activation blocks, over the whole row: an infinite product gives NaN and zeros, one below 2^-100
/// zeros. And the sums of `x[i] * weight[i]`, or of `x[i]` if not `WEIGHTED`, by lanes and the tree.
#[inline(always)]
fn quantize<P: PlaneOps, L: Line, const R: usize, const N: usize, const WEIGHTED: bool>(
    p: P,
    pairs: &Pairs<'_, L>,
    first: usize,
    codes: &mut [i8],
    out: &mut [Quantized; R],
) {
    let (lines, zero) = (pairs.lines, p.splat(0.0));
    let (mut max, mut sides) = ([zero; R], [zero; R]);
    for r in 0..R {
        let (x, scale, weight) = pairs.at(first + r);
        for i in 0..lines {
            let x = p.load(&x[i]);
            max[r] = p.max(p.abs(p.mul(x, scale[i].load(p))), max[r]);
            sides[r] = p.add(sides[r], if WEIGHTED { p.mul(x, weight[i].load(p)) } else { x });
        }
    }
    let (max, sides) = (p.largest(four(max, zero)), trees(p, four(sides, zero)));
    let range = if N == 2 { FINE } else { COARSE };
    let (mut inverse, mut steps) = ([0f32; 4], [0f32; 4]);
    for r in 0..4 {
        let fits = max[r] >= TINY && max[r] < f32::INFINITY;
        // with a step of NaN it does not matter what the codes are
        let other = if max[r] < TINY { 0.0 } else { f32::NAN };
        (inverse[r], steps[r]) = if fits { (range / max[r], max[r] / range) } else { (0.0, other) };
    }
    let mut sums = [zero; R];
    for (r, codes) in codes.chunks_exact_mut(N * lines * LANES).enumerate() {
        let inverse = p.splat(inverse[r]);
        let (high, low) = codes.split_at_mut(lines * LANES);
        let (x, scale, _) = pairs.at(first + r);
        let mut sum = p.round(zero);
        let (fours, high_rest) = high.as_chunks_mut::<{ 4 * LANES }>();
        let (fours_low, low_rest) = low.as_chunks_mut::<{ 4 * LANES }>();
        let whole = fours.len();
        for i in 0..whole {
            let mut ints = [sum; 4];
            for l in 0..4 {
                ints[l] = nearest(p, &x[4 * i + l], &scale[4 * i + l], inverse);
                sum = p.shift_add::<0>(sum, ints[l]);
            }
            if N == 2 {
                p.split_four(ints, &mut fours[i], &mut fours_low[i]);
            } else {
                p.narrow_four(ints, &mut fours[i]);
            }
        }
        for (i, high) in high_rest.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let ints = nearest(p, &x[4 * whole + i], &scale[4 * whole + i], inverse);
            sum = p.shift_add::<0>(sum, ints);
            if N == 2 {
                let parts = p.split(ints);
                p.narrow(parts[0], high);
                p.narrow(parts[1], &mut low_rest.as_chunks_mut::<LANES>().0[i]);
            } else {
                p.narrow(ints, high);
            }
        }
        sums[r] = p.float(sum);
    }
    // below 2^24, so exact in any order
    let sums = trees(p, four(sums, zero));
    for r in 0..R {
        out[r] = Quantized { step: steps[r], sum: sums[r] as i32, side: sides[r] };
    }
}

/// The integers nearest to `(x * scale) * inverse`.
#[inline(always)]
fn nearest<P: PlaneOps, L: Line>(p: P, x: &[f32; LANES], scale: &L, inverse: P::V) -> P::Ints {
    p.round(p.mul(p.mul(p.load(x), scale.load(p)), inverse))
}

/// One or four vectors as four.
#[inline(always)]
fn four<V: Copy, const R: usize>(v: [V; R], fill: V) -> [V; 4] {
    let mut out = [fill; 4];
    out[..R].copy_from_slice(&v);
    out
}

/// The trees of four vectors.
#[inline(always)]
pub(super) fn trees<S: Simd>(s: S, v: [S::V; 4]) -> [f32; 4] {
    let quads = s.tree_to_quads(v);
    let trees = s.lanes(s.tree_of_quads([quads; 4]));
    [trees[0], trees[4], trees[8], trees[12]]
}
