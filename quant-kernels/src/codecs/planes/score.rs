//! Scores and weighted sums of plane pages: quantize the query or the weights, sum in integers, scale once per output.

use super::dots::{Fold, PlaneKernel, PlaneMatrix, PlaneOps, dispatch};
use super::{PAGE, PageView, PlaneScratch, Planes, halves};
use crate::Isa;
use crate::activations::TINY;
use crate::codecs::take;
use crate::simd::{LANES, Simd};

/// Rows (queries or weights) of one pass: their buffers stay in cache.
const ROWS: usize = 16;
/// Steps of a coarse quantity: one signed byte.
const COARSE: f32 = 127.0;
/// Steps of a fine one: 127 * 128, a high part of 127 and a low part of 7 bits.
const FINE: f32 = 16256.0;

/// Keys of this many bits and more deserve a finely quantized query.
const FINE_BITS: usize = 6;

pub(super) fn score(
    planes: &Planes,
    isa: Isa,
    page: &[u8],
    queries: &[f32],
    scratch: &mut PlaneScratch,
    scores: &mut [f32],
    stride: usize,
) {
    assert!(queries.len().is_multiple_of(planes.dim) && stride >= PAGE, "plane codec: wrong lengths");
    let view = planes.view(page);
    if planes.kept >= FINE_BITS {
        dispatch(isa, Score::<2> { planes, view, queries, scratch, scores, stride });
    } else {
        dispatch(isa, Score::<1> { planes, view, queries, scratch, scores, stride });
    }
}

pub(super) fn accumulate(
    planes: &Planes,
    isa: Isa,
    page: &[u8],
    weights: &[f32],
    stride: usize,
    scratch: &mut PlaneScratch,
    sums: &mut [f32],
) {
    assert!(sums.len().is_multiple_of(planes.dim) && stride >= PAGE, "plane codec: wrong lengths");
    let view = planes.view(page);
    dispatch(isa, Accumulate { planes, view, weights, stride, scratch, sums });
}

/// Scores with queries of `N` parts.
struct Score<'a, const N: usize> {
    planes: &'a Planes,
    view: PageView<'a>,
    queries: &'a [f32],
    scratch: &'a mut PlaneScratch,
    scores: &'a mut [f32],
    stride: usize,
}

impl<const N: usize> PlaneKernel for Score<'_, N> {
    #[inline(always)]
    fn run<P: PlaneOps>(self, p: P) {
        let Self { planes, view, queries, scratch, scores, stride } = self;
        let dim = planes.dim;
        let matrix = PlaneMatrix { planes: view.planes, outs: PAGE, ins: dim, bits: planes.kept };
        let PlaneScratch { ints, numbers, ahead, .. } = scratch;
        let ints = take(ints, ROWS * N * dim);
        let (channel, centre) = take(numbers, 2 * dim).split_at_mut(dim);
        widen(p, view.channel, channel);
        widen(p, view.centre, centre);
        let unit = planes.widening() * view.scale;
        for (i, queries) in queries.chunks(ROWS * dim).enumerate() {
            let row = |r: usize| &queries[r * dim..][..dim];
            let count = queries.len() / dim;
            let mut rows = [Quantized::default(); ROWS];
            quantize_rows::<P, N>(p, count, row, channel, Some(centre), ints, &mut rows);
            for row in &mut rows {
                row.step *= unit;
                row.side *= view.scale;
            }
            let scores = &mut scores[i * ROWS * stride..];
            let fold = ToScores::<N> { token: view.token, bits: planes.kept, rows: &rows, scores, stride };
            matrix.dots(p, &ints[..count * N * dim], ahead, fold);
        }
    }
}

/// `side + (token * step) * sum`.
struct ToScores<'a, const N: usize> {
    token: &'a [[u8; 32]],
    bits: usize,
    rows: &'a [Quantized; ROWS],
    scores: &'a mut [f32],
    stride: usize,
}

impl<const N: usize> Fold for ToScores<'_, N> {
    const PARTS: usize = N;
    const MIN_BITS: usize = if N == 1 { 2 } else { FINE_BITS };
    const MAX_BITS: usize = if N == 1 { FINE_BITS - 1 } else { 8 };

    #[inline(always)]
    fn fold<P: PlaneOps>(&mut self, p: P, group: usize, first: usize, sums: &[[i32; LANES]]) {
        let token = p.load_f16(&halves(&self.token[group]));
        for (i, sums) in sums.chunks_exact(N).enumerate() {
            let at = first / N + i;
            let row = &self.rows[at];
            let sum = exact::<P, N>(p, sums, offset(self.bits, row.sum));
            let score = p.add(p.splat(row.side), p.mul(p.mul(token, p.splat(row.step)), sum));
            let out = &mut self.scores[at * self.stride + group * LANES..].as_chunks_mut::<LANES>().0[0];
            p.store(score, out);
        }
    }
}

struct Accumulate<'a> {
    planes: &'a Planes,
    view: PageView<'a>,
    weights: &'a [f32],
    stride: usize,
    scratch: &'a mut PlaneScratch,
    sums: &'a mut [f32],
}

impl PlaneKernel for Accumulate<'_> {
    #[inline(always)]
    fn run<P: PlaneOps>(self, p: P) {
        let Self { planes, view, weights, stride, scratch, sums } = self;
        let dim = planes.dim;
        let matrix = PlaneMatrix { planes: view.planes, outs: dim, ins: PAGE, bits: planes.kept };
        let PlaneScratch { ints, numbers, ahead, .. } = scratch;
        let ints = take(ints, ROWS * 2 * PAGE);
        let token = take(numbers, PAGE);
        widen(p, view.token, token);
        let unit = planes.widening() * view.scale;
        for (i, sums) in sums.chunks_mut(ROWS * dim).enumerate() {
            let row = |r: usize| &weights[(i * ROWS + r) * stride..][..PAGE];
            let count = sums.len() / dim;
            let mut rows = [Quantized::default(); ROWS];
            quantize_rows::<P, 2>(p, count, row, token, None, ints, &mut rows);
            for row in &mut rows {
                row.step *= unit;
                row.side *= view.scale;
            }
            let fold = ToSums {
                channel: view.channel,
                centre: view.centre,
                bits: planes.kept,
                rows: &rows,
                sums,
                dim,
            };
            matrix.dots(p, &ints[..count * 2 * PAGE], ahead, fold);
        }
    }
}

/// `(sum + side * centre) + (step * channel) * isum`.
struct ToSums<'a> {
    channel: &'a [[u8; 32]],
    centre: &'a [[u8; 32]],
    bits: usize,
    rows: &'a [Quantized; ROWS],
    sums: &'a mut [f32],
    dim: usize,
}

impl Fold for ToSums<'_> {
    const PARTS: usize = 2;
    const MIN_BITS: usize = 2;
    const MAX_BITS: usize = 8;

    #[inline(always)]
    fn fold<P: PlaneOps>(&mut self, p: P, group: usize, first: usize, sums: &[[i32; LANES]]) {
        let channel = p.load_f16(&halves(&self.channel[group]));
        let centre = p.load_f16(&halves(&self.centre[group]));
        for (i, sums) in sums.chunks_exact(2).enumerate() {
            let at = first / 2 + i;
            let row = &self.rows[at];
            let out = &mut self.sums[at * self.dim + group * LANES..].as_chunks_mut::<LANES>().0[0];
            let isum = exact::<P, 2>(p, sums, offset(self.bits, row.sum));
            let centred = p.add(p.load(out), p.mul(p.splat(row.side), centre));
            p.store(p.add(centred, p.mul(p.mul(p.splat(row.step), channel), isum)), out);
        }
    }
}

/// Halves as floats.
#[inline(always)]
fn widen<S: Simd>(s: S, halves_of: &[[u8; 32]], out: &mut [f32]) {
    for (out, x) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(halves_of) {
        s.store(s.load_f16(&halves(x)), out);
    }
}

/// A row of integers and what they mean.
#[derive(Debug, Clone, Copy, Default)]
struct Quantized {
    /// Value of one step.
    step: f32,
    /// Sum of the integers.
    sum: i32,
    /// Sum of the numbers themselves, weighted.
    side: f32,
}

/// Quantizes `count` rows, four at a time, that what goes across lanes is done for four at once.
#[inline(always)]
fn quantize_rows<'x, P: PlaneOps, const N: usize>(
    p: P,
    count: usize,
    row: impl Fn(usize) -> &'x [f32],
    scale: &[f32],
    weight: Option<&[f32]>,
    codes: &mut [i8],
    out: &mut [Quantized; ROWS],
) {
    let (len, mut r) = (N * scale.len(), 0);
    while r + 4 <= count {
        let rows = [row(r), row(r + 1), row(r + 2), row(r + 3)];
        let done = quantize::<P, 4, N>(p, rows, scale, weight, &mut codes[r * len..][..4 * len]);
        out[r..r + 4].copy_from_slice(&done);
        r += 4;
    }
    while r < count {
        [out[r]] = quantize::<P, 1, N>(p, [row(r)], scale, weight, &mut codes[r * len..][..len]);
        r += 1;
    }
}

/// `x[i] * scale[i]` of each row in integers: one part of `codes` for 127 steps, two (high, low) for 16256. The rule of
/// activation blocks, over the whole row: an infinite product gives NaN and zeros, one below 2^-100 zeros. And the sums
/// of `x[i] * weight[i]`, or of `x[i]`, by lanes and the tree.
#[inline(always)]
fn quantize<P: PlaneOps, const R: usize, const N: usize>(
    p: P,
    x: [&[f32]; R],
    scale: &[f32],
    weight: Option<&[f32]>,
    codes: &mut [i8],
) -> [Quantized; R] {
    let scale = scale.as_chunks::<LANES>().0;
    let lines = scale.len();
    let mut rows = [&scale[..0]; R];
    for r in 0..R {
        rows[r] = &x[r].as_chunks::<LANES>().0[..lines];
    }
    let zero = p.splat(0.0);
    let (mut max, mut sides) = ([zero; R], [zero; R]);
    match weight {
        Some(weight) => {
            let weight = &weight.as_chunks::<LANES>().0[..lines];
            for i in 0..lines {
                for r in 0..R {
                    let x = p.load(&rows[r][i]);
                    max[r] = p.max(p.abs(p.mul(x, p.load(&scale[i]))), max[r]);
                    sides[r] = p.add(sides[r], p.mul(x, p.load(&weight[i])));
                }
            }
        }
        None => {
            for i in 0..lines {
                for r in 0..R {
                    let x = p.load(&rows[r][i]);
                    max[r] = p.max(p.abs(p.mul(x, p.load(&scale[i]))), max[r]);
                    sides[r] = p.add(sides[r], x);
                }
            }
        }
    }
    let (max, sides) = (p.largest(four(max, zero)), trees(p, four(sides, zero)));
    let steps = if N == 2 { FINE } else { COARSE };
    let mut sums = [zero; R];
    for (r, codes) in codes.chunks_exact_mut(N * lines * LANES).enumerate() {
        if !(TINY..f32::INFINITY).contains(&max[r]) {
            codes.fill(0);
            continue;
        }
        let inverse = p.splat(steps / max[r]);
        let (high, low) = codes.as_chunks_mut::<LANES>().0.split_at_mut(lines);
        let mut sum = p.round(zero);
        for i in 0..lines {
            let ints = p.round(p.mul(p.mul(p.load(&rows[r][i]), p.load(&scale[i])), inverse));
            sum = p.shift_add::<0>(sum, ints);
            if N == 2 {
                let parts = p.split(ints);
                p.narrow(parts[0], &mut high[i]);
                p.narrow(parts[1], &mut low[i]);
            } else {
                p.narrow(ints, &mut high[i]);
            }
        }
        sums[r] = p.float(sum);
    }
    // below 2^24, so exact in any order
    let sums = trees(p, four(sums, zero));
    let mut out = [Quantized::default(); R];
    for r in 0..R {
        let step = match max[r] {
            max if (TINY..f32::INFINITY).contains(&max) => max / steps,
            max if max < TINY => 0.0,
            _ => f32::NAN,
        };
        out[r] = Quantized { step, sum: sums[r] as i32, side: sides[r] };
    }
    out
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
fn trees<S: Simd>(s: S, v: [S::V; 4]) -> [f32; 4] {
    let quads = s.tree_to_quads(v);
    let trees = s.lanes(s.tree_of_quads([quads; 4]));
    [trees[0], trees[4], trees[8], trees[12]]
}

/// `top` times the sum of the integers.
#[inline(always)]
fn offset(bits: usize, sum: i32) -> i32 {
    ((1i32 << bits) - 1).wrapping_mul(sum)
}

/// Sums of `2 code - top` times the integers, from sums of `code` times their parts: exact.
#[inline(always)]
fn exact<P: PlaneOps, const N: usize>(p: P, sums: &[[i32; LANES]], offset: i32) -> P::V {
    let mut sum = p.load_ints(&sums[0]);
    if N == 2 {
        sum = p.shift_add::<7>(sum, p.load_ints(&sums[1]));
    }
    p.float(p.shift_add::<1>(sum, p.splat_int(offset.wrapping_neg())))
}
