//! Matmul of float weights: the blocking and the micro-kernel that both tiers share. Their registers, shapes and
//! formats are in `avx2/float.rs` and `avx512/float.rs`.
//!
//! Each output has one accumulator of 16 lanes (lane = column mod 16), so columns may be cut into blocks as long
//! as an accumulator goes through them in order: between blocks it rests in memory.

use crate::matmul::Tile;
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Rows of a panel.
const PANEL_ROWS: usize = 128;
/// Columns of a panel: the tokens of a micro-tile stay in L1 while the panel's rows stream from L2.
const PANEL_COLS: usize = 1024;
/// Tokens whose accumulators rest in memory at a time; they share one widening of the panel.
const CHUNK_TOKENS: usize = 192;
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
    /// Whether `acc` holds the sums of earlier columns (which are whole multiples of 16) instead of nothing.
    pub resume: bool,
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
pub(super) trait Micro {
    /// Tokens of the widest micro-tile.
    const TOKENS: usize;
    /// Bytes of a weight.
    const BYTES: usize;

    /// Multiplies weights as they lie in the file.
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn direct(step: Step<'_>);

    /// Multiplies weights that [`Micro::widen`] has made f32 (as native-endian bytes).
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn widened(step: Step<'_>);

    /// Weights to f32; `out` is the longer by less than 16 and filled up with +0.0.
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn widen(weights: &[u8], out: &mut [f32]);

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

/// Bytes that a weight stream is fetched ahead of its use.
const AHEAD: usize = 1024;

/// One step of a row: the bytes there are, then zeros (+0.0 in every format).
#[inline]
fn padded(weights: &[u8]) -> [u8; 64] {
    let mut bytes = [0u8; 64];
    bytes[..weights.len()].copy_from_slice(weights);
    bytes
}

/// [`Micro::widen`].
///
/// # Safety
/// The CPU has the tier of `L`, for which the caller is compiled.
#[inline(always)]
pub(super) unsafe fn widen<L: Load<PARTS>, const PARTS: usize>(weights: &[u8], out: &mut [f32]) {
    for (weights, out) in weights.chunks(LANES * L::BYTES).zip(out.as_chunks_mut::<LANES>().0) {
        let bytes;
        let from = if weights.len() == LANES * L::BYTES {
            weights.as_ptr()
        } else {
            bytes = padded(weights);
            bytes.as_ptr()
        };
        for part in 0..PARTS {
            let at = part * (LANES / PARTS);
            // SAFETY: 16 weights (the padded copy is 64 bytes long), and `out` is 16 values long.
            unsafe { L::store(out.as_mut_ptr().add(at), L::weights(from.add(at * L::BYTES))) };
        }
    }
}

/// All rows of a step: `R` at a time, then one at a time. `STREAM` says that the weights come from memory.
///
/// # Safety
/// The CPU has the tier of `L`, for which the caller is compiled.
#[inline(always)]
pub(super) unsafe fn row_groups<
    L: Load<PARTS>,
    const PARTS: usize,
    const R: usize,
    const T: usize,
    const STREAM: bool,
>(
    step: Step<'_>,
) {
    step.check(L::BYTES);
    assert_eq!(step.tokens, T, "tokens of a micro-tile");
    let mut step = step;
    let whole = step.rows - step.rows % R;
    for row in (0..whole).step_by(R) {
        // SAFETY: the step is checked, and `row + R <= rows`.
        unsafe { micro::<L, PARTS, R, T, STREAM>(&mut step, row) };
    }
    for row in whole..step.rows {
        // SAFETY: the step is checked, and `row < rows`.
        unsafe { micro::<L, PARTS, 1, T, STREAM>(&mut step, row) };
    }
}

/// `R` rows times `T` tokens over the step's columns.
///
/// # Safety
/// The CPU has the tier of `L`; the step is checked, has `T` tokens and at least `row + R` rows.
#[inline(always)]
unsafe fn micro<L: Load<PARTS>, const PARTS: usize, const R: usize, const T: usize, const STREAM: bool>(
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
        if step.resume {
            for r in 0..R {
                for t in 0..T {
                    for part in 0..PARTS {
                        let at = t * step.acc_stride + r * LANES + part * width;
                        acc[r][t][part] = L::load(store.add(at));
                    }
                }
            }
        }
        for col in (0..whole).step_by(LANES) {
            for part in 0..PARTS {
                let col = col + part * width;
                let mut tokens = [L::zero(); T];
                for t in 0..T {
                    tokens[t] = L::load(x.add(t * step.x_stride + col));
                }
                for r in 0..R {
                    let at = weight.add(r * step.weight_stride + col * L::BYTES);
                    if STREAM && part == 0 {
                        _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
                    }
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
    let mut buffer = std::mem::take(&mut tile.scratch.acc);
    for first_row in (0..tile.rows).step_by(PANEL_ROWS) {
        let rows = PANEL_ROWS.min(tile.rows - first_row);
        for first_token in (0..tile.acts.tokens).step_by(CHUNK_TOKENS) {
            let tokens = CHUNK_TOKENS.min(tile.acts.tokens - first_token);
            // SAFETY: the caller vouches for the tier.
            unsafe { block::<M>(tile, &mut buffer, first_row, rows, first_token, tokens) };
        }
    }
    tile.scratch.acc = buffer;
}

/// Runs at most [`PANEL_ROWS`] rows times at most [`CHUNK_TOKENS`] tokens.
///
/// # Safety
/// The CPU has the tier of `M`.
unsafe fn block<M: Micro>(
    tile: &mut Tile<'_>,
    buffer: &mut Vec<f32>,
    first_row: usize,
    rows: usize,
    first_token: usize,
    tokens: usize,
) {
    let cols = tile.acts.cols;
    let x = &tile.acts.x[first_token * cols..][..tokens * cols];
    let weight = &tile.weight[first_row * tile.row_bytes..][..rows * tile.row_bytes];
    let acc_stride = rows.next_multiple_of(8) * LANES;
    let width = cols.min(PANEL_COLS).next_multiple_of(LANES);
    let direct = tokens <= M::TOKENS;
    let (panel_len, group_len) = if direct { (0, 0) } else { (rows * width, M::TOKENS * width) };
    let (acc, rest) =
        aligned(buffer, tokens * acc_stride + panel_len + group_len).split_at_mut(tokens * acc_stride);
    let (panel, group) = rest.split_at_mut(panel_len);

    if direct {
        let step = Step {
            weight,
            weight_stride: tile.row_bytes,
            rows,
            x,
            x_stride: cols,
            tokens,
            cols,
            acc,
            acc_stride,
            resume: false,
        };
        // SAFETY: the caller vouches for the tier.
        unsafe { M::direct(step) };
    } else {
        for first_col in (0..cols).step_by(PANEL_COLS) {
            let panel_cols = PANEL_COLS.min(cols - first_col);
            let width = panel_cols.next_multiple_of(LANES);
            for (row, out) in panel.chunks_exact_mut(width).take(rows).enumerate() {
                let bytes = &weight[row * tile.row_bytes + first_col * M::BYTES..][..panel_cols * M::BYTES];
                // SAFETY: the caller vouches for the tier.
                unsafe { M::widen(bytes, out) };
            }
            // Micro-tiles as even as they can be: 7 tokens are 4 and 3, not 6 and 1.
            let groups = tokens.div_ceil(M::TOKENS);
            for g in 0..groups {
                let (from, to) = (tokens * g / groups, tokens * (g + 1) / groups);
                // Packed and aligned: a copy costs less than loads that straddle cache lines, row group by row group.
                for (token, out) in (from..to).zip(group.chunks_exact_mut(width)) {
                    out[..panel_cols].copy_from_slice(&x[token * cols + first_col..][..panel_cols]);
                    out[panel_cols..].fill(0.0);
                }
                let step = Step {
                    weight: as_bytes(&panel[..rows * width]),
                    weight_stride: width * 4,
                    rows,
                    x: group,
                    x_stride: width,
                    tokens: to - from,
                    cols: width,
                    acc: &mut acc[from * acc_stride..],
                    acc_stride,
                    resume: first_col > 0,
                };
                // SAFETY: the caller vouches for the tier.
                unsafe { M::widened(step) };
            }
        }
    }

    for (token, acc) in acc.chunks_exact(acc_stride).enumerate() {
        for (group, acc) in acc.as_chunks::<{ 8 * LANES }>().0.iter().enumerate() {
            // SAFETY: the caller vouches for the tier.
            let sums = unsafe { M::trees(acc) };
            let row = group * 8;
            tile.store(first_token + token, first_row + row, &sums[..8.min(rows - row)]);
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

/// Values as native-endian bytes.
fn as_bytes(values: &[f32]) -> &[u8] {
    // SAFETY: the same memory, every bit pattern is a valid byte, and bytes need no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
