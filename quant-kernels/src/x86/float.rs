//! Matmul of float weights: the blocking and the micro-kernel of few tokens that both tiers share; that of many tokens is
//! in `float_panels.rs`, the tiers' registers, shapes and formats in `avx2/float.rs` and `avx512/float.rs`.
//!
//! Each output has one accumulator of 16 lanes (lane = column mod 16), so columns may be cut into blocks as long
//! as an accumulator goes through them in order: between blocks it rests in memory.

use super::float_panels::{self, Panels, Source, panel_rows};
use crate::matmul::Tile;
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::ops::Range;

/// Groups of tokens whose accumulators rest in memory at a time; they share one panel of weights.
const CHUNK_GROUPS: usize = 96;
/// Lanes of an accumulator.
pub(super) const LANES: usize = 16;

/// The operands of a micro-kernel call: `rows` rows times `tokens` tokens over `cols` columns.
pub(super) struct Step<'a> {
    /// Weight rows in the kernel's format.
    pub weight: &'a [u8],
    /// Bytes between rows.
    pub weight_stride: usize,
    /// Rows.
    pub rows: usize,
    /// Tokens.
    pub x: &'a [f32],
    /// Values between tokens.
    pub x_stride: usize,
    /// Tokens; at most [`Micro::TOKENS`].
    pub tokens: usize,
    /// Columns.
    pub cols: usize,
    /// Accumulators, `[token][row][16]`.
    pub acc: &'a mut [f32],
    /// Values between tokens in `acc`.
    pub acc_stride: usize,
}

impl Step<'_> {
    /// Checks once what the micro-kernels' pointers rely on, for weights of `bytes` bytes a value.
    pub fn check(&self, bytes: usize) {
        assert!(self.rows > 0 && self.tokens > 0, "an empty micro-kernel call");
        assert!(
            (self.rows - 1) * self.weight_stride + self.cols * bytes <= self.weight.len(),
            "weight too short"
        );
        assert!((self.tokens - 1) * self.x_stride + self.cols <= self.x.len(), "tokens too short");
        assert!(
            (self.tokens - 1) * self.acc_stride + self.rows * LANES <= self.acc.len(),
            "accumulators too short"
        );
    }
}

/// What a tier brings for one weight format.
pub(super) trait Micro: 'static {
    /// Tokens of the widest micro-tile.
    const TOKENS: usize;
    /// Rows of the micro-tile of panels, a divisor of 8.
    const ROWS: usize;
    /// Bytes of a weight in a panel.
    const PACKED: usize;

    /// Multiplies weights as they lie in the file.
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn direct(step: Step<'_>);

    /// Lays a row of weights into a panel, 16 values in every [`Micro::ROWS`] times 16, the last ones filled up with +0.0;
    /// `ahead` bytes from there are the weights that come later.
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn pack_row(weights: &[u8], out: &mut [u8], ahead: usize);

    /// Lays tokens into a panel, the last columns filled up with +0.0.
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn pack_tokens(from: Source<'_>, out: &mut [f32]);

    /// Multiplies panels.
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn panels(panels: Panels<'_>);

    /// Sums each of 8 accumulators by the contract's tree.
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn trees(acc: &[f32; 8 * LANES]) -> [f32; 8];
}

/// A weight format on a tier where `PARTS` registers are the 16 lanes.
pub(super) trait Load<const PARTS: usize> {
    /// A register of `16 / PARTS` values.
    type V: Copy;
    /// Bytes of a weight.
    const BYTES: usize;

    /// A register of weights.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of a register's values can be read.
    unsafe fn weights(at: *const u8) -> Self::V;

    /// A register of +0.0.
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn zero() -> Self::V;

    /// A register from memory.
    ///
    /// # Safety
    /// The CPU has the tier; a register's values can be read.
    unsafe fn load(at: *const f32) -> Self::V;

    /// A register to memory.
    ///
    /// # Safety
    /// The CPU has the tier; a register's values can be written.
    unsafe fn store(at: *mut f32, v: Self::V);

    /// `a * b + c` with one rounding.
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

/// Bytes of a row up to which two rows are read side by side, and the next two fit the first-level cache meanwhile.
pub(super) const SHORT: usize = 8 << 10;

/// One step of a row: the bytes there are, then zeros (+0.0 in every format).
#[inline]
pub(super) fn padded(weights: &[u8]) -> [u8; 64] {
    let mut bytes = [0u8; 64];
    bytes[..weights.len()].copy_from_slice(weights);
    bytes
}

/// All rows of a step: `R` at a time, then one at a time.
///
/// # Safety
/// The CPU has the tier of `L`, for which the caller is compiled.
#[inline(always)]
pub(super) unsafe fn row_groups<L: Load<PARTS>, const PARTS: usize, const R: usize, const T: usize>(
    step: Step<'_>,
) {
    step.check(L::BYTES);
    assert_eq!(step.tokens, T, "tokens of a micro-tile");
    let mut step = step;
    let whole = step.rows - step.rows % R;
    for row in (0..whole).step_by(R) {
        // SAFETY: the step is checked, and `row + R <= rows`.
        unsafe { micro::<L, PARTS, R, T>(&mut step, row) };
    }
    for row in whole..step.rows {
        // SAFETY: the step is checked, and `row < rows`.
        unsafe { micro::<L, PARTS, 1, T>(&mut step, row) };
    }
}

/// `R` rows times `T` tokens over the step's columns.
///
/// # Safety
/// The CPU has the tier of `L`; the step is checked, has `T` tokens and at least `row + R` rows.
#[inline(always)]
unsafe fn micro<L: Load<PARTS>, const PARTS: usize, const R: usize, const T: usize>(
    step: &mut Step<'_>,
    row: usize,
) {
    let width = LANES / PARTS;
    let store = step.acc[row * LANES..].as_mut_ptr();
    let weight = step.weight[row * step.weight_stride..].as_ptr();
    let x = step.x.as_ptr();
    let whole = step.cols - step.cols % LANES;
    // SAFETY: the step is checked: R rows and T tokens of weights, of tokens and of accumulators; columns up to
    // `whole` are read in place, the others from copies of 64 bytes and 16 values.
    unsafe {
        let mut acc = [[[L::zero(); PARTS]; T]; R];
        // The next rows are requested one after the other: many streams at once are not what memory likes.
        let ahead = weight.wrapping_add(R * step.weight_stride);
        for col in (0..whole).step_by(LANES) {
            for line in 0..const { (R * LANES * L::BYTES).div_ceil(64) } {
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(R * L::BYTES * col + 64 * line).cast());
            }
            for part in 0..PARTS {
                let col = col + part * width;
                let mut tokens = [L::zero(); T];
                for t in 0..T {
                    tokens[t] = L::load(x.add(t * step.x_stride + col));
                }
                for r in 0..R {
                    let at = weight.add(r * step.weight_stride + col * L::BYTES);
                    let w = L::weights(at);
                    for t in 0..T {
                        acc[r][t][part] = L::mul_add(w, tokens[t], acc[r][t][part]);
                    }
                }
            }
        }
        if whole < step.cols {
            let rest = step.cols - whole;
            for t in 0..T {
                let mut x_t = [0f32; LANES];
                x_t[..rest].copy_from_slice(&step.x[t * step.x_stride + whole..][..rest]);
                for r in 0..R {
                    let at = (row + r) * step.weight_stride + whole * L::BYTES;
                    let bytes = padded(&step.weight[at..][..rest * L::BYTES]);
                    for part in 0..PARTS {
                        let w = L::weights(bytes.as_ptr().add(part * width * L::BYTES));
                        let x = L::load(x_t.as_ptr().add(part * width));
                        acc[r][t][part] = L::mul_add(w, x, acc[r][t][part]);
                    }
                }
            }
        }
        for r in 0..R {
            for t in 0..T {
                for part in 0..PARTS {
                    let at = t * step.acc_stride + r * LANES + part * width;
                    L::store(store.add(at), acc[r][t][part]);
                }
            }
        }
    }
}

/// Runs a tile.
///
/// # Safety
/// The CPU has the tier of `M`.
pub(super) unsafe fn run<M: Micro>(tile: &mut Tile<'_>) {
    let acts = tile.acts;
    let mut buffer = std::mem::take(&mut tile.scratch.acc);
    let mut arranged = std::mem::take(&mut tile.scratch.arranged);
    let mut x =
        Groups { x: &acts.x, cols: acts.cols, tokens: acts.tokens, count: acts.tokens.div_ceil(M::TOKENS) };
    if x.count > 1 {
        let bytes = 4 * acts.tokens * acts.cols.next_multiple_of(LANES);
        // SAFETY: the caller vouches for the tier.
        let packed = arranged.get::<M>(acts.stamp, bytes, |out| unsafe { pack::<M>(x, floats_mut(out)) });
        x.x = floats(packed);
    }
    let panel_rows = panel_rows(M::PACKED);
    for first_row in (0..tile.rows).step_by(panel_rows) {
        let rows = panel_rows.min(tile.rows - first_row);
        for first_group in (0..x.count).step_by(CHUNK_GROUPS) {
            let groups = first_group..(first_group + CHUNK_GROUPS).min(x.count);
            // SAFETY: the caller vouches for the tier.
            unsafe { block::<M>(tile, &mut buffer, first_row, rows, x, groups) };
        }
    }
    tile.scratch.acc = buffer;
    tile.scratch.arranged = arranged;
}

/// Tokens in groups, as even as they can be: 7 are 4 and 3, not 6 and 1.
#[derive(Clone, Copy)]
struct Groups<'a> {
    /// One group: `[token][column]`; more: panel after panel of [`float_panels::COLS`] columns, and in it the groups.
    x: &'a [f32],
    cols: usize,
    tokens: usize,
    /// Groups.
    count: usize,
}

impl<'a> Groups<'a> {
    /// Tokens before group `g`.
    fn first(self, g: usize) -> usize {
        self.tokens * g / self.count
    }

    /// Where a group's panel is, the columns from `first_col` on.
    fn place(self, first_col: usize, g: usize) -> Range<usize> {
        let width = float_panels::COLS.min(self.cols - first_col).next_multiple_of(LANES);
        let start = first_col * self.tokens;
        start + self.first(g) * width..start + self.first(g + 1) * width
    }

    fn panel(self, first_col: usize, g: usize) -> &'a [f32] {
        &self.x[self.place(first_col, g)]
    }
}

/// Lays all tokens into panels.
///
/// # Safety
/// The CPU has the tier of `M`.
unsafe fn pack<M: Micro>(rows: Groups<'_>, out: &mut [f32]) {
    for first_col in (0..rows.cols).step_by(float_panels::COLS) {
        let cols = float_panels::COLS.min(rows.cols - first_col);
        for g in 0..rows.count {
            let (from, to) = (rows.first(g), rows.first(g + 1));
            let x = &rows.x[from * rows.cols + first_col..];
            let source = Source { x, stride: rows.cols, cols, tokens: to - from };
            // SAFETY: as the caller promises.
            unsafe { M::pack_tokens(source, &mut out[rows.place(first_col, g)]) };
        }
    }
}

/// Runs at most [`panel_rows`] rows times some groups of tokens.
///
/// # Safety
/// The CPU has the tier of `M`.
unsafe fn block<M: Micro>(
    tile: &mut Tile<'_>,
    buffer: &mut Vec<f32>,
    first_row: usize,
    rows: usize,
    x: Groups<'_>,
    groups: Range<usize>,
) {
    let cols = x.cols;
    let (first_token, end) = (x.first(groups.start), x.first(groups.end));
    let tokens = end - first_token;
    let weight = &tile.weight[first_row * tile.row_bytes..][..rows * tile.row_bytes];
    let acc_stride = rows.next_multiple_of(8) * LANES;
    let sums = tokens * acc_stride;
    if x.count == 1 {
        let acc = aligned(buffer, sums);
        let step = Step {
            weight,
            weight_stride: tile.row_bytes,
            rows,
            x: x.x,
            x_stride: cols,
            tokens,
            cols,
            acc,
            acc_stride,
        };
        // SAFETY: the caller vouches for the tier.
        unsafe {
            M::direct(step);
            store::<M>(tile, first_token, first_row..first_row + rows, acc);
        }
        return;
    }
    let width = cols.min(float_panels::COLS).next_multiple_of(LANES);
    let panel = rows.next_multiple_of(M::ROWS) * width * M::PACKED / 4;
    let (acc, panel) = aligned(buffer, sums + panel).split_at_mut(sums);
    // Sums are stored as soon as a group of tokens has them, while they are in the cache.
    // SAFETY: the caller vouches for the tier.
    let done = |token, acc: &[f32]| unsafe {
        store::<M>(tile, token, first_row..first_row + rows, acc);
    };
    // SAFETY: the caller vouches for the tier.
    unsafe { by_panels::<M>(weight, rows, x, groups, bytes_mut(panel), acc, done) };
}

/// Stores the sums of some rows and the tokens from `token` on.
///
/// # Safety
/// The CPU has the tier of `M`.
unsafe fn store<M: Micro>(tile: &mut Tile<'_>, token: usize, rows: Range<usize>, acc: &[f32]) {
    for (token, acc) in (token..).zip(acc.chunks_exact(rows.len().next_multiple_of(8) * LANES)) {
        for (row, acc) in rows.clone().step_by(8 * STORED).zip(acc.chunks(8 * STORED * LANES)) {
            let mut sums = [0.0; 8 * STORED];
            for (acc, sums) in acc.as_chunks().0.iter().zip(sums.as_chunks_mut().0) {
                // SAFETY: as the caller promises.
                *sums = unsafe { M::trees(acc) };
            }
            tile.store(token, row, &sums[..(8 * STORED).min(rows.end - row)]);
        }
    }
}

/// Eights of rows that are stored at a time.
const STORED: usize = 8;

/// Accumulates all columns of some groups of tokens, panel by panel; `panel` has room for the weights of one. `done` gets
/// the sums of each group of tokens, whose first it is told.
///
/// # Safety
/// The CPU has the tier of `M`.
unsafe fn by_panels<M: Micro>(
    weight: &[u8],
    rows: usize,
    x: Groups<'_>,
    groups: Range<usize>,
    panel: &mut [u8],
    acc: &mut [f32],
    mut done: impl FnMut(usize, &[f32]),
) {
    let first_token = x.first(groups.start);
    if x.cols == 0 {
        acc.fill(0.0);
        return done(first_token, acc);
    }
    let acc_stride = acc.len() / (x.first(groups.end) - first_token);
    let row_bytes = weight.len() / rows;
    let value_bytes = row_bytes / x.cols;
    for first_col in (0..x.cols).step_by(float_panels::COLS) {
        let cols = float_panels::COLS.min(x.cols - first_col);
        let steps = cols.div_ceil(LANES);
        let group_bytes = steps * M::ROWS * LANES * M::PACKED;
        for (rows, out) in weight.chunks(M::ROWS * row_bytes).zip(panel.chunks_exact_mut(group_bytes)) {
            if rows.len() < M::ROWS * row_bytes {
                out.fill(0);
            }
            for (row, at) in rows.chunks_exact(row_bytes).zip((0..).step_by(LANES * M::PACKED)) {
                let row = &row[value_bytes * first_col..][..value_bytes * cols];
                // SAFETY: the caller vouches for the tier.
                unsafe { M::pack_row(row, &mut out[at..], M::ROWS * row_bytes) };
            }
        }
        for g in groups.clone() {
            let next_col = first_col + float_panels::COLS;
            let next = if g + 1 < groups.end {
                (first_col, g + 1)
            } else {
                (if next_col < x.cols { next_col } else { 0 }, groups.start)
            };
            let (from, to) = (x.first(g), x.first(g + 1));
            let acc = &mut acc[(from - first_token) * acc_stride..][..(to - from) * acc_stride];
            // SAFETY: the caller vouches for the tier.
            unsafe {
                M::panels(Panels {
                    weight: panel,
                    groups: rows.div_ceil(M::ROWS),
                    x: x.panel(first_col, g),
                    tokens: to - from,
                    steps,
                    acc,
                    acc_stride,
                    resume: first_col > 0,
                    next: x.panel(next.0, next.1),
                });
            }
            if next_col >= x.cols {
                done(from, acc);
            }
        }
    }
}

/// The first `len` values of a buffer at a cache line's start.
fn aligned(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len + LANES {
        buffer.resize(len + LANES, 0.0);
    }
    let offset = buffer.as_ptr().align_offset(64).min(LANES);
    &mut buffer[offset..][..len]
}

/// Values as bytes.
fn bytes_mut(values: &mut [f32]) -> &mut [u8] {
    // SAFETY: the same memory, borrowed exclusively; every bit pattern is a valid byte and a valid float, and bytes need
    // no alignment.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// Bytes at a cache line's start as values.
fn floats(bytes: &[u8]) -> &[f32] {
    // SAFETY: every bit pattern is a valid float.
    let (before, values, _) = unsafe { bytes.align_to::<f32>() };
    assert!(before.is_empty(), "values that are not aligned");
    values
}

/// The same to be written.
fn floats_mut(bytes: &mut [u8]) -> &mut [f32] {
    // SAFETY: every bit pattern is a valid float, and a valid byte.
    let (before, values, _) = unsafe { bytes.align_to_mut::<f32>() };
    assert!(before.is_empty(), "values that are not aligned");
    values
}
