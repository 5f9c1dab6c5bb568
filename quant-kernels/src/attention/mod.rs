//! Attention over pages of keys and values.
//!
//! For one query head of one token, with `p` the absolute positions it sees:
//!
//! 1. Positions are cut into spans of [`SPAN`] at multiples of it. A span in which nothing is visible is left out.
//! 2. `score[p] = dot(q, k[p]) * scale`; the dot by lanes (index mod 16, fused multiply-add), then the tree.
//! 3. In a span: `m` the exact maximum, `w[p] = exp(score[p] - m)`, `l` the sum of `w` by lanes (position mod 16),
//!    then the tree, and `o[c]` from +0.0 by `fma(w[p], v[p][c], o[c])` over ascending positions.
//! 4. Spans merge in ascending order into a state that starts at (-inf, 0, 0), the first one too:
//!    `m' = max(m, m_s)`, `a = exp(m - m')`, `b = exp(m_s - m')`, `l' = l a + l_s b`, `o' = o a + o_s b`
//!    (multiply, then add).
//! 5. The output is `o / l` by division.
//!
//! So the bits depend neither on how many tokens or heads a task holds nor on who computes which span.

mod scalar;
mod tile;

use crate::Isa;
use crate::exp::exp;
use crate::simd;
use half::f16;
use std::ops::Range;

/// Positions in a page.
pub const PAGE: usize = 128;
/// Pages in a span: the unit of work splitting.
pub const SPAN_PAGES: usize = 16;
/// Positions in a span.
pub const SPAN: usize = PAGE * SPAN_PAGES;

/// One KV head's keys or values of one page, `[PAGE][dim]`. The last page may be shorter.
#[derive(Debug, Clone, Copy)]
pub enum KvPage<'a> {
    /// The default.
    F16(&'a [f16]),
    /// The reference.
    F32(&'a [f32]),
}

impl KvPage<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F16(x) => x.len(),
            Self::F32(x) => x.len(),
        }
    }
}

/// Queries of consecutive tokens of one sequence on one KV head.
#[derive(Debug)]
pub struct AttentionTask<'a> {
    /// `[token][q_stride]`; the group's heads lie side by side from `q_offset` on, `dk` values each.
    pub q: &'a [f32],
    /// Values between tokens in `q`.
    pub q_stride: usize,
    /// First value of the group's first head.
    pub q_offset: usize,
    /// Query heads that share this KV head.
    pub group: usize,
    /// Key size.
    pub dk: usize,
    /// Value size.
    pub dv: usize,
    /// Query tokens.
    pub tokens: usize,
    /// Position of the first query token; token `t` sees positions `..=first_position + t`.
    pub first_position: usize,
    /// Sliding window: position k is visible from p if `p - k < window`.
    pub window: Option<usize>,
    /// Keys of pages 0, 1, ... Pages that no token sees are not read: they may be empty.
    pub k: &'a [KvPage<'a>],
    /// Values of the same pages.
    pub v: &'a [KvPage<'a>],
    /// Multiplies every score.
    pub scale: f32,
}

impl AttentionTask<'_> {
    /// Values of the output, `[token][group][dv]`.
    pub fn out_len(&self) -> usize {
        self.rows() * self.dv
    }

    /// The spans in which some token of the task sees a position.
    pub fn spans(&self) -> Range<usize> {
        if self.tokens == 0 {
            return 0..0;
        }
        let seen = self.visible(0).start..self.first_position + self.tokens;
        if seen.is_empty() { 0..0 } else { seen.start / SPAN..(seen.end - 1) / SPAN + 1 }
    }

    /// Values that [`attend_span`] writes: for each row maximum, sum and `dv` weighted values.
    pub fn partial_len(&self) -> usize {
        self.rows() * (self.dv + 2)
    }

    /// Query heads times tokens; row `t * group + g`.
    fn rows(&self) -> usize {
        self.tokens * self.group
    }

    /// The query of a row.
    fn query(&self, row: usize) -> &[f32] {
        let (token, head) = (row / self.group, row % self.group);
        &self.q[token * self.q_stride + self.q_offset + head * self.dk..][..self.dk]
    }

    /// The positions that a row sees.
    fn visible(&self, row: usize) -> Range<usize> {
        let end = self.first_position + row / self.group.max(1) + 1;
        self.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    /// The positions of a span that a row sees.
    fn visible_in(&self, row: usize, span: usize) -> Range<usize> {
        let visible = self.visible(row);
        let start = visible.start.max(span * SPAN);
        start..visible.end.min((span + 1) * SPAN).max(start)
    }

    /// Panics unless every position that a token sees has its key and value.
    fn check(&self) {
        if self.rows() == 0 {
            return;
        }
        let queries = (self.tokens - 1) * self.q_stride + self.q_offset + self.group * self.dk;
        assert!(self.q.len() >= queries, "attention: {queries} query values needed, got {}", self.q.len());
        let end = self.first_position + self.tokens;
        let pages = end.div_ceil(PAGE);
        assert!(
            self.k.len() >= pages && self.v.len() >= pages,
            "attention: {pages} pages needed, got {} of keys and {} of values",
            self.k.len(),
            self.v.len()
        );
        for page in self.visible(0).start / PAGE..pages {
            let rows = PAGE.min(end - page * PAGE);
            assert!(
                self.k[page].len() >= rows * self.dk && self.v[page].len() >= rows * self.dv,
                "attention: page {page} lacks some of its {rows} positions"
            );
        }
    }
}

/// Buffers of one worker, kept between calls.
#[derive(Debug, Default, Clone)]
pub struct AttentionScratch {
    scores: Vec<f32>,
    tile: tile::TileScratch,
    partial: Vec<f32>,
    merged: Vec<f32>,
}

/// Attends: `out[token][group][dv]`, densely packed. A row that sees nothing (a window of 0) is NaN.
///
/// # Panics
/// If `out` is not [`AttentionTask::out_len`] long, or pages that some token sees are missing or too short.
pub fn attend(isa: Isa, task: &AttentionTask<'_>, scratch: &mut AttentionScratch, out: &mut [f32]) {
    task.check();
    assert!(out.len() == task.out_len(), "attention: {} outputs needed, got {}", task.out_len(), out.len());
    let (mut partial, mut merged) =
        (std::mem::take(&mut scratch.partial), std::mem::take(&mut scratch.merged));
    partial.resize(task.partial_len(), 0.0);
    start(task, &mut merged);
    for span in task.spans() {
        rows_of_span(isa, task, span, scratch, &mut partial);
        merge(task, &partial, &mut merged);
    }
    finish(task, &merged, out);
    scratch.partial = partial;
    scratch.merged = merged;
}

/// One span of a task, for [`merge_spans`]: how the work of few tokens at a long context is split over threads.
///
/// # Panics
/// If `partial` is not [`AttentionTask::partial_len`] long, or pages that some token sees are missing or too short.
pub fn attend_span(
    isa: Isa,
    task: &AttentionTask<'_>,
    span: usize,
    scratch: &mut AttentionScratch,
    partial: &mut [f32],
) {
    task.check();
    assert!(partial.len() == task.partial_len(), "attention: {} partial values needed", task.partial_len());
    rows_of_span(isa, task, span, scratch, partial);
}

/// Merges what [`attend_span`] wrote for all of [`AttentionTask::spans`], one after the other in `partials`, into
/// `out[token][group][dv]`: the bits of [`attend`].
///
/// # Panics
/// If a length is wrong.
pub fn merge_spans(
    task: &AttentionTask<'_>,
    partials: &[f32],
    scratch: &mut AttentionScratch,
    out: &mut [f32],
) {
    let len = task.partial_len();
    assert!(
        partials.len() == len * task.spans().len(),
        "attention: the partial results of all spans are needed"
    );
    assert!(out.len() == task.out_len(), "attention: {} outputs needed, got {}", task.out_len(), out.len());
    if len == 0 {
        return;
    }
    start(task, &mut scratch.merged);
    for partial in partials.chunks_exact(len) {
        merge(task, partial, &mut scratch.merged);
    }
    finish(task, &scratch.merged, out);
}

/// The state before the first span: `[row](maximum, sum, values)`.
fn start(task: &AttentionTask<'_>, merged: &mut Vec<f32>) {
    merged.clear();
    merged.resize(task.partial_len(), 0.0);
    for state in merged.chunks_exact_mut(task.dv + 2) {
        state[0] = f32::NEG_INFINITY;
    }
}

fn merge(task: &AttentionTask<'_>, partial: &[f32], merged: &mut [f32]) {
    let width = task.dv + 2;
    for (state, part) in merged.chunks_exact_mut(width).zip(partial.chunks_exact(width)) {
        let (part_max, part_sum) = (part[0], part[1]);
        if part_max == f32::NEG_INFINITY && part_sum == 0.0 {
            continue; // nothing visible
        }
        let max = state[0].max(part_max);
        let (a, b) = (exp(state[0] - max), exp(part_max - max));
        state[0] = max;
        for (state, part) in state[1..].iter_mut().zip(&part[1..]) {
            *state = *state * a + *part * b;
        }
    }
}

fn finish(task: &AttentionTask<'_>, merged: &[f32], out: &mut [f32]) {
    if task.dv == 0 {
        return;
    }
    for (state, out) in merged.chunks_exact(task.dv + 2).zip(out.chunks_exact_mut(task.dv)) {
        for (out, value) in out.iter_mut().zip(&state[2..]) {
            *out = value / state[1];
        }
    }
}

/// All rows of one span.
fn rows_of_span(
    isa: Isa,
    task: &AttentionTask<'_>,
    span: usize,
    scratch: &mut AttentionScratch,
    partial: &mut [f32],
) {
    if isa == Isa::Scalar {
        scalar::span(task, span, &mut scratch.scores, partial);
    } else {
        simd::dispatch(isa, tile::SpanKernel { task, span, scratch: &mut scratch.tile, partial });
    }
}
