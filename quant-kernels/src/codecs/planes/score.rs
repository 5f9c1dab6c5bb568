//! Scores and weighted sums of plane pages: quantize the query or the weights, sum in integers, scale once per output.

use super::dots::{PlaneKernel, PlaneMatrix, PlaneOps, dispatch};
use super::{PAGE, PageView, PlaneScratch, Planes, halves};
use crate::Isa;
use crate::activations::TINY;
use crate::codecs::take;
use crate::simd::{LANES, Simd};
use crate::types::f32::tree;

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
    dispatch(isa, Score { planes, view, queries, scratch, scores, stride });
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

struct Score<'a> {
    planes: &'a Planes,
    view: PageView<'a>,
    queries: &'a [f32],
    scratch: &'a mut PlaneScratch,
    scores: &'a mut [f32],
    stride: usize,
}

impl PlaneKernel for Score<'_> {
    #[inline(always)]
    fn run<P: PlaneOps>(self, p: P) {
        let Self { planes, view, .. } = self;
        let matrix = PlaneMatrix { planes: view.planes, outs: PAGE, ins: planes.dim, bits: planes.kept };
        let parts = if planes.kept >= FINE_BITS { 2 } else { 1 };
        let ints = take(&mut self.scratch.ints, ROWS * parts * planes.dim);
        let isums = take(&mut self.scratch.sums, ROWS * parts * PAGE);
        let top = (1i32 << planes.kept) - 1;
        for (i, queries) in self.queries.chunks(ROWS * planes.dim).enumerate() {
            let mut rows = [Quantized::default(); ROWS];
            let mut bases = [0f32; ROWS];
            let count = queries.len() / planes.dim;
            for (r, query) in queries.chunks_exact(planes.dim).enumerate() {
                let codes = &mut ints[r * parts * planes.dim..][..parts * planes.dim];
                rows[r] = quantize(p, query, view.channel, codes);
                bases[r] = dot_halves(p, query, view.centre) * view.scale;
            }
            matrix.dots(p, &ints[..count * parts * planes.dim], &mut isums[..count * parts * PAGE]);
            for (r, (row, base)) in rows[..count].iter().zip(bases).enumerate() {
                let isums = isums[r * parts * PAGE..][..parts * PAGE].as_chunks::<LANES>().0;
                let out = &mut self.scores[(i * ROWS + r) * self.stride..][..PAGE];
                let (base, step) = (p.splat(base), p.splat(row.step * planes.widening() * view.scale));
                for (g, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                    let low = (parts == 2).then(|| &isums[PAGE / LANES + g]);
                    let sum = p.load(&exact(&isums[g], low, top.wrapping_mul(row.sum)));
                    let token = p.load_f16(&halves(&view.token[g]));
                    p.store(p.add(base, p.mul(p.mul(token, step), sum)), out);
                }
            }
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
        let Self { planes, view, .. } = self;
        let dim = planes.dim;
        let matrix = PlaneMatrix { planes: view.planes, outs: dim, ins: PAGE, bits: planes.kept };
        let ints = take(&mut self.scratch.ints, ROWS * 2 * PAGE);
        let isums = take(&mut self.scratch.sums, ROWS * 2 * dim);
        let top = (1i32 << planes.kept) - 1;
        for (i, sums) in self.sums.chunks_mut(ROWS * dim).enumerate() {
            let mut rows = [Quantized::default(); ROWS];
            let mut masses = [0f32; ROWS];
            let count = sums.len() / dim;
            for r in 0..count {
                let weights = &self.weights[(i * ROWS + r) * self.stride..][..PAGE];
                rows[r] = quantize(p, weights, view.token, &mut ints[r * 2 * PAGE..][..2 * PAGE]);
                masses[r] = crate::softmax::sum(p, weights) * view.scale;
            }
            matrix.dots(p, &ints[..count * 2 * PAGE], &mut isums[..count * 2 * dim]);
            for (r, sums) in sums.chunks_exact_mut(dim).enumerate() {
                let isums = isums[r * 2 * dim..][..2 * dim].as_chunks::<LANES>().0;
                let mass = p.splat(masses[r]);
                let step = p.splat(rows[r].step * planes.widening() * view.scale);
                let offset = top.wrapping_mul(rows[r].sum);
                for (g, sum) in sums.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                    let isum = p.load(&exact(&isums[g], Some(&isums[dim / LANES + g]), offset));
                    let centred = p.add(p.load(sum), p.mul(mass, p.load_f16(&halves(&view.centre[g]))));
                    let channel = p.load_f16(&halves(&view.channel[g]));
                    p.store(p.add(centred, p.mul(p.mul(step, channel), isum)), sum);
                }
            }
        }
    }
}

/// A row of integers and what they mean.
#[derive(Debug, Clone, Copy, Default)]
struct Quantized {
    /// Value of one step.
    step: f32,
    /// Sum of the integers.
    sum: i32,
}

/// `x[i] * scale[i]` in integers: one part of `codes` for 127 steps, two (high, low) for 16256. The rule of activation
/// blocks, over the whole row: an infinite product gives NaN and zeros, one below 2^-100 zeros.
#[inline(always)]
fn quantize<P: PlaneOps>(s: P, x: &[f32], scale: &[[u8; 32]], codes: &mut [i8]) -> Quantized {
    let x = x.as_chunks::<LANES>().0;
    let product = |i: usize| s.mul(s.load(&x[i]), s.load_f16(&halves(&scale[i])));
    let mut max = s.splat(0.0);
    for i in 0..x.len() {
        let v = product(i);
        max = s.max(v, max);
        max = s.max(s.mul(v, s.splat(-1.0)), max);
    }
    let max = largest(s.lanes(max));
    if !(TINY..f32::INFINITY).contains(&max) {
        codes.fill(0);
        return Quantized { step: if max < TINY { 0.0 } else { f32::NAN }, sum: 0 };
    }
    let fine = codes.len() > x.len() * LANES;
    let steps = if fine { FINE } else { COARSE };
    let inverse = s.splat(steps / max);
    let mut sums = s.round(s.splat(0.0));
    let (high, low) = codes.split_at_mut(x.len() * LANES);
    let (high, low) = (high.as_chunks_mut::<LANES>().0, low.as_chunks_mut::<LANES>().0);
    for i in 0..x.len() {
        let ints = s.round(s.mul(product(i), inverse));
        sums = s.add_ints(sums, ints);
        if fine {
            let parts = s.split(ints);
            s.narrow(parts[0], &mut high[i]);
            s.narrow(parts[1], &mut low[i]);
        } else {
            s.narrow(ints, &mut high[i]);
        }
    }
    Quantized { step: max / steps, sum: s.ints(sums).iter().fold(0, |a, b| a.wrapping_add(*b)) }
}

/// The largest of 16 numbers, none of them NaN.
#[inline(always)]
fn largest(mut lanes: [f32; LANES]) -> f32 {
    for step in [8, 4, 2, 1] {
        for i in 0..step {
            lanes[i] = if lanes[i + step] > lanes[i] { lanes[i + step] } else { lanes[i] };
        }
    }
    lanes[0]
}

/// Sums of `2 code - top` times the integers, from sums of `code` times them: exact.
#[inline(always)]
fn exact(high: &[i32; LANES], low: Option<&[i32; LANES]>, offset: i32) -> [f32; LANES] {
    match low {
        Some(low) => std::array::from_fn(|i| {
            let sum = high[i].wrapping_mul(128).wrapping_add(low[i]);
            sum.wrapping_mul(2).wrapping_sub(offset) as f32
        }),
        None => std::array::from_fn(|i| high[i].wrapping_mul(2).wrapping_sub(offset) as f32),
    }
}

/// A dot with halves by lanes and the tree.
#[inline(always)]
fn dot_halves<S: Simd>(s: S, x: &[f32], halves_of: &[[u8; 32]]) -> f32 {
    let mut sum = s.splat(0.0);
    for (x, y) in x.as_chunks::<LANES>().0.iter().zip(halves_of) {
        sum = s.add(sum, s.mul(s.load(x), s.load_f16(&halves(y))));
    }
    tree(s.lanes(sum))
}
