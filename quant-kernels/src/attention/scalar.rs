//! The specification of a span, row by row.

use super::coded::{CodedScratch, Rows};
use super::{AttentionTask, KeyPage, PAGE, SPAN, ValuePage};
use crate::Isa;
use crate::exp::exp;
use crate::types::f32::{dot_lanes, tree};
use std::ops::Range;

/// Maximum, sum, weighted values and sums of coded values of every row.
pub(super) fn span(
    task: &AttentionTask<'_>,
    span: usize,
    scores: &mut Vec<f32>,
    scratch: &mut CodedScratch,
    partial: &mut [f32],
) {
    scores.resize(SPAN, 0.0);
    for (row, part) in partial.chunks_exact_mut(task.row_len()).enumerate() {
        let rows = Rows { isa: Isa::Scalar, task, rows: row..row + 1, span };
        rows.clear(scratch);
        let visible = task.visible_in(row, span);
        if visible.is_empty() {
            part.fill(0.0);
            part[0] = f32::NEG_INFINITY;
            continue;
        }
        let pages = visible.start / PAGE..visible.end.div_ceil(PAGE);
        for page in pages.clone() {
            let q = task.query(task.variants.at(page), row);
            match task.k[page] {
                KeyPage::Coded { codec, .. } => {
                    rows.score(codec, page..page + 1, scratch, scores);
                    for score in &mut scores[page * PAGE % SPAN..][..PAGE] {
                        *score *= task.scale;
                    }
                }
                KeyPage::F16(x) => dots(task, page, q, &visible, |i| x[i].to_f32(), scores),
                KeyPage::F32(x) => dots(task, page, q, &visible, |i| x[i], scores),
            }
        }
        let seen = visible.start - span * SPAN..visible.end - span * SPAN;
        let max = scores[seen.clone()].iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut lanes = [0f32; 16];
        for p in seen {
            scores[p] = exp(scores[p] - max);
            lanes[p % 16] += scores[p];
        }
        part.fill(0.0);
        (part[0], part[1]) = (max, tree(lanes));
        let values = &mut part[2..][..task.dv];
        for page in pages {
            match task.v[page] {
                ValuePage::Coded { codec, .. } => {
                    rows.accumulate(codec, page..page + 1, scores, scratch);
                }
                ValuePage::F16(x) => add(task, page, &visible, scores, |i| x[i].to_f32(), values),
                ValuePage::F32(x) => add(task, page, &visible, scores, |i| x[i], values),
            }
        }
        rows.store(scratch, part, 2 + task.dv);
    }
}

/// The visible positions of a page.
fn within(visible: &Range<usize>, page: usize) -> Range<usize> {
    visible.start.max(page * PAGE)..visible.end.min((page + 1) * PAGE)
}

fn dots(
    task: &AttentionTask<'_>,
    page: usize,
    q: &[f32],
    visible: &Range<usize>,
    key: impl Fn(usize) -> f32,
    scores: &mut [f32],
) {
    for p in within(visible, page) {
        scores[p % SPAN] = dot_lanes(task.dk, |i| key(p % PAGE * task.dk + i), q) * task.scale;
    }
}

fn add(
    task: &AttentionTask<'_>,
    page: usize,
    visible: &Range<usize>,
    weights: &[f32],
    value: impl Fn(usize) -> f32,
    values: &mut [f32],
) {
    for p in within(visible, page) {
        for (i, out) in values.iter_mut().enumerate() {
            *out = weights[p % SPAN].mul_add(value(p % PAGE * task.dv + i), *out);
        }
    }
}
