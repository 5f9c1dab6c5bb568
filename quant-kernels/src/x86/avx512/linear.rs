//! One token: weights are read in file order, 16 consecutive blocks at a time, whatever rows they belong to.
//!
//! One linear stream is what the memory system follows best. The 16 blocks give 16 terms of the f32 sums, stored in
//! block order; after 16 rows the terms are transposed and added in the order of the contract, lane = row.
//! A type brings the terms ([`Linear`]).

use crate::matmul::Tile;
use std::arch::x86_64::*;

/// The activations of one token, arranged as a type's [`Linear::terms`] reads them.
#[derive(Clone, Copy)]
pub(super) struct X {
    /// Up to three arrays of [`Linear::PARTS`] bytes per block, from the first of the 16 blocks on.
    pub parts: [*const u8; 3],
    /// Scales of the 16 blocks.
    pub d: __m512,
}

/// A weight type's dot products, block by block.
pub(super) trait Linear {
    /// Values in a block.
    const VALUES: usize;
    /// Bytes in a block.
    const BYTES: usize;
    /// Whether there are terms of minima.
    const MINIMA: bool;
    /// Bytes of arranged activations per block, in each of three arrays.
    const PARTS: [usize; 3];

    /// Arranges the codes `q` and sums of 16 codes of one block.
    fn arrange(q: &[i8], sums: &[i16], parts: [&mut [u8]; 3]);

    /// The terms of 16 consecutive blocks, `(d * dx) * isum`, and those of the minima.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of 16 blocks can be read from `w` on, and those of 16 blocks from each part.
    unsafe fn terms(w: *const u8, x: X) -> [__m512; 2];
}

/// How far ahead of their use weights are requested.
const AHEAD: usize = 16 << 10;
/// Activations go on after the last block with the first ones: a unit of 16 blocks may begin at any block.
const WRAP: usize = 15;

/// The matmul of a tile with one token.
///
/// # Safety
/// The CPU has the tier.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn tile<L: Linear>(tile: &mut Tile<'_>) {
    let blocks = tile.acts.cols / L::VALUES;
    let mut arranged = std::mem::take(&mut tile.scratch.panel);
    let starts = arrange::<L>(tile, blocks, &mut arranged);
    let mut terms = std::mem::take(&mut tile.scratch.acc);
    let minima = 16 * blocks + 16;
    terms.resize(2 * minima, 0.0);
    for row in (0..tile.rows).step_by(16) {
        let rows = (tile.rows - row).min(16);
        let bytes = &tile.weight[row * tile.row_bytes..][..rows * tile.row_bytes];
        let mut first = 0;
        for (unit, bytes) in bytes.chunks(16 * L::BYTES).enumerate() {
            let d = arranged[starts[3] + 4 * first..][..64].as_ptr();
            let part = |i: usize| arranged[starts[i] + L::PARTS[i] * first..][..16 * L::PARTS[i]].as_ptr();
            // SAFETY: 64 bytes, checked.
            let x = X { parts: [part(0), part(1), part(2)], d: unsafe { _mm512_loadu_ps(d.cast()) } };
            let [term, min] = if bytes.len() == 16 * L::BYTES {
                // SAFETY: 16 blocks of weights and of each part, checked.
                unsafe { L::terms(bytes.as_ptr(), x) }
            } else {
                // SAFETY: as for `terms`.
                unsafe { last_terms::<L>(bytes, x) }
            };
            store(&mut terms[16 * unit..], term);
            if L::MINIMA {
                store(&mut terms[minima + 16 * unit..], min);
            }
            first = (first + 16) % blocks;
        }
        let mut sum = sum_rows(&terms[..minima], blocks);
        if L::MINIMA {
            sum = _mm512_sub_ps(sum, sum_rows(&terms[minima..], blocks));
        }
        let mut out = [0f32; 16];
        store(&mut out, sum);
        tile.store(0, row, &out[..rows]);
    }
    tile.scratch.acc = terms;
    tile.scratch.panel = arranged;
}

/// The terms of the last blocks of a tile, fewer than 16.
///
/// # Safety
/// The CPU has the tier; `x` as for [`Linear::terms`].
#[cold]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn last_terms<L: Linear>(bytes: &[u8], x: X) -> [__m512; 2] {
    /// 16 blocks of the largest type.
    const ROOM: usize = 16 * 256;
    let mut staged = [0u8; ROOM];
    staged[..bytes.len()].copy_from_slice(bytes);
    const { assert!(16 * L::BYTES <= ROOM) };
    // SAFETY: the staging buffer holds 16 blocks; the rest is as the caller promises.
    unsafe { L::terms(staged.as_ptr(), x) }
}

/// Fills `arranged` with the three parts and the scales; returns where each begins, aligned in memory.
fn arrange<L: Linear>(tile: &Tile<'_>, blocks: usize, arranged: &mut Vec<u8>) -> [usize; 4] {
    let count = blocks + WRAP;
    let sizes = L::PARTS.map(|bytes| (bytes * count).next_multiple_of(64));
    arranged.resize(sizes.iter().sum::<usize>() + 4 * count + 64, 0);
    let first = arranged.as_ptr().align_offset(64).min(64);
    let starts = [first, first + sizes[0], first + sizes[0] + sizes[1], first + sizes.iter().sum::<usize>()];
    let (a, rest) = arranged[first..].split_at_mut(sizes[0]);
    let (b, rest) = rest.split_at_mut(sizes[1]);
    let (c, d) = rest.split_at_mut(sizes[2]);
    for i in 0..count {
        let block = i % blocks;
        L::arrange(
            &tile.acts.q[block * L::VALUES..][..L::VALUES],
            &tile.acts.sums[block * L::VALUES / 16..][..L::VALUES / 16],
            [
                &mut a[L::PARTS[0] * i..][..L::PARTS[0]],
                &mut b[L::PARTS[1] * i..][..L::PARTS[1]],
                &mut c[L::PARTS[2] * i..][..L::PARTS[2]],
            ],
        );
        d[4 * i..][..4].copy_from_slice(&tile.acts.d[block].to_ne_bytes());
    }
    starts
}

/// Adds the terms of 16 rows, `[row][blocks]`, block after block; lane = row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn sum_rows(terms: &[f32], blocks: usize) -> __m512 {
    assert!(terms.len() >= 16 * blocks + 16);
    let mut acc = _mm512_setzero_ps();
    for first in (0..blocks).step_by(16) {
        // SAFETY: `15 * blocks + first + 16 <= 16 * blocks + 16`, checked. What lies beyond a row's end is not added.
        let row = |r: usize| unsafe { _mm512_loadu_ps(terms.as_ptr().add(r * blocks + first)) };
        let mut rows = [acc; 16];
        for r in 0..16 {
            rows[r] = row(r);
        }
        let columns = transpose(rows);
        for column in &columns[..(blocks - first).min(16)] {
            acc = _mm512_add_ps(acc, *column);
        }
    }
    acc
}

/// Transposes 16 x 16 floats.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn transpose(rows: [__m512; 16]) -> [__m512; 16] {
    let mut a = rows;
    // Pairs of rows: a[4i + {0, 1, 2, 3}] becomes, in every 128-bit lane, columns 0 to 3 of rows 4i..4i + 4.
    for i in (0..16).step_by(4) {
        let (r0, r1, r2, r3) = (rows[i], rows[i + 1], rows[i + 2], rows[i + 3]);
        let low = [_mm512_unpacklo_ps(r0, r1), _mm512_unpacklo_ps(r2, r3)].map(|v| _mm512_castps_pd(v));
        let high = [_mm512_unpackhi_ps(r0, r1), _mm512_unpackhi_ps(r2, r3)].map(|v| _mm512_castps_pd(v));
        a[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(low[0], low[1]));
        a[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low[0], low[1]));
        a[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high[0], high[1]));
        a[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high[0], high[1]));
    }
    // Lane l of a[4i + c] is column 4l + c of rows 4i..4i + 4.
    let mut out = a;
    for c in 0..4 {
        let even = _mm512_shuffle_f32x4::<0x88>(a[c], a[4 + c]);
        let odd = _mm512_shuffle_f32x4::<0xdd>(a[c], a[4 + c]);
        let even2 = _mm512_shuffle_f32x4::<0x88>(a[8 + c], a[12 + c]);
        let odd2 = _mm512_shuffle_f32x4::<0xdd>(a[8 + c], a[12 + c]);
        out[c] = _mm512_shuffle_f32x4::<0x88>(even, even2);
        out[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd, odd2);
        out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even, even2);
        out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd, odd2);
    }
    out
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(out: &mut [f32], v: __m512) {
    let out = &mut out[..16];
    // SAFETY: 16 floats.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
}

/// 64 bytes.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn load(p: *const u8) -> __m512i {
    // SAFETY: as the caller promises.
    unsafe { _mm512_loadu_si512(p.cast()) }
}

/// Requests the `BYTES` bytes that follow those at `p` after [`AHEAD`]. Kernels spread these calls over their work: many
/// requests at once are slower than none.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn request<const BYTES: usize>(p: *const u8) {
    request_bytes(p, BYTES);
}

/// [`request`] where the number of bytes is a constant of a generic type.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn request_bytes(p: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(AHEAD + line).cast());
    }
}

/// 16 bytes at each of `p`, `p + step`, `p + 2 * step`, `p + 3 * step`, one per 128-bit lane.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn load_lanes(p: *const u8, step: usize) -> __m512i {
    // SAFETY: as the caller promises.
    let lane = |i: usize| unsafe { _mm_loadu_si128(p.add(i * step).cast()) };
    let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(lane(0)), lane(1));
    let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(lane(2)), lane(3));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// The f16 at byte `AT` of 16 consecutive blocks of `BYTES` bytes. As `BYTES / 2` is odd, the 16 words have places of
/// their own within the 64 bytes in which they lie, so masked loads collect them in one register.
///
/// # Safety
/// The CPU has the tier; the blocks can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn scales<const BYTES: usize, const AT: usize>(w: *const u8) -> __m512 {
    const { assert!(BYTES % 4 == 2 && AT.is_multiple_of(2)) };
    let mut words = _mm512_setzero_si512();
    for line in 0..(16 * BYTES).div_ceil(64) {
        let mask = const { masks::<BYTES, AT>() }[line];
        if mask != 0 {
            // SAFETY: only words of scales are read, which lie in the blocks that the caller vouches for.
            words = unsafe { _mm512_mask_loadu_epi16(words, mask, w.add(64 * line).cast()) };
        }
    }
    let order = const { order::<BYTES, AT>() };
    // SAFETY: 32 bytes.
    let order = _mm512_castsi256_si512(unsafe { _mm256_loadu_si256(order.as_ptr().cast()) });
    _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi16(order, words)))
}

/// Which words of each 64 bytes are scales.
const fn masks<const BYTES: usize, const AT: usize>() -> [u32; 64] {
    let mut masks = [0; 64];
    let mut block = 0;
    while block < 16 {
        let at = BYTES * block + AT;
        masks[at / 64] |= 1 << (at % 64 / 2);
        block += 1;
    }
    masks
}

/// The word of each block's scale.
const fn order<const BYTES: usize, const AT: usize>() -> [u16; 16] {
    let mut order = [0; 16];
    let mut block = 0;
    while block < 16 {
        order[block] = ((BYTES * block + AT) % 64 / 2) as u16;
        block += 1;
    }
    order
}

/// Adds the 128-bit lanes of four registers: lane `i` of the result is the sum of the lanes of argument `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn add_lanes(v: [__m512i; 4]) -> __m512i {
    let (ab, cd) = (add_lane_pairs(v[0], v[1]), add_lane_pairs(v[2], v[3]));
    add_lane_pairs(ab, cd)
}

/// Adds neighbouring 128-bit lanes: (a0 + a1, a2 + a3, b0 + b1, b2 + b3).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn add_lane_pairs(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b))
}

/// Four registers, a block per 128-bit lane, to the sums of the 16 blocks in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn add_dwords(v: [__m512i; 4]) -> __m512i {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    in_order(_mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd)))
}

/// Dword 0 of every lane of four registers, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn first_dwords(v: [__m512i; 4]) -> __m512i {
    let (ab, cd) = (_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpacklo_epi32(v[2], v[3]));
    in_order(_mm512_unpacklo_epi64(ab, cd))
}

/// Dword 3 of every lane of four registers, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn last_dwords(v: [__m512i; 4]) -> __m512i {
    let (ab, cd) = (_mm512_unpackhi_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[2], v[3]));
    in_order(_mm512_unpackhi_epi64(ab, cd))
}

/// Element `4l + e` to place `4e + l`.
#[inline]
#[target_feature(enable = "avx512f")]
fn in_order(v: __m512i) -> __m512i {
    _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), v)
}

/// The terms `(d * dx) * sum`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn term(d: __m512, x: X, sum: __m512i) -> __m512 {
    _mm512_mul_ps(_mm512_mul_ps(d, x.d), _mm512_cvtepi32_ps(sum))
}
