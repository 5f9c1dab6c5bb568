//! Coded pages in a tile of rows: prepared queries, scores and sums.

use super::{AttentionTask, PAGE, SPAN, SPAN_PAGES};
use crate::Isa;
use crate::codecs::{CodecScratch, KeyCodec, Space, ValueCodec, take};
use std::ops::Range;

/// Buffers of a tile's coded pages.
#[derive(Debug, Default, Clone)]
pub(super) struct CodedScratch {
    /// Prepared queries of each set in [`CodedScratch::sets`], `[row][query_len]`.
    queries: Vec<f32>,
    sets: Vec<PreparedSet>,
    /// `[domain][row][sum_len]`.
    sums: Vec<f32>,
    pub codec: CodecScratch,
}

/// The tile's queries, prepared once for all codecs of a space.
#[derive(Debug, Clone, Copy)]
struct PreparedSet {
    variant: usize,
    space: Space,
    at: usize,
    len: usize,
}

/// Some rows of a task.
#[derive(Debug, Clone)]
pub(super) struct Rows<'t, 'a> {
    pub isa: Isa,
    pub task: &'t AttentionTask<'a>,
    pub rows: Range<usize>,
    pub span: usize,
}

impl Rows<'_, '_> {
    /// Where a page begins in the positions of a span.
    fn at(page: usize) -> usize {
        page % SPAN_PAGES * PAGE
    }

    /// Scores of all rows with all positions of a page: `scores` is `[row][SPAN]`.
    pub fn score(
        &self,
        codec: &dyn KeyCodec,
        bytes: &[u8],
        page: usize,
        scratch: &mut CodedScratch,
        scores: &mut [f32],
    ) {
        let set = self.prepare(codec, self.task.variants.at(page), scratch);
        let queries = &scratch.queries[set.at..][..self.rows.len() * set.len];
        codec.score(self.isa, bytes, queries, &mut scratch.codec, &mut scores[Self::at(page)..], SPAN);
        for row in scores.chunks_exact_mut(SPAN) {
            for score in &mut row[Self::at(page)..][..PAGE] {
                *score *= self.task.scale;
            }
        }
    }

    /// The queries for a codec, found or made.
    fn prepare(&self, codec: &dyn KeyCodec, variant: usize, scratch: &mut CodedScratch) -> PreparedSet {
        let space = codec.space();
        if let Some(set) = scratch.sets.iter().find(|set| set.space == space && set.variant == variant) {
            return *set;
        }
        let at = scratch.sets.last().map_or(0, |set| set.at + self.rows.len() * set.len);
        let set = PreparedSet { variant, space, at, len: codec.query_len() };
        let queries = &mut take(&mut scratch.queries, at + self.rows.len() * set.len)[at..];
        for (row, query) in self.rows.clone().zip(queries.chunks_exact_mut(set.len)) {
            codec.prepare(self.isa, self.task.query(variant, row), &mut scratch.codec, query);
        }
        scratch.sets.push(set);
        set
    }

    /// Zeros in place of all sums.
    pub fn clear(&self, scratch: &mut CodedScratch) {
        scratch.sets.clear();
        take(&mut scratch.sums, self.rows.len() * self.task.domains.len()).fill(0.0);
    }

    /// Adds a page's weighted values to the sums of the rows that see some of it: `weights` is `[row][SPAN]`.
    pub fn accumulate(
        &self,
        codec: &dyn ValueCodec,
        bytes: &[u8],
        page: usize,
        weights: &mut [f32],
        scratch: &mut CodedScratch,
    ) {
        let Some(domain) = self.task.domains.of(codec.space()) else { return };
        let (start, end) = (page * PAGE, (page + 1) * PAGE);
        let (mut first, mut last) = (self.rows.len(), 0);
        for (i, row) in self.rows.clone().enumerate() {
            let visible = self.task.visible_in(row, self.span);
            let visible = visible.start.clamp(start, end) - start..visible.end.clamp(start, end) - start;
            if !visible.is_empty() {
                (first, last) = (first.min(i), i + 1);
                let weights = &mut weights[i * SPAN + Self::at(page)..][..PAGE];
                weights[..visible.start].fill(0.0);
                weights[visible.end..].fill(0.0);
            }
        }
        if first < last {
            let at = self.rows.len() * domain.at;
            let sums = &mut scratch.sums[at + first * domain.len..at + last * domain.len];
            let weights = &weights[first * SPAN + Self::at(page)..];
            codec.accumulate(self.isa, bytes, weights, SPAN, &mut scratch.codec, sums);
        }
    }

    /// The sums of all domains to each row's part of the results, from `from` on.
    pub fn store(&self, scratch: &CodedScratch, partial: &mut [f32], from: usize) {
        for domain in self.task.domains.iter() {
            let sums = scratch.sums[self.rows.len() * domain.at..].chunks_exact(domain.len);
            for (part, sums) in partial.chunks_exact_mut(self.task.row_len()).zip(sums) {
                part[from + domain.at..][..domain.len].copy_from_slice(sums);
            }
        }
    }
}
