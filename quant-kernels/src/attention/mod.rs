//! Attention over pages of keys and values.
//!
//! For one query head of one token, with `p` the absolute positions it sees:
//!
//! 1. Positions are cut into spans of [`SPAN`] at multiples of it. A span in which nothing is visible is left out.
//! 2. `score[p] = dot(q, k[p]) * scale`; the dot by lanes (index mod 16, fused multiply-add), then the tree. Of a coded
//!    page the dot is what its codec's `score` makes of the prepared query.
//! 3. In a span: `m` the exact maximum, `w[p] = exp(score[p] - m)`, `l` the sum of `w` by lanes (position mod 16),
//!    then the tree, and `o[c]` from +0.0 by `fma(w[p], v[p][c], o[c])` over ascending positions of the pages that are
//!    not coded. Coded pages add to the sums of their codec's domain (one for each [`Space`](crate::codecs::Space),
//!    [`ValueDomains`]), from +0.0, page after page in ascending order; a position of the page that the token does not
//!    see has a weight of exactly 0, and a page of which it sees nothing is left out.
//! 4. Spans merge in ascending order into a state that starts at (-inf, 0, 0), the first one too:
//!    `m' = max(m, m_s)`, `a = exp(m - m')`, `b = exp(m_s - m')`, `l' = l a + l_s b`, `o' = o a + o_s b`
//!    (multiply, then add); the sums of the domains like `o`.
//! 5. The output is `o / l` by division. If the token saw coded pages, what the codecs' `finish` makes of the sums is
//!    added to `o` first, one domain after the other in the order of their spaces.
//!
//! So the bits depend neither on how many tokens or heads a task holds nor on who computes which span, and not on
//! which codecs other pages might have had. A query is prepared once for all coded pages of a space in a span.

mod coded;
mod merge;
mod page;
mod plain;
mod scalar;
mod tile;

pub use page::{KeyPage, Page, QueryVariants, ValueDomains, ValuePage};

use crate::Isa;
use crate::simd;
use std::ops::Range;

/// Positions in a page.
pub const PAGE: usize = 128;
/// Pages in a span: the unit of work splitting.
pub const SPAN_PAGES: usize = 16;
/// Positions in a span.
pub const SPAN: usize = PAGE * SPAN_PAGES;

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
    pub k: &'a [KeyPage<'a>],
    /// Values of the same pages.
    pub v: &'a [ValuePage<'a>],
    /// The domains of all coded values, at least of those that a token sees.
    pub domains: &'a ValueDomains,
    /// Other queries for some pages.
    pub variants: QueryVariants<'a>,
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

    /// Values that [`attend_span`] writes: for each row maximum, sum, `dv` weighted values and the sums of the domains.
    pub fn partial_len(&self) -> usize {
        self.rows() * self.row_len()
    }

    /// Values of a row's result in a span.
    fn row_len(&self) -> usize {
        2 + self.dv + self.domains.len()
    }

    /// Query heads times tokens; row `t * group + g`.
    fn rows(&self) -> usize {
        self.tokens * self.group
    }

    /// The query of a row: the task's own (0) or that of a variant.
    fn query(&self, variant: usize, row: usize) -> &[f32] {
        let (token, head) = (row / self.group, row % self.group);
        let q = variant.checked_sub(1).map_or(self.q, |i| self.variants.queries[i]);
        &q[token * self.q_stride + self.q_offset + head * self.dk..][..self.dk]
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

    /// Panics unless every position of these spans that a token sees has its key and value.
    fn check(&self, spans: Range<usize>) {
        if self.rows() == 0 {
            return;
        }
        let queries = (self.tokens - 1) * self.q_stride + self.q_offset + self.group * self.dk;
        for q in self.variants.queries.iter().chain([&self.q]) {
            assert!(q.len() >= queries, "attention: {queries} query values needed, got {}", q.len());
        }
        let end = self.first_position + self.tokens;
        let pages = end.div_ceil(PAGE);
        assert!(
            self.k.len() >= pages && self.v.len() >= pages,
            "attention: {pages} pages needed, got {} of keys and {} of values",
            self.k.len(),
            self.v.len()
        );
        let first = (self.visible(0).start / PAGE).max(spans.start * SPAN_PAGES);
        for page in first..pages.min(spans.end * SPAN_PAGES) {
            let rows = PAGE.min(end - page * PAGE);
            assert!(
                self.k[page].holds(rows, self.dk) && self.v[page].holds(rows, self.dv),
                "attention: page {page} lacks some of its {rows} positions, or is of other sizes"
            );
            assert!(self.variants.at(page) <= self.variants.queries.len(), "attention: no such queries");
            let space = self.v[page].space();
            assert!(
                space.is_none_or(|space| self.domains.of(space).is_some()),
                "attention: the codec of page {page} has no domain"
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
/// If `out` is not [`AttentionTask::out_len`] long, or pages that some token sees are missing, too short, coded for
/// another size, or in none of the task's domains.
pub fn attend(isa: Isa, task: &AttentionTask<'_>, scratch: &mut AttentionScratch, out: &mut [f32]) {
    task.check(task.spans());
    assert!(out.len() == task.out_len(), "attention: {} outputs needed, got {}", task.out_len(), out.len());
    let (mut partial, mut merged) =
        (std::mem::take(&mut scratch.partial), std::mem::take(&mut scratch.merged));
    partial.resize(task.partial_len(), 0.0);
    merge::start(task, &mut merged);
    for span in task.spans() {
        rows_of_span(isa, task, span, scratch, &mut partial);
        merge::merge(isa, task, &partial, &mut merged);
    }
    merge::finish(isa, task, &merged, &mut scratch.tile.coded.codec, &mut partial, out);
    scratch.partial = partial;
    scratch.merged = merged;
}

/// One span of a task, for [`merge_spans`]: how the work of few tokens at a long context is split over threads.
///
/// # Panics
/// As [`attend`], for the pages of the span; if `partial` is not [`AttentionTask::partial_len`] long.
pub fn attend_span(
    isa: Isa,
    task: &AttentionTask<'_>,
    span: usize,
    scratch: &mut AttentionScratch,
    partial: &mut [f32],
) {
    task.check(span..span + 1);
    assert!(partial.len() == task.partial_len(), "attention: {} partial values needed", task.partial_len());
    rows_of_span(isa, task, span, scratch, partial);
}

/// Merges what [`attend_span`] wrote for all of [`AttentionTask::spans`], one after the other in `partials`, into
/// `out[token][group][dv]`: the bits of [`attend`].
///
/// # Panics
/// If a length is wrong.
pub fn merge_spans(
    isa: Isa,
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
    merge::start(task, &mut scratch.merged);
    for partial in partials.chunks_exact(len) {
        merge::merge(isa, task, partial, &mut scratch.merged);
    }
    let AttentionScratch { tile, partial, merged, .. } = scratch;
    merge::finish(isa, task, merged, &mut tile.coded.codec, partial, out);
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
        scalar::span(task, span, &mut scratch.scores, &mut scratch.tile.coded, partial);
    } else {
        simd::dispatch(isa, tile::SpanKernel { isa, task, span, scratch: &mut scratch.tile, partial });
    }
}
