//! One matmul for all int8 weight types: 16 rows of 256 values are unpacked into a [`Panel`], lane = row, and
//! multiplied with the tokens by `vpdpbusd`, the activations broadcast from memory.
//!
//! A type brings only its unpacking ([`Format`]). Some tokens use two panels, many use four and two tokens a step; few
//! tokens have kernels of their own ([`linear`], [`columns`]). The f32 state lives in memory so that the walk goes block
//! by block with its panels in the first-level cache.

use super::columns::{self, Columns};
use super::linear::{self, Linear};
use super::load::Rows;
use super::step::{self, Fetch, Tokens, has_minima, has_starts};
use crate::matmul::Tile;
use std::arch::x86_64::*;
use std::ops::Range;

/// 16 rows of 256 values, lane = row.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct Panel {
    /// Unsigned codes: values `4k..4k + 4` of each row.
    pub codes: [[u8; 64]; 64],
    /// Super-blocks: integer scales of sub-blocks `2j` and `2j + 1`, as two i16.
    pub scales: [[i32; 16]; 8],
    /// Super-blocks: factors of the sums of values `32j..32j + 16` and `32j + 16..32j + 32`, as two i16 (which are equal
    /// where sub-blocks have 32 values).
    pub sums: [[i32; 16]; 8],
    /// Scales: of each block of 16 or of 32 (then from the ninth on their minima), or of the super-block (first).
    pub d: [[f32; 16]; 16],
    /// Super-blocks with minima: their scale.
    pub dmin: [f32; 16],
}

impl Panel {
    const ZERO: Self = Self {
        codes: [[0; 64]; 64],
        scales: [[0; 16]; 8],
        sums: [[0; 16]; 8],
        d: [[0.0; 16]; 16],
        dmin: [0.0; 16],
    };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub fn set_codes(&mut self, k: usize, v: __m512i) {
        // SAFETY: the array has 64 bytes, aligned.
        unsafe { _mm512_store_si512(self.codes[k].as_mut_ptr().cast(), v) }
    }

    /// The integer scale of sub-block `j`, which fits i16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub fn set_scale(&mut self, j: usize, v: __m512i) {
        let pair = self.scales[j / 2].as_mut_ptr().cast();
        // SAFETY: the array has 32 words.
        unsafe {
            if j.is_multiple_of(2) {
                _mm512_mask_storeu_epi16(pair, 0x5555_5555, v);
            } else {
                _mm512_mask_storeu_epi16(pair, 0xaaaa_aaaa, _mm512_slli_epi32::<16>(v));
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub fn set_sums(&mut self, j: usize, v: __m512i) {
        // SAFETY: the array has 64 bytes, aligned.
        unsafe { _mm512_store_si512(self.sums[j].as_mut_ptr().cast(), v) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub fn set_d(&mut self, j: usize, v: __m512) {
        // SAFETY: the array has 64 bytes, aligned.
        unsafe { _mm512_store_ps(self.d[j].as_mut_ptr(), v) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub fn set_dmin(&mut self, v: __m512) {
        // SAFETY: the array has 64 bytes, aligned.
        unsafe { _mm512_store_ps(self.dmin.as_mut_ptr(), v) }
    }
}

/// How sums become floats.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Steps {
    /// A float step for each block of `sub` values.
    Blocks {
        /// Values in a block, 16 or 32.
        sub: usize,
        /// What unsigned codes are too large by.
        offset: i16,
        /// [`Panel::d`] holds minima of blocks of 32.
        minima: bool,
    },
    /// Integer scales for sub-blocks of `sub` values, a float step per 256; the products with the activation sums
    /// are subtracted with a scale of their own (`minima`) or belong to the integer sum (offset codes).
    Super {
        /// Values in a sub-block, 16 or 32; 256 where the codes have the scales in them (minima are of 16 values).
        sub: usize,
        /// [`Panel::sums`] holds minima, scaled by [`Panel::dmin`].
        minima: bool,
    },
    /// As `Super` with sub-blocks of 32 and no minima, for codes so large that sums of a sub-block seldom fit i16.
    Wide,
}

/// A weight type's way into a [`Panel`].
pub(super) trait Format {
    /// Bytes of 256 values.
    const BYTES: usize;
    /// Form of the sums.
    const STEPS: Steps;
    /// Super-blocks without minima: what all codes are too large by. Such a type need not set [`Panel::sums`].
    const OFFSET: Option<i16> = None;
    /// Super-blocks of 16 or 32: up to which bound of the activations the sums of all sub-blocks fit i16; `None` if most
    /// activations are beyond it.
    const NARROW: Option<u16> = None;

    /// Unpacks the next `values` values of 16 rows: 256, or for blocks of 32 any multiple of that up to 256.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of `values` values can be read in each row.
    unsafe fn unpack(rows: Rows, values: usize, panel: &mut Panel);
}

/// Tokens whose f32 state is kept at a time.
const TOKENS: usize = 512;
/// With at most so many tokens weights are fetched in the order of the file.
const IN_ORDER: usize = 32;

/// The matmul of a tile.
///
/// # Safety
/// The CPU has the tier.
pub(super) unsafe fn tile<F: Format + Linear>(tile: &mut Tile<'_>) {
    let tokens = tile.acts.tokens;
    if let 2..=8 = tokens
        && let Some(few) = F::few(tokens, tile.acts.cols)
    {
        return few(tile);
    }
    // SAFETY: as the caller promises.
    unsafe {
        match tokens {
            0 => {}
            1 => linear::tile::<F, 1>(tile),
            2 => linear::tile::<F, 2>(tile),
            3 => linear::tile::<F, 3>(tile),
            4..=8 => run::<F, 2, 4>(tile),
            _ => run::<F, 4, 2>(tile),
        }
    }
}

/// The matmul of a tile of a type whose few tokens are all done by columns.
///
/// # Safety
/// The CPU has the tier.
pub(super) unsafe fn tile_by_columns<F: Format + Columns>(tile: &mut Tile<'_>) {
    let tokens = tile.acts.tokens;
    if let Some(few) = columns::one::<F>(tokens).or_else(|| columns::tile::<F>(tokens)) {
        return few(tile);
    }
    // SAFETY: as the caller promises.
    unsafe {
        match tokens {
            0 => {}
            1..=8 => run::<F, 2, 4>(tile),
            _ => run::<F, 4, 2>(tile),
        }
    }
}

/// `P` panels of 16 rows, `T` tokens a step.
///
/// # Safety
/// The CPU has the tier.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn run<F: Format, const P: usize, const T: usize>(tile: &mut Tile<'_>) {
    let cols = tile.acts.cols;
    let minima = const { has_minima::<F>() };
    let mut panels = [Panel::ZERO; P];
    let mut starts = std::mem::take(&mut tile.scratch.starts);
    let mut staged = std::mem::take(&mut tile.scratch.panel);
    let mut buffer = std::mem::take(&mut tile.scratch.acc);
    for first_token in (0..tile.acts.tokens).step_by(TOKENS) {
        let tokens = TOKENS.min(tile.acts.tokens - first_token);
        // Found out with the first rows and kept for the others.
        let kept = if const { has_starts::<F>() } { cols.div_ceil(256) } else { 1 };
        if !const { has_starts::<F>() } {
            starts.clear();
        }
        starts.resize(kept * tokens, [0; 16]);
        let sums = accumulators::<P>(&mut buffer, if minima { 2 * tokens } else { tokens });
        let (acc, accm) = sums.split_at_mut(tokens);
        for first_row in (0..tile.rows).step_by(16 * P) {
            let live = (tile.rows - first_row).min(16 * P);
            for (first, at) in (0..cols).step_by(256).zip((0..).step_by(F::BYTES)) {
                let values = (cols - first).min(256);
                for (p, panel) in panels[..live.div_ceil(16)].iter_mut().enumerate() {
                    let row = first_row + 16 * p;
                    let base = tile.weight[row * tile.row_bytes + at..].as_ptr();
                    let rows = if tile.rows - row >= 16 {
                        Rows { base, stride: tile.row_bytes }
                    } else {
                        stage(&mut staged, tile, row, at, F::BYTES * values / 256)
                    };
                    // SAFETY: 16 rows of the tile, or of the staging buffer, hold these values from `base` on.
                    unsafe { F::unpack(rows, values, panel) };
                }
                // Meanwhile the next weights are fetched: many tokens' activations would drive the rows after these out
                // of the cache before their turn, so these rows' next values; else in the order of the file.
                let steps = tokens / T + tokens % T;
                let next = tile.ahead(first_row + 16 * P);
                let mut fetch = if tokens > IN_ORDER {
                    let here = tile.weight.as_ptr().wrapping_add(first_row * tile.row_bytes + at + F::BYTES);
                    let from = if first + 256 < cols { here } else { next };
                    Fetch::new(from, F::BYTES, 16 * P, tile.row_bytes, steps)
                } else {
                    Fetch::new(next.wrapping_add(16 * P * at), 16 * P * F::BYTES, 1, 0, steps)
                };
                let mut x = Tokens::new(tile.acts, first, values, first_token);
                let starts = &mut starts[first / 256 % kept * tokens..][..tokens];
                if first_row == 0 {
                    step::starts::<F>(x, starts);
                }
                x.starts = starts;
                if minima {
                    step::minima::<F, P>(&panels, x, accm);
                }
                if first + 256 < cols {
                    step::step::<F, P, T>(&panels, x, &mut fetch, acc);
                    continue;
                }
                for (token, acc) in (0..).step_by(OUT).zip(acc.chunks_mut(OUT)) {
                    prefetch::<OUT>(tile, first_token + token, first_row..first_row + live);
                    step::step::<F, P, T>(&panels, x.skip(token), &mut fetch, acc);
                    for (t, acc) in (token..).zip(acc) {
                        store(tile, first_token + t, first_row..first_row + live, acc, accm.get(t));
                    }
                }
            }
            if cols == 0 {
                for t in 0..tokens {
                    let zero = [[0.0; 16]; P];
                    store(tile, first_token + t, first_row..first_row + live, &zero, None);
                }
            }
        }
    }
    tile.scratch.acc = buffer;
    tile.scratch.panel = staged;
    tile.scratch.starts = starts;
}

/// Tokens whose results are stored together, while the lines of the next ones' are fetched.
const OUT: usize = 8;

/// Fetches the lines of the results of the `COUNT` tokens after the `COUNT` tokens from `token` on.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch<const COUNT: usize>(tile: &mut Tile<'_>, token: usize, rows: Range<usize>) {
    let tokens = tile.acts.tokens;
    for token in (token + COUNT..tokens).take(COUNT) {
        let (out, _) = tile.part(token, rows.start, rows.len());
        for line in out.chunks(16) {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
    }
}

/// Stores what has been summed up for some rows and a token.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn store<const P: usize>(
    tile: &mut Tile<'_>,
    token: usize,
    rows: Range<usize>,
    acc: &[[f32; 16]; P],
    minima: Option<&[[f32; 16]; P]>,
) {
    let mut sums = [_mm512_setzero_ps(); P];
    for p in 0..P {
        sums[p] = step::load_f32(&acc[p]);
        if let Some(minima) = minima {
            sums[p] = _mm512_sub_ps(sums[p], step::load_f32(&minima[p]));
        }
    }
    let (out, bias) = tile.part(token, rows.start, rows.len());
    // Nearly always; the other way's masks would delay the sums of the next tokens.
    if let (Some(out), None) = (out.as_chunks_mut().0.as_chunks_mut::<P>().0.first_mut(), bias) {
        for p in 0..P {
            step::store_f32(&mut out[p], sums[p]);
        }
        return;
    }
    for (p, out) in out.chunks_mut(16).enumerate() {
        let there = ((1u32 << out.len()) - 1) as u16;
        // SAFETY: as many floats as the mask has bits.
        unsafe {
            if let Some(bias) = bias {
                let bias = _mm512_maskz_loadu_ps(there, bias[16 * p..][..out.len()].as_ptr());
                sums[p] = _mm512_add_ps(sums[p], bias);
            }
            _mm512_mask_storeu_ps(out.as_mut_ptr(), there, sums[p]);
        }
    }
}

/// Accumulators of `count` tokens, aligned in memory.
fn accumulators<const P: usize>(buffer: &mut Vec<f32>, count: usize) -> &mut [[[f32; 16]; P]] {
    let len = count * P * 16;
    if buffer.len() < len + 16 {
        buffer.resize(len + 16, 0.0);
    }
    let first = buffer.as_ptr().align_offset(64).min(16);
    buffer[first..][..len].as_chunks_mut::<16>().0.as_chunks_mut::<P>().0
}

/// Copies the next `bytes` bytes of the last rows of a tile, fewer than 16, so that 16 can be read.
#[cold]
fn stage(staged: &mut Vec<u8>, tile: &Tile<'_>, row: usize, at: usize, bytes: usize) -> Rows {
    staged.clear();
    staged.resize(16 * bytes, 0);
    for (row, out) in (row..tile.rows).zip(staged.chunks_exact_mut(bytes)) {
        out.copy_from_slice(&tile.row(row)[at..][..bytes]);
    }
    Rows { base: staged.as_ptr(), stride: bytes }
}
