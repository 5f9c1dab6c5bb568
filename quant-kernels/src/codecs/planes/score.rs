//! Scores and weighted sums of plane pages: quantize the query or the weights, sum in integers, scale once per output.

use super::dots::{Ahead, Dots, Fold, Memory, Quantized};
use super::ops::{PlaneKernel, PlaneOps, dispatch};
use super::quantize::{PAIRS, PASS_PAGES, Pairs, widen};
use super::{PAGE, PageView, PlaneScratch, Planes, halves, planes_at};
use crate::Isa;
use crate::codecs::take;
use crate::simd::LANES;

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
    fn ahead(&self, at: usize, pass: usize, next: &[Option<Memory>; PASS_PAGES]) -> Ahead {
        let part = |at: usize, part: usize| {
            let memory = match self.pages.get(at) {
                Some(page) => Memory::from(*page),
                None => (*next.get(at - self.pages.len())?)?,
            };
            Some(memory.split(planes_at(self.planes.dim))[part])
        };
        Ahead { scales: part(at + pass, 0), planes: part(at + 1, 1) }
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

/// Whether the scales of pages are read as they lie, or made floats first for rows to share.
#[inline(always)]
fn as_they_lie<P: PlaneOps>(rows: usize) -> bool {
    P::WIDE && rows == 1
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
        let lines = dim / LANES;
        for (i, pages) in run.pages.chunks(pass).enumerate() {
            let (mut halves, mut floats) = ([[&[][..]; 2]; PASS_PAGES], [[&[][..]; 2]; PASS_PAGES]);
            for (k, (page, numbers)) in pages.iter().zip(numbers.chunks_exact_mut(2 * dim)).enumerate() {
                let view = run.planes.view(page);
                if as_they_lie::<P>(rows) {
                    halves[k] = [view.channel, view.centre];
                } else {
                    let (channel, centre) = numbers.split_at_mut(dim);
                    widen(p, view.channel, channel);
                    widen(p, view.centre, centre);
                    floats[k] = [channel.as_chunks().0, centre.as_chunks().0];
                }
            }
            for first in (0..rows).step_by(PAIRS) {
                let count = PAIRS.min(rows - first);
                let x = &queries[first * dim..];
                let mut quantized = [Quantized::default(); PAIRS];
                if as_they_lie::<P>(rows) {
                    let pairs = Pairs { x, rows: 1, strides: [0, 0], lines, scales: halves };
                    pairs.quantize::<P, N, true>(p, pages.len(), ints, &mut quantized);
                } else {
                    let pairs = Pairs { x, rows: count, strides: [dim, 0], lines, scales: floats };
                    pairs.quantize::<P, N, true>(p, count * pages.len(), ints, &mut quantized);
                }
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
        let lines = PAGE / LANES;
        for (i, pages) in run.pages.chunks(pass).enumerate() {
            let (mut halves, mut floats) = ([[&[][..]; 2]; PASS_PAGES], [[&[][..]; 2]; PASS_PAGES]);
            for (k, (page, token)) in pages.iter().zip(numbers.chunks_exact_mut(PAGE)).enumerate() {
                let view = run.planes.view(page);
                if as_they_lie::<P>(rows) {
                    halves[k] = [view.token; 2];
                } else {
                    widen(p, view.token, token);
                    floats[k] = [token.as_chunks().0; 2];
                }
            }
            for first in (0..rows).step_by(PAIRS) {
                let count = PAIRS.min(rows - first);
                let x = &weights[first * run.stride + i * pass * PAGE..];
                let mut quantized = [Quantized::default(); PAIRS];
                if as_they_lie::<P>(rows) {
                    let pairs = Pairs { x, rows: 1, strides: [0, PAGE], lines, scales: halves };
                    pairs.quantize::<P, 2, false>(p, pages.len(), ints, &mut quantized);
                } else {
                    let strides = [run.stride, PAGE];
                    let pairs = Pairs { x, rows: count, strides, lines, scales: floats };
                    pairs.quantize::<P, 2, false>(p, count * pages.len(), ints, &mut quantized);
                }
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

/// Sums of `2 code - top` times the integers, from sums of `code` times their parts and `-top` times the integers: exact.
#[inline(always)]
fn exact<P: PlaneOps, const N: usize>(p: P, sums: &[[i32; LANES]], offset: i32) -> P::V {
    let mut sum = p.load_ints(&sums[0]);
    if N == 2 {
        sum = p.shift_add::<7>(sum, p.load_ints(&sums[1]));
    }
    p.float(p.shift_add::<1>(sum, p.splat_int(offset)))
}
