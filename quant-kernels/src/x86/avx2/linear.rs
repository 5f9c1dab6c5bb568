//! One token: weights are read in file order, eight consecutive blocks at a time, whatever rows they belong to.
//!
//! One linear stream is what the memory system follows best. Eight blocks give eight terms of the f32 sums (for each
//! float step of a block), stored in block order; after eight rows the terms are transposed and added in the order of
//! the contract, lane = row.

use super::format::{Blocks, Format, LANES, Steps, steps, transposed};
use super::product::Product;
use crate::matmul::Tile;
use std::arch::x86_64::*;

/// How far ahead of their use weights are requested.
const AHEAD: usize = 4 << 10;
/// Activations go on after the last block with the first ones: a unit of eight blocks may begin at any block.
const WRAP: usize = LANES - 1;
/// Most float steps in a block.
const STEPS: usize = 4;

/// The activations of one token as [`unit`] reads them, from some block on.
#[derive(Clone, Copy)]
struct X {
    /// Codes.
    q: *const i8,
    /// Super-blocks: 16 sums of 16 codes, those at even positions first if they meet scales.
    sums: *const i16,
    /// The scale of each step, plane after plane of `stride` values, and the sum of its codes.
    d: *const f32,
    sum: *const i32,
    stride: usize,
}

/// What must be subtracted from the codes as [`unit`] multiplies them.
const fn offset<F: Format, P: Product>() -> i16 {
    // Signed codes of super-blocks meet their scales in i16, so their products are made in pairs.
    if F::SIGNED && P::FOURS && !F::STEPS.is_super() { 128 } else { F::OFFSET }
}

/// The matmul of a tile with one token.
///
/// # Safety
/// The CPU has the tier of `P`, for which the caller is compiled.
#[inline(always)]
pub(super) unsafe fn rows<F: Format, P: Product>(tile: &mut Tile<'_>) {
    let blocks = tile.acts.cols / F::VALUES;
    assert!(blocks > 0 && blocks * F::BYTES == tile.row_bytes, "rows of another length than the activations");
    let mut arranged = std::mem::take(&mut tile.scratch.panel);
    let x = arrange::<F>(tile, blocks, &mut arranged);
    let mut terms = std::mem::take(&mut tile.scratch.acc);
    let plane = LANES * blocks + LANES;
    terms.resize((STEPS + 1) * plane, 0.0);
    let mut staged = [0u8; LANES * MOST_BYTES];
    for row in (0..tile.rows).step_by(LANES) {
        let count = (tile.rows - row).min(LANES);
        let bytes = &tile.weight[row * tile.row_bytes..][..count * tile.row_bytes];
        let mut first = 0;
        for (u, bytes) in bytes.chunks(LANES * F::BYTES).enumerate() {
            // SAFETY: `first < blocks`, and what is arranged goes on for eight blocks from there.
            let x = unsafe {
                X {
                    q: x.q.add(first * F::VALUES),
                    sums: x.sums.add(first * 16),
                    d: x.d.add(first),
                    sum: x.sum.add(first),
                    stride: x.stride,
                }
            };
            let base = if bytes.len() == LANES * F::BYTES {
                bytes.as_ptr()
            } else {
                staged[..bytes.len()].copy_from_slice(bytes);
                staged.as_ptr()
            };
            for line in (0..LANES * F::BYTES).step_by(64) {
                // SAFETY: a prefetch of any address does nothing but fetch; the tier is the caller's promise.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add(AHEAD + line).cast()) };
            }
            // SAFETY: eight blocks of weights (perhaps staged) and of activations; each term has eight places.
            unsafe {
                let (sums, min) = unit::<F, P>(base, x);
                for (s, sum) in sums.into_iter().enumerate().take(steps::<F>()) {
                    _mm256_storeu_ps(terms[s * plane + LANES * u..][..LANES].as_mut_ptr(), sum);
                }
                if F::MINIMA {
                    _mm256_storeu_ps(terms[STEPS * plane + LANES * u..][..LANES].as_mut_ptr(), min);
                }
            }
            first += LANES;
            while first >= blocks {
                first -= blocks;
            }
        }
        let mut out = [0f32; LANES];
        // SAFETY: the caller vouches for the tier.
        unsafe {
            let mut sum = sum_rows(&terms, plane, steps::<F>(), blocks);
            if F::MINIMA {
                sum = _mm256_sub_ps(sum, sum_rows(&terms[STEPS * plane..], plane, 1, blocks));
            }
            _mm256_storeu_ps(out.as_mut_ptr(), sum);
        }
        tile.store(0, row, &out[..count]);
    }
    tile.scratch.acc = terms;
    tile.scratch.panel = arranged;
}

/// Bytes of the largest block.
const MOST_BYTES: usize = 210;

/// Lays the activations out with what follows from [`WRAP`].
fn arrange<F: Format>(tile: &Tile<'_>, blocks: usize, arranged: &mut Vec<u8>) -> X {
    const { assert!(F::BYTES <= MOST_BYTES) };
    let (acts, count) = (tile.acts, blocks + WRAP);
    let q_bytes = (count * F::VALUES).next_multiple_of(64);
    let sums_bytes = if F::STEPS.is_super() { count * 32 } else { 0 };
    let plane = 4 * count;
    arranged.resize(q_bytes + sums_bytes + 2 * steps::<F>() * plane + 64, 0);
    let start = arranged.as_ptr().align_offset(64).min(64);
    let (q, rest) = arranged[start..].split_at_mut(q_bytes);
    let (sums, rest) = rest.split_at_mut(sums_bytes);
    let (d, rest) = rest.split_at_mut(steps::<F>() * plane);
    let sum = &mut rest[..steps::<F>() * plane];
    for i in 0..count {
        let block = i % blocks;
        let codes = &acts.q[block * F::VALUES..][..F::VALUES];
        for (out, &code) in q[i * F::VALUES..].iter_mut().zip(codes) {
            *out = code.cast_unsigned();
        }
        let of_block = &acts.sums[block * (F::VALUES / 16)..][..F::VALUES / 16];
        match F::STEPS {
            Steps::Super(_) => {
                for (k, out) in sums[i * 32..].as_chunks_mut::<2>().0.iter_mut().take(16).enumerate() {
                    let at = if F::MINIMA { k } else { k % 8 * 2 + k / 8 };
                    *out = of_block[at].to_ne_bytes();
                }
                d[4 * i..][..4].copy_from_slice(&acts.d[block].to_ne_bytes());
            }
            Steps::Float(run) => {
                for (s, sums) in of_block.chunks_exact(run / 16).enumerate() {
                    let total: i32 = sums.iter().map(|&sum| i32::from(sum)).sum();
                    let scale = acts.d[(block * F::VALUES + s * run) / 32];
                    d[s * plane + 4 * i..][..4].copy_from_slice(&scale.to_ne_bytes());
                    sum[s * plane + 4 * i..][..4].copy_from_slice(&total.to_ne_bytes());
                }
            }
        }
    }
    X {
        q: q.as_ptr().cast(),
        sums: sums.as_ptr().cast(),
        d: d.as_ptr().cast(),
        sum: sum.as_ptr().cast(),
        stride: count,
    }
}

/// The terms `(d * dx) * isum` of eight consecutive blocks, a register for each step, and those of the minima.
///
/// # Safety
/// The CPU has the tier of `P`; eight blocks can be read from `base` on, and the activations of eight blocks.
#[inline(always)]
unsafe fn unit<F: Format, P: Product>(base: *const u8, x: X) -> ([__m256; STEPS], __m256) {
    let blocks = Blocks { base, stride: F::BYTES };
    // SAFETY: as the caller promises.
    unsafe {
        let d = F::d(blocks);
        let mut terms = [_mm256_setzero_ps(); STEPS];
        let mut min = _mm256_setzero_ps();
        let term = |d: __m256, s: usize, isum: __m256i| {
            let scale = _mm256_mul_ps(d, _mm256_loadu_ps(x.d.add(s * x.stride)));
            _mm256_mul_ps(scale, _mm256_cvtepi32_ps(isum))
        };
        match F::STEPS {
            Steps::Super(_) => {
                let (mut isums, mut msums) =
                    ([_mm256_setzero_si256(); LANES], [_mm256_setzero_si256(); LANES]);
                for i in 0..LANES {
                    (isums[i], msums[i]) =
                        super_block::<F, P>(blocks.at(i), x.q.add(256 * i), x.sums.add(16 * i));
                }
                let [low, high] = across(isums);
                terms[0] = term(d[0], 0, _mm256_add_epi32(low, high));
                if F::MINIMA {
                    let [low, high] = across(msums);
                    min = term(F::dmin(blocks), 0, _mm256_add_epi32(low, high));
                }
            }
            Steps::Float(run) => {
                let mut dots = [[_mm256_setzero_si256(); LANES]; STEPS];
                for i in 0..LANES {
                    let codes = F::codes(blocks.at(i));
                    for c in 0..F::VALUES / 32 {
                        let x = _mm256_loadu_si256(x.q.add(F::VALUES * i + 32 * c).cast());
                        dots[c][i] = signed_fours::<F, P>(codes[c], x);
                    }
                }
                for c in 0..F::VALUES / 32 {
                    let halves = across(dots[c]);
                    for h in 0..32 / run {
                        let s = c * (32 / run) + h;
                        let mut isum =
                            if run == 32 { _mm256_add_epi32(halves[0], halves[1]) } else { halves[h] };
                        let sum = _mm256_loadu_si256(x.sum.add(s * x.stride).cast());
                        let offset = i32::from(offset::<F, P>());
                        if offset != 0 {
                            isum = _mm256_sub_epi32(isum, _mm256_mullo_epi32(sum, _mm256_set1_epi32(offset)));
                        }
                        terms[s] = term(d[s], s, isum);
                        if F::MINIMA {
                            min = term(F::dmin(blocks), s, sum);
                        }
                    }
                }
            }
        }
        (terms, min)
    }
}

/// Sums of four products of codes (those of [`offset`]) and activations.
///
/// # Safety
/// The CPU has the tier of `P`.
#[inline(always)]
unsafe fn signed_fours<F: Format, P: Product>(codes: __m256i, x: __m256i) -> __m256i {
    // SAFETY: as the caller promises.
    unsafe {
        let zero = _mm256_setzero_si256();
        if !F::SIGNED {
            P::fours(zero, codes, x)
        } else if P::FOURS {
            P::fours(zero, _mm256_xor_si256(codes, _mm256_set1_epi8(i8::MIN)), x)
        } else {
            // |code| is at most 128 (as u8) and |x| at most 127: 2 * 128 * 127 fits.
            P::fours(zero, _mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
        }
    }
}

/// Partial sums of one block of 256: eight lanes each of the scaled products and of the minima's.
///
/// # Safety
/// The CPU has the tier of `P`; the block, 256 codes and 16 sums can be read.
#[inline(always)]
unsafe fn super_block<F: Format, P: Product>(
    block: *const u8,
    q: *const i8,
    sums: *const i16,
) -> (__m256i, __m256i) {
    // SAFETY: as the caller promises.
    unsafe {
        let codes = F::codes(block);
        // The scales of the lower halves of the registers of codes, then those of the upper halves.
        let even_first = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
        let scales = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(F::scales(block), even_first));
        let sums = _mm256_loadu_si256(sums.cast());
        let (mut isum, mut msum) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for (c, codes) in codes.into_iter().enumerate() {
            let x = _mm256_loadu_si256(q.add(32 * c).cast());
            let pairs = if F::SIGNED {
                _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
            } else {
                _mm256_maddubs_epi16(codes, x)
            };
            let scale = _mm256_shuffle_epi8(scales, _mm256_set1_epi16(0x0100 + 0x0202 * c as i16));
            isum = P::twos(isum, pairs, scale);
        }
        if F::OFFSET != 0 {
            isum = P::twos(isum, _mm256_mullo_epi16(scales, _mm256_set1_epi16(-F::OFFSET)), sums);
        }
        if F::MINIMA {
            msum = P::twos(msum, _mm256_cvtepu8_epi16(F::mins(block)), sums);
        }
        (isum, msum)
    }
}

/// The sums of the lower and of the upper halves of eight registers.
#[inline]
#[target_feature(enable = "avx2")]
fn across(v: [__m256i; LANES]) -> [__m256i; 2] {
    let low = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    let high = _mm256_hadd_epi32(_mm256_hadd_epi32(v[4], v[5]), _mm256_hadd_epi32(v[6], v[7]));
    [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)]
}

/// Adds the terms of eight rows, `[plane][row][blocks]`, block after block and in it plane after plane; lane = row.
#[target_feature(enable = "avx2")]
fn sum_rows(terms: &[f32], plane: usize, planes: usize, blocks: usize) -> __m256 {
    assert!(planes <= STEPS && terms.len() >= planes * plane && plane >= LANES * blocks + LANES);
    let mut acc = _mm256_setzero_ps();
    for first in (0..blocks).step_by(LANES) {
        let mut columns = [[_mm256_setzero_si256(); LANES]; STEPS];
        for (s, columns) in columns.iter_mut().enumerate().take(planes) {
            let mut rows = [_mm256_setzero_si256(); LANES];
            for (r, row) in rows.iter_mut().enumerate() {
                let at = s * plane + r * blocks + first;
                // SAFETY: `7 * blocks + first + 8 <= plane`, checked. What lies beyond a row's end is not added.
                *row = unsafe { _mm256_loadu_si256(terms.as_ptr().add(at).cast()) };
            }
            *columns = transposed(rows);
        }
        for c in 0..(blocks - first).min(LANES) {
            for columns in &columns[..planes] {
                acc = _mm256_add_ps(acc, _mm256_castsi256_ps(columns[c]));
            }
        }
    }
    acc
}
