//! Scores and weighted sums of plane pages: quantize the query or the weights, sum in integers, scale once per output.

use super::dots::{Dots, Fold, Memory, PlaneKernel, PlaneOps, Quantized, dispatch};
use super::{PAGE, PageView, PlaneScratch, Planes, halves, planes_at};
use crate::Isa;
use crate::activations::TINY;
use crate::codecs::take;
use crate::simd::{LANES, Simd};

/// Rows (queries or weights) times pages of one pass: what belongs to them stays in cache.
const PAIRS: usize = 16;
/// Pages of one pass at most. Few rows are quantized for several pages at once: while the largest number of one pair is
/// waited for, there is work for another.
pub(super) const PASS_PAGES: usize = 4;
/// Steps of a coarse quantity: one signed byte.
const COARSE: f32 = 127.0;
/// Steps of a fine one: 127 * 128, a high part of 127 and a low part of 7 bits.
const FINE: f32 = 16256.0;
/// Keys of this many bits and more deserve a finely quantized query.
const FINE_BITS: usize = 6;

/// Pages in a row. What comes of them or goes into them is laid out by tokens: page `i` has those from `i * PAGE` on in
/// every `stride`.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub isa: Isa,
    pub planes: &'a Planes,
    pub pages: &'a [&'a [u8]],
    pub stride: usize,
}

/// Scores of queries, `[row][dim]`.
pub(super) fn score(run: Run<'_>, queries: &[f32], scratch: &mut PlaneScratch, scores: &mut [f32]) {
    run.check(queries.len());
    if run.planes.kept >= FINE_BITS {
        dispatch(run.isa, Score::<2> { run, queries, scratch, scores });
    } else {
        dispatch(run.isa, Score::<1> { run, queries, scratch, scores });
    }
}

/// Adds weighted values to sums, `[row][dim]`.
pub(super) fn accumulate(run: Run<'_>, weights: &[f32], scratch: &mut PlaneScratch, sums: &mut [f32]) {
    run.check(sums.len());
    dispatch(run.isa, Accumulate { run, weights, scratch, sums });
}

impl Run<'_> {
    fn check(&self, len: usize) {
        let fits = len.is_multiple_of(self.planes.dim) && self.stride >= self.pages.len() * PAGE;
        assert!(fits, "plane codec: wrong lengths");
    }

    /// Pages of a pass of `rows` rows.
    fn pass(&self, rows: usize) -> usize {
        (PAIRS / rows.max(1)).clamp(1, PASS_PAGES)
    }

    /// What to fetch while page `at` is read: the planes of the next one, and the scales of that which is the first of
    /// the next pass if this one is of its own. `next` is what is read after the run.
    fn ahead(&self, at: usize, pass: usize, next: &[Memory; PASS_PAGES]) -> [Memory; 2] {
        let memory = |at: usize| match self.pages.get(at) {
            Some(page) => Memory::from(*page),
            None => next.get(at - self.pages.len()).copied().unwrap_or_default(),
        };
        let scales = planes_at(self.planes.dim) / 64;
        [memory(at + pass).split(scales)[0], memory(at + 1).split(scales)[1]]
    }

    /// Brings rows into the units of a page; of their sums remains what lies below the codes' middle: `-top` times them.
    #[inline(always)]
    fn units(&self, view: &PageView<'_>, rows: &mut [Quantized]) {
        let unit = self.planes.widening() * view.scale;
        for row in rows {
            row.step *= unit;
            row.side *= view.scale;
            row.sum = ((1i32 << self.planes.kept) - 1).wrapping_mul(row.sum).wrapping_neg();
        }
    }
}

/// Scores with queries of `N` parts.
struct Score<'a, const N: usize> {
    run: Run<'a>,
    queries: &'a [f32],
    scratch: &'a mut PlaneScratch,
    scores: &'a mut [f32],
}

impl<const N: usize> PlaneKernel for Score<'_, N> {
    #[inline(always)]
    fn run<P: PlaneOps>(self, p: P) {
        let Self { run, queries, scratch, scores } = self;
        let (dim, bits) = (run.planes.dim, run.planes.kept);
        let rows = queries.len() / dim;
        let pass = run.pass(rows);
        let PlaneScratch { ints, numbers, next, .. } = scratch;
        let next = std::mem::take(next);
        let ints = take(ints, PAIRS * N * dim);
        let numbers = take(numbers, PASS_PAGES * 2 * dim);
        for (i, pages) in run.pages.chunks(pass).enumerate() {
            for (page, numbers) in pages.iter().zip(numbers.chunks_exact_mut(2 * dim)) {
                let (view, (channel, centre)) = (run.planes.view(page), numbers.split_at_mut(dim));
                widen(p, view.channel, channel);
                widen(p, view.centre, centre);
            }
            for first in (0..rows).step_by(PAIRS) {
                let count = PAIRS.min(rows - first);
                let mut pairs = [Pair::default(); PAIRS];
                for (pairs, numbers) in pairs.chunks_exact_mut(count).zip(numbers.chunks_exact(2 * dim)) {
                    let (scale, weight) = numbers.split_at(dim);
                    for (pair, x) in pairs.iter_mut().zip(queries[first * dim..].chunks_exact(dim)) {
                        *pair = Pair { x, scale, weight };
                    }
                }
                let mut quantized = [Quantized::default(); PAIRS];
                quantize_pairs::<P, N, true>(p, &pairs[..count * pages.len()], ints, &mut quantized);
                let of_pages = ints.chunks_exact(count * N * dim).zip(quantized.chunks_exact_mut(count));
                for (k, ((x, rows), page)) in of_pages.zip(pages).enumerate() {
                    let (at, view) = (i * pass + k, run.planes.view(page));
                    run.units(&view, rows);
                    let dots = Dots {
                        planes: view.planes,
                        outs: PAGE,
                        ins: dim,
                        bits,
                        x,
                        rows,
                        ahead: if first == 0 { run.ahead(at, pass, &next) } else { Default::default() },
                        fold: ToScores::<N> { token: view.token },
                        out: &mut scores[first * run.stride + at * PAGE..],
                        stride: run.stride,
                    };
                    dots.run(p);
                }
            }
        }
    }
}

/// `side + (token * step) * sum`.
#[derive(Clone, Copy)]
struct ToScores<'a, const N: usize> {
    token: &'a [[u8; 32]],
}

impl<const N: usize> Fold for ToScores<'_, N> {
    const PARTS: usize = N;
    const MIN_BITS: usize = if N == 1 { 2 } else { FINE_BITS };
    const MAX_BITS: usize = if N == 1 { FINE_BITS - 1 } else { 8 };
    type Scales<P: PlaneOps> = P::V;

    #[inline(always)]
    fn scales<P: PlaneOps>(self, p: P, group: usize) -> P::V {
        p.load_f16(&halves(&self.token[group]))
    }

    #[inline(always)]
    fn fold<P: PlaneOps>(
        self,
        p: P,
        row: &Quantized,
        token: P::V,
        sums: &[[i32; LANES]],
        out: &mut [f32; LANES],
    ) {
        let sum = exact::<P, N>(p, sums, row.sum);
        p.store(p.add(p.splat(row.side), p.mul(p.mul(token, p.splat(row.step)), sum)), out);
    }
}

struct Accumulate<'a> {
    run: Run<'a>,
    weights: &'a [f32],
    scratch: &'a mut PlaneScratch,
    sums: &'a mut [f32],
}

impl PlaneKernel for Accumulate<'_> {
    #[inline(always)]
    fn run<P: PlaneOps>(self, p: P) {
        let Self { run, weights, scratch, sums } = self;
        let (dim, bits) = (run.planes.dim, run.planes.kept);
        let rows = sums.len() / dim;
        let pass = run.pass(rows);
        let PlaneScratch { ints, numbers, next, .. } = scratch;
        let next = std::mem::take(next);
        let ints = take(ints, PAIRS * 2 * PAGE);
        let numbers = take(numbers, PASS_PAGES * PAGE);
        for (i, pages) in run.pages.chunks(pass).enumerate() {
            for (page, token) in pages.iter().zip(numbers.chunks_exact_mut(PAGE)) {
                widen(p, run.planes.view(page).token, token);
            }
            for first in (0..rows).step_by(PAIRS) {
                let count = PAIRS.min(rows - first);
                let mut pairs = [Pair::default(); PAIRS];
                let of_pages = pairs.chunks_exact_mut(count).zip(numbers.chunks_exact(PAGE));
                for (k, (pairs, scale)) in of_pages.take(pages.len()).enumerate() {
                    for (r, pair) in pairs.iter_mut().enumerate() {
                        let at = (first + r) * run.stride + (i * pass + k) * PAGE;
                        *pair = Pair { x: &weights[at..][..PAGE], scale, weight: &[] };
                    }
                }
                let mut quantized = [Quantized::default(); PAIRS];
                quantize_pairs::<P, 2, false>(p, &pairs[..count * pages.len()], ints, &mut quantized);
                let of_pages = ints.chunks_exact(count * 2 * PAGE).zip(quantized.chunks_exact_mut(count));
                for (k, ((x, rows), page)) in of_pages.zip(pages).enumerate() {
                    let (at, view) = (i * pass + k, run.planes.view(page));
                    run.units(&view, rows);
                    let dots = Dots {
                        planes: view.planes,
                        outs: dim,
                        ins: PAGE,
                        bits,
                        x,
                        rows,
                        ahead: if first == 0 { run.ahead(at, pass, &next) } else { Default::default() },
                        fold: ToSums { channel: view.channel, centre: view.centre },
                        out: &mut sums[first * dim..],
                        stride: dim,
                    };
                    dots.run(p);
                }
            }
        }
    }
}

/// `(sum + side * centre) + (step * channel) * isum`.
#[derive(Clone, Copy)]
struct ToSums<'a> {
    channel: &'a [[u8; 32]],
    centre: &'a [[u8; 32]],
}

impl Fold for ToSums<'_> {
    const PARTS: usize = 2;
    const MIN_BITS: usize = 2;
    const MAX_BITS: usize = 8;
    type Scales<P: PlaneOps> = [P::V; 2];

    #[inline(always)]
    fn scales<P: PlaneOps>(self, p: P, group: usize) -> [P::V; 2] {
        [p.load_f16(&halves(&self.channel[group])), p.load_f16(&halves(&self.centre[group]))]
    }

    #[inline(always)]
    fn fold<P: PlaneOps>(
        self,
        p: P,
        row: &Quantized,
        [channel, centre]: [P::V; 2],
        sums: &[[i32; LANES]],
        out: &mut [f32; LANES],
    ) {
        let isum = exact::<P, 2>(p, sums, row.sum);
        let centred = p.add(p.load(out), p.mul(p.splat(row.side), centre));
        p.store(p.add(centred, p.mul(p.mul(p.splat(row.step), channel), isum)), out);
    }
}

/// Halves as floats.
#[inline(always)]
fn widen<S: Simd>(s: S, halves_of: &[[u8; 32]], out: &mut [f32]) {
    for (out, x) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(halves_of) {
        s.store(s.load_f16(&halves(x)), out);
    }
}

/// A row and what goes with it on a page.
#[derive(Debug, Clone, Copy, Default)]
struct Pair<'a> {
    x: &'a [f32],
    scale: &'a [f32],
    weight: &'a [f32],
}

/// Quantizes pairs, four at a time, that what goes across lanes is done for four at once.
#[inline(always)]
fn quantize_pairs<P: PlaneOps, const N: usize, const WEIGHTED: bool>(
    p: P,
    pairs: &[Pair<'_>],
    codes: &mut [i8],
    out: &mut [Quantized; PAIRS],
) {
    let len = codes.len() / PAIRS;
    let (fours, rest) = pairs.as_chunks::<4>();
    for (i, pairs) in fours.iter().enumerate() {
        let done = quantize::<P, 4, N, WEIGHTED>(p, *pairs, &mut codes[i * 4 * len..][..4 * len]);
        out[4 * i..][..4].copy_from_slice(&done);
    }
    for (i, pair) in rest.iter().enumerate() {
        let i = 4 * fours.len() + i;
        [out[i]] = quantize::<P, 1, N, WEIGHTED>(p, [*pair], &mut codes[i * len..][..len]);
    }
}

/// `x[i] * scale[i]` of each row in integers: one part of `codes` for 127 steps, two (high, low) for 16256. The rule of
/// activation blocks, over the whole row: an infinite product gives NaN and zeros, one below 2^-100 zeros. And the sums
/// of `x[i] * weight[i]`, or of `x[i]` if not `WEIGHTED`, by lanes and the tree.
#[inline(always)]
fn quantize<P: PlaneOps, const R: usize, const N: usize, const WEIGHTED: bool>(
    p: P,
    pairs: [Pair<'_>; R],
    codes: &mut [i8],
) -> [Quantized; R] {
    let lines = codes.len() / (R * N * LANES);
    let of = |x| lines_of(x, lines);
    let zero = p.splat(0.0);
    let (mut max, mut sides) = ([zero; R], [zero; R]);
    for (r, pair) in pairs.iter().enumerate() {
        let (x, scale) = (of(pair.x), of(pair.scale));
        let weight = if WEIGHTED { of(pair.weight) } else { scale };
        for i in 0..lines {
            let x = p.load(&x[i]);
            max[r] = p.max(p.abs(p.mul(x, p.load(&scale[i]))), max[r]);
            sides[r] = p.add(sides[r], if WEIGHTED { p.mul(x, p.load(&weight[i])) } else { x });
        }
    }
    let (max, sides) = (p.largest(four(max, zero)), trees(p, four(sides, zero)));
    let range = if N == 2 { FINE } else { COARSE };
    let (mut inverse, mut steps) = ([0f32; 4], [0f32; 4]);
    for r in 0..4 {
        let fits = max[r] >= TINY && max[r] < f32::INFINITY;
        // with a step of NaN it does not matter what the codes are
        inverse[r] = if fits { range / max[r] } else { 0.0 };
        let other = if max[r] < TINY { 0.0 } else { f32::NAN };
        steps[r] = if fits { max[r] / range } else { other };
    }
    let mut sums = [zero; R];
    for (r, codes) in codes.chunks_exact_mut(N * lines * LANES).enumerate() {
        let inverse = p.splat(inverse[r]);
        let (high, low) = codes.split_at_mut(lines * LANES);
        let (x, scale) = (of(pairs[r].x), of(pairs[r].scale));
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
    let mut out = [Quantized::default(); R];
    for r in 0..R {
        out[r] = Quantized { step: steps[r], sum: sums[r] as i32, side: sides[r] };
    }
    out
}

/// The integers nearest to `(x * scale) * inverse`.
#[inline(always)]
fn nearest<P: PlaneOps>(p: P, x: &[f32; LANES], scale: &[f32; LANES], inverse: P::V) -> P::Ints {
    p.round(p.mul(p.mul(p.load(x), p.load(scale)), inverse))
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

/// Sums of `2 code - top` times the integers, from sums of `code` times their parts and `-top` times the integers: exact.
#[inline(always)]
fn exact<P: PlaneOps, const N: usize>(p: P, sums: &[[i32; LANES]], offset: i32) -> P::V {
    let mut sum = p.load_ints(&sums[0]);
    if N == 2 {
        sum = p.shift_add::<7>(sum, p.load_ints(&sums[1]));
    }
    p.float(p.shift_add::<1>(sum, p.splat_int(offset)))
}

/// Some lines of numbers.
#[inline(always)]
fn lines_of(x: &[f32], lines: usize) -> &[[f32; LANES]] {
    &x.as_chunks::<LANES>().0[..lines]
}
