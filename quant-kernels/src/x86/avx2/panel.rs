//! Many tokens: 8 rows of 256 values are unpacked into a [`Panel`], lane = row, so that nothing is summed across
//! lanes, and multiplied with the tokens, the activations broadcast from memory.
//!
//! Some panels and tokens, as many as a tier has registers for, make the register tile. The f32 state lives in memory, so that the walk goes block by
//! block with its panels in the first-level cache.

use super::format::{Blocks, CHUNKS, Format, LANES, pairs, steps, transposed};
use super::product::Product;
use crate::activations::Acts;
use crate::matmul::Tile;
use std::arch::x86_64::*;

/// 8 rows of 256 values, lane = row.
#[derive(Clone, Copy)]
pub(super) struct Panel {
    /// Codes: values `4k..4k + 4` of each row.
    codes: [__m256i; 64],
    /// Super-blocks: the scale of each run, as i32 for products by fours, else twice as i16.
    scales: [__m256i; 16],
    /// Super-blocks: factors of the sums of values `32j..32j + 16` and `32j + 16..32j + 32`, as two i16.
    sums: [__m256i; CHUNKS],
    /// Scales: of each float step, or of the super-block (first).
    d: [__m256; 16],
    /// Scales of the minima: of each block of 32, or of the super-block (first).
    dmin: [__m256; CHUNKS],
}

/// The activations of a step: up to 256 values of some tokens from `token` on.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    acts: &'a Acts,
    /// The first value.
    first: usize,
    token: usize,
    values: usize,
}

/// Tokens whose f32 state is kept at a time.
const GROUP: usize = 256;
/// Bytes of 256 values in the widest format.
const MOST_BYTES: usize = 272;

/// What must be subtracted from the codes of a panel.
const fn offset<F: Format, X: Product>() -> i16 {
    if F::SIGNED && X::FOURS { 128 } else { F::OFFSET }
}

/// Floats of state for each panel and token: 8 sums, and 8 of minima.
const fn state_len<F: Format>() -> usize {
    if F::MINIMA { 2 * LANES } else { LANES }
}

/// The matmul of a tile by `P` panels and `T` tokens at a time.
///
/// # Safety
/// The CPU has the tier of `X`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn tile<F: Format, X: Product, const P: usize, const T: usize>(tile: &mut Tile<'_>) {
    const { assert!(F::BYTES * (256 / F::VALUES) <= MOST_BYTES) };
    let (cols, row_bytes) = (tile.acts.cols, tile.row_bytes);
    assert_eq!(cols / F::VALUES * F::BYTES, row_bytes, "rows of another length than the activations");
    let zero = _mm256_setzero_si256();
    let zeros = _mm256_setzero_ps();
    let empty =
        Panel { codes: [zero; 64], scales: [zero; 16], sums: [zero; 8], d: [zeros; 16], dmin: [zeros; 8] };
    let mut panels = [empty; P];
    let mut state = std::mem::take(&mut tile.scratch.acc);
    let stride = P * state_len::<F>();
    for first_token in (0..tile.acts.tokens).step_by(GROUP) {
        let tokens = GROUP.min(tile.acts.tokens - first_token);
        for first_row in (0..tile.rows).step_by(LANES * P) {
            let live = (tile.rows - first_row).min(LANES * P);
            state.clear();
            state.resize(tokens * stride, 0.0);
            for first in (0..cols).step_by(256) {
                let values = (cols - first).min(256);
                let (at, bytes) = (first / F::VALUES * F::BYTES, values / F::VALUES * F::BYTES);
                for (p, panel) in panels[..live.div_ceil(LANES)].iter_mut().enumerate() {
                    let row = first_row + LANES * p;
                    let mut staged = [0u8; LANES * MOST_BYTES];
                    let blocks = if tile.rows - row >= LANES {
                        Blocks { base: tile.weight[row * row_bytes + at..].as_ptr(), stride: row_bytes }
                    } else {
                        for (row, out) in (row..tile.rows).zip(staged.chunks_exact_mut(bytes)) {
                            out.copy_from_slice(&tile.row(row)[at..][..bytes]);
                        }
                        Blocks { base: staged.as_ptr(), stride: bytes }
                    };
                    // SAFETY: 8 rows of the tile, or of the staging buffer, hold these values.
                    unsafe { unpack::<F, X>(blocks, values, panel) };
                    // Meanwhile the rows after these panels are fetched, in the order in which they lie in the file.
                    let next = tile.weight.as_ptr().wrapping_add((first_row + LANES * P) * row_bytes);
                    let next = next.wrapping_add(LANES * at + p * row_bytes * LANES);
                    for line in (0..LANES * bytes).step_by(64) {
                        _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(line).cast());
                    }
                }
                let mut t = 0;
                while t < tokens {
                    let x = Span { acts: tile.acts, first, token: first_token + t, values };
                    let state = &mut state[t * stride..];
                    // SAFETY: the CPU has the tier; the tokens from `t` on are there.
                    t += unsafe {
                        if t + T <= tokens {
                            X::step::<F, P, T>(&panels, x, state);
                            T
                        } else {
                            X::step::<F, P, 1>(&panels, x, state);
                            1
                        }
                    };
                }
            }
            let mut out = [[0f32; LANES]; P];
            for (t, state) in state.chunks_exact(stride).enumerate() {
                for (out, state) in out.iter_mut().zip(state.chunks_exact(state_len::<F>())) {
                    let (acc, accm) = state.split_at(LANES);
                    out.copy_from_slice(acc);
                    for (out, accm) in out.iter_mut().zip(accm) {
                        *out -= accm;
                    }
                }
                tile.store(first_token + t, first_row, &out.as_flattened()[..live]);
            }
        }
    }
    tile.scratch.acc = state;
}

/// Unpacks the next `values` values of 8 rows, a whole number of blocks.
///
/// # Safety
/// The CPU has AVX2 and F16C; the bytes of the values can be read.
#[target_feature(enable = "avx2,f16c")]
unsafe fn unpack<F: Format, X: Product>(mut blocks: Blocks, values: usize, panel: &mut Panel) {
    for b in 0..values / F::VALUES {
        let mut codes = [[_mm256_setzero_si256(); CHUNKS]; LANES];
        for (i, codes) in codes.iter_mut().enumerate() {
            // SAFETY: as the caller promises.
            *codes = unsafe { F::codes(blocks.at(i)) };
        }
        for c in 0..F::VALUES / 32 {
            let mut rows = [_mm256_setzero_si256(); LANES];
            for (row, codes) in rows.iter_mut().zip(&codes) {
                *row = codes[c];
            }
            if F::SIGNED && X::FOURS {
                for row in &mut rows {
                    *row = _mm256_xor_si256(*row, _mm256_set1_epi8(i8::MIN));
                }
            }
            let at = (b * (F::VALUES / 32) + c) * 8;
            panel.codes[at..at + 8].copy_from_slice(&transposed(rows));
        }
        // SAFETY: as the caller promises.
        unsafe {
            let d = F::d(blocks);
            panel.d[b * steps::<F>()..][..steps::<F>()].copy_from_slice(&d[..steps::<F>()]);
            panel.dmin[b] = F::dmin(blocks);
            if F::STEPS.is_super() {
                unpack_scales::<F, X>(blocks, panel);
            }
        }
        blocks = blocks.next(F::BYTES);
    }
}

/// Unpacks the integer scales and minima of a super-block of 8 rows.
///
/// # Safety
/// The CPU has AVX2; the blocks can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack_scales<F: Format, X: Product>(blocks: Blocks, panel: &mut Panel) {
    let (mut scales, mut mins) = ([_mm256_setzero_si256(); LANES], [_mm256_setzero_si256(); LANES]);
    for i in 0..LANES {
        // SAFETY: as the caller promises.
        unsafe {
            scales[i] = _mm256_cvtepi8_epi16(F::scales(blocks.at(i)));
            mins[i] = _mm256_cvtepu8_epi16(F::mins(blocks.at(i)));
        }
    }
    let scales = transposed(scales);
    for (j, &pair) in scales.iter().enumerate() {
        let low = _mm256_slli_epi32::<16>(pair);
        if F::STEPS.run() == 32 {
            panel.scales[j] = if X::FOURS { _mm256_srai_epi32::<16>(pair) } else { pair };
        } else if X::FOURS {
            panel.scales[2 * j] = _mm256_srai_epi32::<16>(low);
            panel.scales[2 * j + 1] = _mm256_srai_epi32::<16>(pair);
        } else {
            let high = _mm256_srli_epi32::<16>(pair);
            panel.scales[2 * j] = _mm256_blend_epi16::<0b1010_1010>(pair, low);
            panel.scales[2 * j + 1] = _mm256_blend_epi16::<0b1010_1010>(high, pair);
        }
    }
    if F::MINIMA {
        panel.sums = transposed(mins);
    } else {
        for (sums, scales) in panel.sums.iter_mut().zip(scales) {
            *sums = _mm256_mullo_epi16(scales, _mm256_set1_epi16(-offset::<F, X>()));
        }
    }
}

/// Four codes, or two sums, in every lane.
///
/// # Safety
/// The CPU has AVX2; four bytes can be read.
#[inline(always)]
unsafe fn broadcast<T>(p: *const T) -> __m256i {
    // SAFETY: as the caller promises.
    unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
}

/// Adds up to 256 values of `T` tokens to the state, `[T][P]`.
///
/// # Safety
/// The CPU has the tier of `X`, for which the caller is compiled.
#[inline(always)]
pub(super) unsafe fn step<F: Format, X: Product, const P: usize, const T: usize>(
    panels: &[Panel; P],
    x: Span<'_>,
    state: &mut [f32],
) {
    assert!(state.len() >= T * P * state_len::<F>() && x.values <= 256 && x.token + T <= x.acts.tokens);
    // SAFETY: as the caller promises.
    unsafe {
        if F::STEPS.is_super() {
            super_block::<F, X, P, T>(panels, x, state);
        } else {
            float_steps::<F, X, P, T>(panels, x, state);
        }
    }
}

/// A number that the compiler does not know the bounds of: a loop to it is not unrolled, which would neither fit the
/// registers nor the cache of decoded instructions.
#[inline(always)]
fn opaque(count: usize) -> usize {
    std::hint::black_box(count)
}

/// Adds to `sums` the products of one run of values, scaled in i16 unless they are made by fours.
///
/// # Safety
/// The CPU has the tier of `X`; the run's codes, from the panels' register `first` on, are within them; from `q` on a run of `T` tokens, `len` values apart, can be read.
#[inline(always)]
unsafe fn products<F: Format, X: Product, const P: usize, const T: usize>(
    panels: &[Panel; P],
    first: usize,
    (q, len): (*const i8, usize),
    scales: [__m256i; P],
    sums: &mut [[__m256i; P]; T],
) {
    // SAFETY: as the caller promises.
    unsafe {
        let zero = _mm256_setzero_si256();
        let group = if X::FOURS || F::SIGNED { 1 } else { pairs::<F>() };
        for k in (first..first + F::STEPS.run() / 4).step_by(group) {
            let mut twos = [[zero; P]; T];
            for k in k..k + group {
                let mut w = [zero; P];
                for p in 0..P {
                    w[p] = *panels[p].codes.get_unchecked(k);
                }
                for t in 0..T {
                    let x = broadcast(q.add(t * len + 4 * (k - first)));
                    for p in 0..P {
                        if X::FOURS {
                            sums[t][p] = X::fours(sums[t][p], w[p], x);
                        } else if F::SIGNED {
                            // |code| is at most 128 (as u8) and |x| at most 127: 2 * 128 * 127 fits.
                            let x = _mm256_sign_epi8(x, w[p]);
                            twos[t][p] = _mm256_maddubs_epi16(_mm256_abs_epi8(w[p]), x);
                        } else {
                            twos[t][p] = _mm256_add_epi16(twos[t][p], _mm256_maddubs_epi16(w[p], x));
                        }
                    }
                }
            }
            if !X::FOURS {
                for t in 0..T {
                    for p in 0..P {
                        sums[t][p] = X::twos(sums[t][p], twos[t][p], scales[p]);
                    }
                }
            }
        }
    }
}

/// Super-blocks: integer scales, one float step.
///
/// # Safety
/// As for [`step`], which has checked its arguments.
#[inline(always)]
unsafe fn super_block<F: Format, X: Product, const P: usize, const T: usize>(
    panels: &[Panel; P],
    x: Span<'_>,
    state: &mut [f32],
) {
    let at = x.first / 256 * x.acts.tokens + x.token;
    let (q, sums, d) =
        (&x.acts.q[at * 256..][..T * 256], &x.acts.sums[at * 16..][..T * 16], &x.acts.d[at..][..T]);
    // SAFETY: as the caller promises; the activations are those of T tokens.
    unsafe {
        let zero = _mm256_setzero_si256();
        let mut isum = [[zero; P]; T];
        let run = F::STEPS.run();
        for j in 0..opaque(x.values / run) {
            let mut scales = [zero; P];
            for p in 0..P {
                scales[p] = *panels[p].scales.get_unchecked(j);
            }
            if X::FOURS {
                let mut dot = [[zero; P]; T];
                products::<F, X, P, T>(
                    panels,
                    j * (run / 4),
                    (q.as_ptr().add(j * run), 256),
                    scales,
                    &mut dot,
                );
                for t in 0..T {
                    for p in 0..P {
                        isum[t][p] = _mm256_add_epi32(isum[t][p], _mm256_mullo_epi32(dot[t][p], scales[p]));
                    }
                }
            } else {
                products::<F, X, P, T>(
                    panels,
                    j * (run / 4),
                    (q.as_ptr().add(j * run), 256),
                    scales,
                    &mut isum,
                );
            }
        }
        let mut sum = if F::MINIMA { [[zero; P]; T] } else { isum };
        if F::MINIMA || offset::<F, X>() != 0 {
            for j in 0..x.values / 32 {
                for t in 0..T {
                    let x = broadcast(sums.as_ptr().add(t * 16 + 2 * j));
                    for p in 0..P {
                        sum[t][p] = X::twos(sum[t][p], panels[p].sums[j], x);
                    }
                }
            }
        }
        for t in 0..T {
            let dx = _mm256_set1_ps(d[t]);
            for p in 0..P {
                let state = state[(t * P + p) * state_len::<F>()..].as_mut_ptr();
                if F::MINIMA {
                    fold(state, panels[p].d[0], dx, isum[t][p]);
                    fold(state.add(LANES), panels[p].dmin[0], dx, sum[t][p]);
                } else {
                    fold(state, panels[p].d[0], dx, sum[t][p]);
                }
            }
        }
    }
}

/// `acc + (d * dx) * isum` in memory: multiply, then add.
///
/// # Safety
/// The CPU has AVX2; `acc` has 8 floats.
#[inline(always)]
unsafe fn fold(acc: *mut f32, d: __m256, dx: __m256, isum: __m256i) {
    // SAFETY: as the caller promises.
    unsafe {
        let term = _mm256_mul_ps(_mm256_mul_ps(d, dx), _mm256_cvtepi32_ps(isum));
        _mm256_storeu_ps(acc, _mm256_add_ps(_mm256_loadu_ps(acc), term));
    }
}

/// A float step for each run of 16 or 32.
///
/// # Safety
/// As for [`step`], which has checked its arguments.
#[inline(always)]
unsafe fn float_steps<F: Format, X: Product, const P: usize, const T: usize>(
    panels: &[Panel; P],
    x: Span<'_>,
    state: &mut [f32],
) {
    // SAFETY: as the caller promises; the activations are those of T tokens.
    unsafe {
        let zero = _mm256_setzero_si256();
        let ones = _mm256_set1_epi16(1);
        let runs = 32 / F::STEPS.run();
        for j in 0..opaque(x.values / 32) {
            // Blocks from one token to the next.
            let stride = x.values / 32;
            let at = x.first / 32 * x.acts.tokens + x.token * stride + j;
            let end = at + (T - 1) * stride + 1;
            let (q, sums, d) =
                (&x.acts.q[at * 32..end * 32], &x.acts.sums[at * 2..end * 2], &x.acts.d[at..end]);
            for h in 0..runs {
                let s = j * runs + h;
                let mut isum = [[zero; P]; T];
                let run = (q.as_ptr().add(h * F::STEPS.run()), 32 * stride);
                products::<F, X, P, T>(panels, s * (F::STEPS.run() / 4), run, [ones; P], &mut isum);
                // The sums of the run's activations times something: of both sums of 16, or of the one.
                let times = |v: i16| {
                    let v = i32::from(v);
                    _mm256_set1_epi32(if runs == 1 { v << 16 | v } else { v << (16 * h) })
                };
                for t in 0..T {
                    let dx = _mm256_set1_ps(d[t * stride]);
                    let sum = broadcast(sums.as_ptr().add(2 * t * stride));
                    let offset = _mm256_madd_epi16(sum, times(offset::<F, X>()));
                    for p in 0..P {
                        let state = state[(t * P + p) * state_len::<F>()..].as_mut_ptr();
                        fold(state, panels[p].d[s], dx, _mm256_sub_epi32(isum[t][p], offset));
                        if F::MINIMA {
                            fold(state.add(LANES), panels[p].dmin[j], dx, _mm256_madd_epi16(sum, times(1)));
                        }
                    }
                }
            }
        }
    }
}
