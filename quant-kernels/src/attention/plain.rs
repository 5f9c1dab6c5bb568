//! Pages that are not coded, in a tile of rows: scores and weighted sums by fused multiply-adds.

use super::tile::within;
use super::{AttentionTask, PAGE, SPAN, SPAN_PAGES};
use crate::simd::{LANES, Simd, padded};
use half::f16;
use std::ops::Range;

/// Up to this many rows read halves directly: widening is then as cheap as loading a panel.
const DIRECT_ROWS: usize = 8;
/// Lines of scores per row.
pub(super) const SCORE_LINES: usize = SPAN / LANES;

/// Sixteen values in memory.
pub(super) trait Chunk {
    fn load<S: Simd>(&self, s: S) -> S::V;
}

impl Chunk for [f32; LANES] {
    #[inline(always)]
    fn load<S: Simd>(&self, s: S) -> S::V {
        s.load(self)
    }
}

impl Chunk for [f16; LANES] {
    #[inline(always)]
    fn load<S: Simd>(&self, s: S) -> S::V {
        s.load_f16(self)
    }
}

/// A page of numbers.
#[derive(Clone, Copy)]
pub(super) enum Plain<'a> {
    F16(&'a [f16]),
    F32(&'a [f32]),
}

/// A page whose rows are whole chunks, to be read as it lies; or not.
pub(super) enum Direct<'a> {
    F16(&'a [[f16; LANES]]),
    F32(&'a [[f32; LANES]]),
    No,
}

#[inline(always)]
pub(super) fn direct(page: Plain<'_>, dim: usize, rows: usize) -> Direct<'_> {
    match page {
        Plain::F32(x) if dim.is_multiple_of(LANES) => Direct::F32(x.as_chunks().0),
        Plain::F16(x) if dim.is_multiple_of(LANES) && rows <= DIRECT_ROWS => Direct::F16(x.as_chunks().0),
        _ => Direct::No,
    }
}

/// A row of values that [`widen`] reads.
pub(super) trait Row {
    fn widen<S: Simd>(&self, s: S, out: &mut [[f32; LANES]]);
}

pub(super) struct F32<'a>(pub &'a [f32]);
struct F16<'a>(&'a [f16]);

impl Row for F32<'_> {
    #[inline(always)]
    fn widen<S: Simd>(&self, _s: S, out: &mut [[f32; LANES]]) {
        let (chunks, tail) = self.0.as_chunks::<LANES>();
        out[..chunks.len()].copy_from_slice(chunks);
        if !tail.is_empty() {
            out[chunks.len()] = padded(tail);
        }
    }
}

impl Row for F16<'_> {
    #[inline(always)]
    fn widen<S: Simd>(&self, s: S, out: &mut [[f32; LANES]]) {
        let (chunks, tail) = self.0.as_chunks::<LANES>();
        for (out, chunk) in out.iter_mut().zip(chunks) {
            s.store(s.load_f16(chunk), out);
        }
        if !tail.is_empty() {
            let mut last = [f16::ZERO; LANES];
            last[..tail.len()].copy_from_slice(tail);
            s.store(s.load_f16(&last), &mut out[chunks.len()]);
        }
    }
}

/// A row in f32, padded with +0.0 to whole lines.
#[inline(always)]
pub(super) fn widen<S: Simd, R: Row>(s: S, row: &R, out: &mut [[f32; LANES]]) {
    row.widen(s, out);
}

/// Some positions of a page in f32, each padded with +0.0 to whole lines.
#[inline(always)]
pub(super) fn widen_page<S: Simd>(
    s: S,
    page: Plain<'_>,
    dim: usize,
    positions: Range<usize>,
    panel: &mut [[f32; LANES]],
) {
    let lines = dim.div_ceil(LANES);
    for position in positions {
        let out = &mut panel[position * lines..][..lines];
        match page {
            Plain::F16(x) => widen(s, &F16(&x[position * dim..][..dim]), out),
            Plain::F32(x) => widen(s, &F32(&x[position * dim..][..dim]), out),
        }
    }
}

/// Where the scores of a page go.
pub(super) struct Scores<'a> {
    /// `[row][SPAN]`.
    pub scores: &'a mut [[f32; LANES]],
    /// First line of the page in a row's scores.
    pub at: usize,
    pub scale: f32,
}

impl Scores<'_> {
    /// Scores of all rows of `q` with the page's `positions`, in whole lines: what lies beside the positions is
    /// overwritten before it is used.
    #[inline(always)]
    pub fn fill<S: Simd, C: Chunk>(
        self,
        s: S,
        keys: &[C],
        q: &[[f32; LANES]],
        k_lines: usize,
        positions: Range<usize>,
    ) {
        let rows = self.scores.len() / SCORE_LINES;
        if positions.is_empty() {
            return;
        }
        let last = positions.end - 1;
        for line in positions.start / LANES..=last / LANES {
            let block = Keys { keys, k_lines, first: line * LANES, last };
            let at = self.at + line;
            let mut row = 0;
            if S::WIDE {
                while row + 4 <= rows {
                    block.score::<S, 4>(s, q, row, self.scale, self.scores, at);
                    row += 4;
                }
                while row + 2 <= rows {
                    block.score::<S, 2>(s, q, row, self.scale, self.scores, at);
                    row += 2;
                }
            }
            while row < rows {
                block.score::<S, 1>(s, q, row, self.scale, self.scores, at);
                row += 1;
            }
        }
    }
}

/// Sixteen keys of a page.
struct Keys<'a, C> {
    keys: &'a [C],
    k_lines: usize,
    first: usize,
    /// The last position that may be read.
    last: usize,
}

impl<C: Chunk> Keys<'_, C> {
    /// Scores of `R` rows from `row` on, one line each.
    #[inline(always)]
    fn score<S: Simd, const R: usize>(
        &self,
        s: S,
        q: &[[f32; LANES]],
        row: usize,
        scale: f32,
        scores: &mut [[f32; LANES]],
        at: usize,
    ) {
        let n = self.k_lines;
        let mut queries = [&q[..0]; R];
        for (r, query) in queries.iter_mut().enumerate() {
            *query = &q[(row + r) * n..][..n];
        }
        let zero = s.splat(0.0);
        let mut quads = [[zero; R]; 4];
        for (j, quads) in quads.iter_mut().enumerate() {
            // keys j, j + 4, j + 8, j + 12: the order that the second half of the tree restores
            let key = |i: usize| &self.keys[(self.first + 4 * i + j).min(self.last) * n..][..n];
            let keys = [key(0), key(1), key(2), key(3)];
            let mut acc = [[zero; 4]; R];
            for c in 0..n {
                let k = [keys[0][c].load(s), keys[1][c].load(s), keys[2][c].load(s), keys[3][c].load(s)];
                for r in 0..R {
                    let query = s.load(&queries[r][c]);
                    for i in 0..4 {
                        acc[r][i] = s.mul_add(k[i], query, acc[r][i]);
                    }
                }
            }
            for r in 0..R {
                quads[r] = s.tree_to_quads(acc[r]);
            }
        }
        let scale = s.splat(scale);
        for r in 0..R {
            let dots = s.tree_of_quads([quads[0][r], quads[1][r], quads[2][r], quads[3][r]]);
            s.store(s.mul(dots, scale), &mut scores[(row + r) * SCORE_LINES + at]);
        }
    }
}

/// The rows' weights for one page of values.
pub(super) struct Values<'t, 'a> {
    pub task: &'t AttentionTask<'a>,
    pub rows: Range<usize>,
    pub span: usize,
    pub page: usize,
    /// `[row][SPAN]`.
    pub weights: &'t [f32],
    pub v_lines: usize,
}

impl Values<'_, '_> {
    /// Adds the page's weighted values to `out`, `[row][dv]`.
    #[inline(always)]
    pub fn add<S: Simd, C: Chunk>(&self, s: S, page: &[C], out: &mut [[f32; LANES]]) {
        let rows = self.rows.len();
        let mut row = 0;
        if S::WIDE {
            while row + 4 <= rows {
                self.block::<S, C, 4>(s, page, row, out);
                row += 4;
            }
        }
        while row + 2 <= rows {
            self.block::<S, C, 2>(s, page, row, out);
            row += 2;
        }
        while row < rows {
            self.block::<S, C, 1>(s, page, row, out);
            row += 1;
        }
    }

    /// `R` rows: together where all of them see the position, singly before and after.
    #[inline(always)]
    fn block<S: Simd, C: Chunk, const R: usize>(
        &self,
        s: S,
        page: &[C],
        row: usize,
        out: &mut [[f32; LANES]],
    ) {
        let visible =
            |r: usize| within(&self.task.visible_in(self.rows.start + row + r, self.span), self.page);
        let (first, last) = (visible(0), visible(R - 1));
        let common = last.start..first.end.max(last.start);
        if R > 1 {
            for r in 0..R {
                let seen = visible(r);
                self.columns::<S, C, 1>(s, page, row + r, seen.start..seen.end.min(common.start), out);
            }
        }
        self.columns::<S, C, R>(s, page, row, common.start..first.end, out);
        if R > 1 {
            for r in 0..R {
                let seen = visible(r);
                self.columns::<S, C, 1>(s, page, row + r, seen.start.max(common.end)..seen.end, out);
            }
        }
    }

    /// `R` rows over positions that all of them see.
    #[inline(always)]
    fn columns<S: Simd, C: Chunk, const R: usize>(
        &self,
        s: S,
        page: &[C],
        row: usize,
        positions: Range<usize>,
        out: &mut [[f32; LANES]],
    ) {
        if positions.is_empty() || self.v_lines == 0 {
            return;
        }
        let at = self.page % SPAN_PAGES * PAGE;
        let mut weights = [&self.weights[..0]; R];
        for (r, weights) in weights.iter_mut().enumerate() {
            *weights = &self.weights[(row + r) * SPAN + at..][positions.clone()];
        }
        let n = self.v_lines;
        let values = &page[positions.start * n..positions.end * n];
        let out = &mut out[row * n..][..R * n];
        let mut column = 0;
        if S::WIDE || R == 1 {
            while column + 4 <= n {
                accumulate::<S, C, R, 4>(s, values, n, column, weights, out);
                column += 4;
            }
        }
        while column + 2 <= n {
            accumulate::<S, C, R, 2>(s, values, n, column, weights, out);
            column += 2;
        }
        while column < n {
            accumulate::<S, C, R, 1>(s, values, n, column, weights, out);
            column += 1;
        }
    }
}

/// `R` rows by `N` lines of columns from `column` on, in registers over all positions.
#[inline(always)]
fn accumulate<S: Simd, C: Chunk, const R: usize, const N: usize>(
    s: S,
    values: &[C],
    v_lines: usize,
    column: usize,
    weights: [&[f32]; R],
    out: &mut [[f32; LANES]],
) {
    let zero = s.splat(0.0);
    let mut acc = [[zero; N]; R];
    for (r, acc) in acc.iter_mut().enumerate() {
        for (n, acc) in acc.iter_mut().enumerate() {
            *acc = s.load(&out[r * v_lines + column + n]);
        }
    }
    for (p, value) in values.chunks_exact(v_lines).enumerate() {
        let value = &value[column..column + N];
        let mut v = [zero; N];
        for (v, value) in v.iter_mut().zip(value) {
            *v = value.load(s);
        }
        for r in 0..R {
            let weight = s.splat(weights[r][p]);
            for n in 0..N {
                acc[r][n] = s.mul_add(weight, v[n], acc[r][n]);
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        for (n, acc) in acc.iter().enumerate() {
            s.store(*acc, &mut out[r * v_lines + column + n]);
        }
    }
}
