//! A span in tiles of rows: the specification's bits at the speed of the tier.
//!
//! All rows of a tile (heads of a group, neighbouring tokens) share one pass over the span's keys and one over its
//! values. Few rows read half-precision pages directly; more rows let a page be widened once into a panel.

use super::coded::{CodedScratch, Rows};
use super::plain::{Direct, F32, Plain, SCORE_LINES, Scores, Values, direct, widen, widen_page};
use super::{AttentionTask, KeyPage, PAGE, SPAN, ValuePage};
use crate::Isa;
use crate::lines::Lines;
use crate::simd::{Kernel, LANES, Simd};
use crate::softmax::exp_minus_sum;
use std::ops::Range;

/// Rows of a tile: their scores over a span stay within half a megabyte.
const TILE_ROWS: usize = 64;
/// Lines of scores of a page.
const LINES: usize = PAGE / LANES;

/// Buffers of a tile.
#[derive(Debug, Default, Clone)]
pub(super) struct TileScratch {
    /// `[row][dk]`, padded.
    q: Lines,
    /// `[row][SPAN]`.
    scores: Lines,
    /// `[row][dv]`, padded.
    out: Lines,
    /// A page in f32, `[position][dk or dv]`, padded.
    panel: Lines,
    pub coded: CodedScratch,
}

/// All rows of one span.
pub(super) struct SpanKernel<'t, 'a> {
    pub(super) isa: Isa,
    pub(super) task: &'t AttentionTask<'a>,
    pub(super) span: usize,
    pub(super) scratch: &'t mut TileScratch,
    pub(super) partial: &'t mut [f32],
}

impl Kernel for SpanKernel<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { isa, task, span, scratch, partial } = self;
        let width = task.row_len();
        for (i, partial) in partial.chunks_mut(TILE_ROWS * width).enumerate() {
            let first = i * TILE_ROWS;
            let rows = first..first + partial.len() / width;
            tile(s, &Rows { isa, task, rows, span }, scratch, partial);
        }
    }
}

#[inline(always)]
fn tile<S: Simd>(s: S, tile: &Rows<'_, '_>, scratch: &mut TileScratch, partial: &mut [f32]) {
    let &Rows { task, ref rows, span, .. } = tile;
    let count = rows.len();
    let (k_lines, v_lines) = (task.dk.div_ceil(LANES), task.dv.div_ceil(LANES));
    // windows move forward with the token: the first row sees the first position, the last row the last
    let seen = task.visible_in(rows.start, span).start..task.visible_in(rows.end - 1, span).end;
    let set_lines = count * k_lines;
    let q = scratch.q.take((1 + task.variants.queries.len()) * set_lines);
    for (set, q) in q.chunks_exact_mut(set_lines.max(1)).enumerate() {
        for (i, row) in rows.clone().enumerate() {
            widen(s, &F32(task.query(set, row)), &mut q[i * k_lines..][..k_lines]);
        }
    }
    tile.clear(&mut scratch.coded);
    let scores = scratch.scores.take(count * SCORE_LINES);
    let out = scratch.out.take(count * v_lines);
    out.fill([0.0; LANES]);
    let pages = if seen.is_empty() { 0..0 } else { seen.start / PAGE..(seen.end - 1) / PAGE + 1 };

    let mut page = pages.start;
    while page < pages.end {
        let keys = match task.k[page] {
            KeyPage::F16(x) => Plain::F16(x),
            KeyPage::F32(x) => Plain::F32(x),
            KeyPage::Coded { codec, .. } => {
                let scores = scores.as_flattened_mut();
                page = tile.score(codec, page..pages.end, &mut scratch.coded, scores);
                continue;
            }
        };
        let positions = within(&seen, page);
        let at = page % super::SPAN_PAGES * (PAGE / LANES);
        let q = &q[task.variants.at(page) * set_lines..][..set_lines];
        let plain = Scores { scores: &mut *scores, at, scale: task.scale };
        match direct(keys, task.dk, count) {
            Direct::F16(keys) => plain.fill(s, keys, q, k_lines, positions),
            Direct::F32(keys) => plain.fill(s, keys, q, k_lines, positions),
            Direct::No => {
                let panel = scratch.panel.take(PAGE * k_lines);
                widen_page(s, keys, task.dk, positions.clone(), panel);
                plain.fill(s, &*panel, q, k_lines, positions);
            }
        }
        page += 1;
    }

    let width = task.row_len();
    for (i, row) in rows.clone().enumerate() {
        let visible = task.visible_in(row, span);
        let scores = &mut scores[i * SCORE_LINES..][..SCORE_LINES];
        let part = &mut partial[i * width..][..2];
        (part[0], part[1]) = if visible.is_empty() {
            (f32::NEG_INFINITY, 0.0)
        } else {
            weigh(s, task, span, &visible, scores)
        };
    }

    let mut page = pages.start;
    while page < pages.end {
        let plain = match task.v[page] {
            ValuePage::F16(x) => Plain::F16(x),
            ValuePage::F32(x) => Plain::F32(x),
            ValuePage::Coded { codec, .. } => {
                let weights = scores.as_flattened_mut();
                page = tile.accumulate(codec, page..pages.end, weights, &mut scratch.coded);
                continue;
            }
        };
        let values = Values { task, rows: rows.clone(), span, page, weights: scores.as_flattened(), v_lines };
        match direct(plain, task.dv, count) {
            Direct::F16(page) => values.add(s, page, out),
            Direct::F32(page) => values.add(s, page, out),
            Direct::No => {
                let panel = scratch.panel.take(PAGE * v_lines);
                widen_page(s, plain, task.dv, within(&seen, page), panel);
                values.add(s, &*panel, out);
            }
        }
        page += 1;
    }

    for (part, out) in partial.chunks_exact_mut(width).zip(out.chunks_exact(v_lines.max(1))) {
        part[2..][..task.dv].copy_from_slice(&out.as_flattened()[..task.dv]);
    }
    tile.store(&scratch.coded, partial, 2 + task.dv);
}

/// The part of `seen` in a page, counted from the page's start.
#[inline(always)]
pub(super) fn within(seen: &Range<usize>, page: usize) -> Range<usize> {
    let start = page * PAGE;
    seen.start.clamp(start, start + PAGE) - start..seen.end.clamp(start, start + PAGE) - start
}

/// Scales those of a row's visible scores that are with coded keys, as the others are already, and turns all into weights;
/// returns their maximum and sum.
#[inline(always)]
fn weigh<S: Simd>(
    s: S,
    task: &AttentionTask<'_>,
    span: usize,
    visible: &Range<usize>,
    scores: &mut [[f32; LANES]],
) -> (f32, f32) {
    let scale = s.splat(task.scale);
    let mut most = s.splat(f32::NEG_INFINITY);
    for page in visible.start / PAGE..visible.end.div_ceil(PAGE) {
        let lines = &mut scores[page % super::SPAN_PAGES * LINES..][..LINES];
        let coded = matches!(task.k[page], KeyPage::Coded { .. });
        let seen = within(visible, page);
        let all = seen == (0..PAGE);
        for line in &mut *lines {
            let mut score = s.load(line);
            if coded {
                score = s.mul(score, scale);
                s.store(score, line);
            }
            most = if all { s.max(score, most) } else { most };
        }
        if all {
            continue;
        }
        // invisible neighbours: no maximum, and a weight of +0.0, which changes no sum
        let flat = lines.as_flattened_mut();
        flat[..seen.start].fill(f32::NEG_INFINITY);
        flat[seen.end..].fill(f32::NEG_INFINITY);
        for line in lines {
            most = s.max(s.load(line), most);
        }
    }
    let max = s.lanes(most).into_iter().fold(f32::NEG_INFINITY, f32::max);
    let lines = visible.start - span * SPAN..visible.end - span * SPAN;
    (max, exp_minus_sum(s, &mut scores[lines.start / LANES..lines.end.div_ceil(LANES)], max))
}
