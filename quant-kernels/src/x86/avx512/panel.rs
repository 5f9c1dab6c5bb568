//! One matmul for all int8 weight types: 16 rows of 256 values are unpacked into a [`Panel`], lane = row, and
//! multiplied with the tokens by `vpdpbusd`, the activations broadcast from memory.
//!
//! A type brings only its unpacking ([`Format`]). Few tokens use two panels, many use four and two tokens a step; one
//! token has kernels of its own ([`linear`]). The f32 state lives in memory so that the walk goes block by block with its panels in the first-level cache.

use super::linear::{self, Linear};
use super::load::Rows;
use crate::matmul::Tile;
use std::arch::x86_64::*;

/// 16 rows of 256 values, lane = row.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct Panel {
    /// Unsigned codes: values `4k..4k + 4` of each row.
    pub codes: [[u8; 64]; 64],
    /// Super-blocks: integer scale of each sub-block.
    pub scales: [[i32; 16]; 16],
    /// Super-blocks: factors of the sums of values `32j..32j + 16` and `32j + 16..32j + 32`, as two i16.
    pub sums: [[i32; 16]; 8],
    /// Scales: of each block of 32, or of the super-block (first).
    pub d: [[f32; 16]; 8],
    /// Super-blocks with minima: their scale.
    pub dmin: [f32; 16],
}

impl Panel {
    const ZERO: Self = Self {
        codes: [[0; 64]; 64],
        scales: [[0; 16]; 16],
        sums: [[0; 16]; 8],
        d: [[0.0; 16]; 8],
        dmin: [0.0; 16],
    };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub fn set_codes(&mut self, k: usize, v: __m512i) {
        // SAFETY: the array has 64 bytes, aligned.
        unsafe { _mm512_store_si512(self.codes[k].as_mut_ptr().cast(), v) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub fn set_scale(&mut self, j: usize, v: __m512i) {
        // SAFETY: the array has 64 bytes, aligned.
        unsafe { _mm512_store_si512(self.scales[j].as_mut_ptr().cast(), v) }
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
    /// A float step for each block of 32; codes carry this offset.
    Blocks {
        /// What unsigned codes are too large by.
        offset: i16,
    },
    /// Integer scales for sub-blocks of `sub` values, a float step per 256; the products with the activation sums
    /// are subtracted with a scale of their own (`minima`) or belong to the integer sum (offset codes).
    Super {
        /// Values in a sub-block, 16 or 32; 256 where the codes have the scales in them.
        sub: usize,
        /// [`Panel::sums`] holds minima, scaled by [`Panel::dmin`].
        minima: bool,
    },
}

/// A weight type's way into a [`Panel`].
pub(super) trait Format {
    /// Bytes of 256 values.
    const BYTES: usize;
    /// Form of the sums.
    const STEPS: Steps;

    /// Unpacks the next `values` values of 16 rows: 256, or for blocks of 32 any multiple of that up to 256.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of `values` values can be read in each row.
    unsafe fn unpack(rows: Rows, values: usize, panel: &mut Panel);
}

/// Tokens whose f32 state is kept at a time.
const TOKENS: usize = 512;

/// The matmul of a tile.
///
/// # Safety
/// The CPU has the tier.
pub(super) unsafe fn tile<F: Format + Linear>(tile: &mut Tile<'_>) {
    // SAFETY: as the caller promises.
    unsafe {
        match tile.acts.tokens {
            0 => {}
            1 => linear::tile::<F>(tile),
            2..=3 => run::<F, 2, 2>(tile),
            4..=8 => run::<F, 2, 4>(tile),
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
    let mut panels = [Panel::ZERO; P];
    let mut staged = std::mem::take(&mut tile.scratch.panel);
    let mut acc = std::mem::take(&mut tile.scratch.acc);
    for first_token in (0..tile.acts.tokens).step_by(TOKENS) {
        let tokens = TOKENS.min(tile.acts.tokens - first_token);
        acc.resize(tokens * P * State::LEN, 0.0);
        for first_row in (0..tile.rows).step_by(16 * P) {
            let live = (tile.rows - first_row).min(16 * P);
            acc.fill(0.0);
            for (b, at) in (0..cols).step_by(256).zip((0..).step_by(F::BYTES)) {
                let values = (cols - b).min(256);
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
                    // Meanwhile the rows after these panels are fetched, in the order in which they lie in the file.
                    let next = tile.weight.as_ptr().wrapping_add((first_row + 16 * P) * tile.row_bytes);
                    let next = next.wrapping_add(16 * at + p * tile.row_bytes * 16);
                    for line in (0..16 * F::BYTES).step_by(64) {
                        _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(line).cast());
                    }
                }
                let mut t = 0;
                while t < tokens {
                    let x = X { acts: tile.acts, block: b / 256, token: first_token + t, values };
                    let state = &mut acc[t * P * State::LEN..];
                    t += if t + T <= tokens {
                        step::<F, P, T>(&panels, x, state);
                        T
                    } else {
                        step::<F, P, 1>(&panels, x, state);
                        1
                    };
                }
            }
            for t in 0..tokens {
                for p in 0..live.div_ceil(16) {
                    let state = State::load(&acc[(t * P + p) * State::LEN..]);
                    let mut out = [0f32; 16];
                    // SAFETY: 16 floats.
                    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), _mm512_sub_ps(state.acc, state.accm)) };
                    let row = 16 * p;
                    tile.store(first_token + t, first_row + row, &out[..(live - row).min(16)]);
                }
            }
        }
    }
    tile.scratch.acc = acc;
    tile.scratch.panel = staged;
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

/// The two f32 accumulators of 16 rows.
#[derive(Clone, Copy)]
struct State {
    acc: __m512,
    accm: __m512,
}

impl State {
    /// Floats in memory.
    const LEN: usize = 32;

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(memory: &[f32]) -> Self {
        let memory = &memory[..Self::LEN];
        // SAFETY: two vectors of 16 floats.
        unsafe {
            Self { acc: _mm512_loadu_ps(memory.as_ptr()), accm: _mm512_loadu_ps(memory[16..].as_ptr()) }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(self, memory: &mut [f32]) {
        let memory = &mut memory[..Self::LEN];
        // SAFETY: two vectors of 16 floats.
        unsafe {
            _mm512_storeu_ps(memory.as_mut_ptr(), self.acc);
            _mm512_storeu_ps(memory[16..].as_mut_ptr(), self.accm);
        }
    }
}

/// Activations of one step: up to 256 values of some tokens from `token` on.
#[derive(Clone, Copy)]
struct X<'a> {
    acts: &'a crate::activations::Acts,
    block: usize,
    token: usize,
    values: usize,
}

/// Four codes, or two sums, in every lane.
///
/// # Safety
/// Four bytes can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn broadcast<T>(p: *const T) -> __m512i {
    // SAFETY: as the caller promises.
    _mm512_set1_epi32(unsafe { p.cast::<i32>().read_unaligned() })
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(v: &[i32; 16]) -> __m512i {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(v.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_codes(v: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(v.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_f32(v: &[f32; 16]) -> __m512 {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_ps(v.as_ptr()) }
}

/// Adds up to 256 values of `T` tokens to the state, `[T][P]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn step<F: Format, const P: usize, const T: usize>(panels: &[Panel; P], x: X<'_>, state: &mut [f32]) {
    match F::STEPS {
        Steps::Blocks { offset } => blocks::<P, T>(panels, x, state, offset),
        Steps::Super { sub: 16, minima } => super_block::<P, T, 16>(panels, x, state, minima),
        Steps::Super { sub: 256, minima } => super_block::<P, T, 256>(panels, x, state, minima),
        Steps::Super { minima, .. } => super_block::<P, T, 32>(panels, x, state, minima),
    }
}

/// Super-blocks: `SUB` values share an integer scale.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn super_block<const P: usize, const T: usize, const SUB: usize>(
    panels: &[Panel; P],
    x: X<'_>,
    state: &mut [f32],
    minima: bool,
) {
    let at = x.block * x.acts.tokens + x.token;
    let (q, sums, d) =
        (&x.acts.q[at * 256..][..T * 256], &x.acts.sums[at * 16..][..T * 16], &x.acts.d[at..][..T]);
    let zero = _mm512_setzero_si512();
    let mut isum = [[zero; P]; T];
    // Not a constant: unrolled, this loop and its loads would not fit the registers.
    let values = x.values;
    assert!(values <= 256, "a step has at most 256 values");
    for j in 0..values / SUB {
        let mut dot = [[zero; P]; T];
        // Long sub-blocks are not unrolled either.
        for k in 0..SUB.min(values) / 4 {
            let k = j * (SUB / 4) + k;
            let mut w = [zero; P];
            for p in 0..P {
                w[p] = load_codes(&panels[p].codes[k]);
            }
            for t in 0..T {
                // SAFETY: `t * 256 + k * 4 + 4 <= T * 256`, the length of `q`.
                let x = unsafe { broadcast(q.as_ptr().add(t * 256 + k * 4)) };
                for p in 0..P {
                    dot[t][p] = _mm512_dpbusd_epi32(dot[t][p], w[p], x);
                }
            }
        }
        if SUB == 256 {
            isum = dot;
            break;
        }
        for p in 0..P {
            let scale = load(&panels[p].scales[j]);
            for t in 0..T {
                isum[t][p] = _mm512_add_epi32(isum[t][p], _mm512_mullo_epi32(dot[t][p], scale));
            }
        }
    }
    let mut sum = if minima { [[zero; P]; T] } else { isum };
    for j in 0..values / 32 {
        for t in 0..T {
            // SAFETY: `j < 8`, so `t * 16 + 2 * j + 2 <= T * 16`, the length of `sums`.
            let x = unsafe { broadcast(sums.as_ptr().add(t * 16 + 2 * j)) };
            for p in 0..P {
                sum[t][p] = _mm512_dpwssd_epi32(sum[t][p], load(&panels[p].sums[j]), x);
            }
        }
    }
    for t in 0..T {
        let dx = _mm512_set1_ps(d[t]);
        for p in 0..P {
            let memory = &mut state[(t * P + p) * State::LEN..];
            let mut s = State::load(memory);
            let scale = _mm512_mul_ps(load_f32(&panels[p].d[0]), dx);
            if minima {
                s.acc = _mm512_add_ps(s.acc, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(isum[t][p])));
                let scale = _mm512_mul_ps(load_f32(&panels[p].dmin), dx);
                s.accm = _mm512_add_ps(s.accm, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum[t][p])));
            } else {
                s.acc = _mm512_add_ps(s.acc, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum[t][p])));
            }
            s.store(memory);
        }
    }
}

/// Blocks of 32 with a float step each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn blocks<const P: usize, const T: usize>(panels: &[Panel; P], x: X<'_>, state: &mut [f32], offset: i16) {
    let mut acc = [[State { acc: _mm512_setzero_ps(), accm: _mm512_setzero_ps() }; P]; T];
    for t in 0..T {
        for p in 0..P {
            acc[t][p] = State::load(&state[(t * P + p) * State::LEN..]);
        }
    }
    let offset = _mm512_set1_epi16(-offset);
    let zero = _mm512_setzero_si512();
    for j in 0..x.values / 32 {
        let at = (x.block * 8 + j) * x.acts.tokens + x.token;
        let (q, sums, d) =
            (&x.acts.q[at * 32..][..T * 32], &x.acts.sums[at * 2..][..T * 2], &x.acts.d[at..][..T]);
        let mut dot = [[zero; P]; T];
        for t in 0..T {
            // SAFETY: `t * 2 + 2 <= T * 2`, the length of `sums`.
            let sum = unsafe { broadcast(sums.as_ptr().add(t * 2)) };
            dot[t] = [_mm512_dpwssd_epi32(zero, offset, sum); P];
        }
        for k in 0..8 {
            let mut w = [zero; P];
            for p in 0..P {
                w[p] = load_codes(&panels[p].codes[j * 8 + k]);
            }
            for t in 0..T {
                // SAFETY: `t * 32 + k * 4 + 4 <= T * 32`, the length of `q`.
                let x = unsafe { broadcast(q.as_ptr().add(t * 32 + k * 4)) };
                for p in 0..P {
                    dot[t][p] = _mm512_dpbusd_epi32(dot[t][p], w[p], x);
                }
            }
        }
        for t in 0..T {
            let dx = _mm512_set1_ps(d[t]);
            for p in 0..P {
                let scale = _mm512_mul_ps(load_f32(&panels[p].d[j]), dx);
                let term = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(dot[t][p]));
                acc[t][p].acc = _mm512_add_ps(acc[t][p].acc, term);
            }
        }
    }
    for t in 0..T {
        for p in 0..P {
            acc[t][p].store(&mut state[(t * P + p) * State::LEN..]);
        }
    }
}
