//! Coded pages in a tile of rows: prepared queries, scores and sums.

use super::{AttentionTask, KeyPage, PAGE, Page, SPAN, SPAN_PAGES, ValuePage};
use crate::Isa;
use crate::codecs::{Codec, CodecScratch, KeyCodec, Space, ValueCodec, take};
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

    /// Scores of all rows with all positions of the first of some pages, which is coded, and of those after it that are
    /// coded alike; not scaled yet: `scores` is `[row][SPAN]`. Returns the page after them.
    pub fn score(
        &self,
        codec: &dyn KeyCodec,
        pages: Range<usize>,
        scratch: &mut CodedScratch,
        scores: &mut [f32],
    ) -> usize {
        let first = pages.start;
        let variant = self.task.variants.at(first);
        let mut run = [&[][..]; SPAN_PAGES];
        let alike = |page: &usize| self.task.variants.at(*page) == variant;
        let len = collect(codec, pages.take_while(alike).map(|page| &self.task.k[page]), &mut run);
        let after = first + len;
        // the next keys, or the first values
        let keys = self.task.k.get(after..(self.span + 1) * SPAN_PAGES).unwrap_or_default();
        let values = self.task.v.get(self.span * SPAN_PAGES..).unwrap_or_default();
        scratch.codec.expect_next(keys.iter().map(KeyPage::bytes).chain(values.iter().map(ValuePage::bytes)));
        let set = self.prepare(codec, variant, scratch);
        let queries = &scratch.queries[set.at..][..self.rows.len() * set.len];
        let scores = &mut scores[Self::at(first)..];
        codec.score_pages(self.isa, &run[..len], queries, &mut scratch.codec, scores, SPAN);
        after
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

    /// Adds the weighted values of the first of some pages, which is coded, and of those after it that are coded and seen
    /// alike, to the sums of the rows that see some of them: `weights` is `[row][SPAN]`. Returns the page after them.
    pub fn accumulate(
        &self,
        codec: &dyn ValueCodec,
        pages: Range<usize>,
        weights: &mut [f32],
        scratch: &mut CodedScratch,
    ) -> usize {
        let first = pages.start;
        let by_all = self.seen_by_all();
        let rows = self.seers(first, &by_all, weights);
        let mut run = [&[][..]; SPAN_PAGES];
        let alike = |page: &usize| *page == first || self.seers(*page, &by_all, weights) == rows;
        let len = collect(codec, pages.take_while(alike).map(|page| &self.task.v[page]), &mut run);
        let after = first + len;
        if let (Some(domain), false) = (self.task.domains.of(codec.space()), rows.is_empty()) {
            // the next values, or the keys of the next span
            let span = (self.span + 1) * SPAN_PAGES;
            let values = self.task.v.get(after..span).unwrap_or_default();
            let keys = self.task.k.get(span..).unwrap_or_default();
            let next = values.iter().map(ValuePage::bytes).chain(keys.iter().map(KeyPage::bytes));
            scratch.codec.expect_next(next);
            let at = self.rows.len() * domain.at;
            let sums = &mut scratch.sums[at + rows.start * domain.len..at + rows.end * domain.len];
            let weights = &weights[rows.start * SPAN + Self::at(first)..];
            codec.accumulate_pages(self.isa, &run[..len], weights, SPAN, &mut scratch.codec, sums);
        }
        after
    }

    /// The positions that all rows of the tile see.
    fn seen_by_all(&self) -> Range<usize> {
        // windows move forward with the token
        self.visible(self.rows.len() - 1).start..self.visible(0).end
    }

    /// The rows of the tile that see some of a page. Their weights of the positions that they do not see are made 0.
    fn seers(&self, page: usize, by_all: &Range<usize>, weights: &mut [f32]) -> Range<usize> {
        let (start, end) = (page * PAGE, (page + 1) * PAGE);
        if by_all.start <= start && end <= by_all.end {
            return 0..self.rows.len();
        }
        let (mut first, mut last) = (self.rows.len(), 0);
        for row in 0..self.rows.len() {
            let visible = self.visible(row);
            let visible = visible.start.clamp(start, end) - start..visible.end.clamp(start, end) - start;
            if !visible.is_empty() {
                (first, last) = (first.min(row), row + 1);
                let weights = &mut weights[row * SPAN + Self::at(page)..][..PAGE];
                weights[..visible.start].fill(0.0);
                weights[visible.end..].fill(0.0);
            }
        }
        first.min(last)..last
    }

    /// What a row of the tile sees.
    fn visible(&self, row: usize) -> Range<usize> {
        self.task.visible_in(self.rows.start + row, self.span)
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

/// The bytes of the pages up to the first that another codec made; how many there are.
fn collect<'a, C: ?Sized + Codec + 'a>(
    codec: &C,
    pages: impl Iterator<Item = &'a Page<'a, C>>,
    run: &mut [&'a [u8]; SPAN_PAGES],
) -> usize {
    let mut len = 0;
    for (run, page) in run.iter_mut().zip(pages) {
        match page {
            Page::Coded { codec: of, bytes } if std::ptr::addr_eq(*of, codec) => *run = bytes,
            _ => break,
        }
        len += 1;
    }
    len
}
