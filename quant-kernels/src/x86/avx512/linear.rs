//! One token: weights are read in file order, 16 consecutive blocks at a time, whatever rows they belong to.
//!
//! One linear stream is what the memory system follows best. The 16 blocks give 16 terms of the f32 sums, stored in
//! block order; after 32 rows the terms are transposed and added in the order of the contract, lane = row.
//! A type brings the terms ([`Linear`]).

use super::fields::fields;
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
    /// Terms of a block, a power of two: more than one where the contract's block is finer than the weights'.
    const TERMS: usize = 1;
    /// Whether there are terms of minima.
    const MINIMA: bool;
    /// Bytes of arranged activations per block, in each of three arrays.
    const PARTS: [usize; 3];

    /// Arranges the codes `q` and sums of 16 codes of one block.
    fn arrange(q: &[i8], sums: &[i16], parts: [&mut [u8]; 3]);

    /// 16 terms, those of `16 / TERMS` consecutive blocks: `(d * dx) * isum`, and those of the minima.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of the blocks can be read from `w` on, and those of as many blocks from each
    /// part.
    unsafe fn terms(w: *const u8, x: X) -> [__m512; 2];
}

/// How far ahead of their use weights are requested.
const AHEAD: usize = 16 << 10;
/// Rows whose terms are kept and then added: two registers of sums, each of which waits for its last addition.
const ROWS: usize = 32;
/// Activations go on after the last block with the first ones: a unit of 16 terms may begin at any block.
const WRAP: usize = 15;

/// The matmul of a tile with one token.
///
/// # Safety
/// The CPU has the tier.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn tile<L: Linear>(tile: &mut Tile<'_>) {
    let unit = const { 16 / L::TERMS };
    let blocks = tile.acts.cols / L::VALUES;
    let row_terms = blocks * L::TERMS;
    if blocks == 0 {
        return (0..tile.rows).for_each(|row| tile.set(0, row, 0.0));
    }
    let mut arranged = std::mem::take(&mut tile.scratch.panel);
    let starts = arrange::<L>(tile, blocks, &mut arranged);
    let starts = starts.map(|start| arranged[start..].as_ptr());
    let mut terms = std::mem::take(&mut tile.scratch.acc);
    let minima = ROWS * row_terms + 16;
    terms.resize(2 * minima + 16, 0.0);
    // Whole cache lines, as every store is one.
    let aligned = terms.as_ptr().align_offset(64).min(16);
    let terms_of_rows = &mut terms[aligned..];
    for row in (0..tile.rows).step_by(ROWS) {
        let rows = (tile.rows - row).min(ROWS);
        let bytes = &tile.weight[row * tile.row_bytes..][..rows * tile.row_bytes];
        let (terms_of, minima_of) = terms_of_rows.split_at_mut(minima);
        let mut stores = terms_of.as_chunks_mut::<16>().0.iter_mut().zip(minima_of.as_chunks_mut::<16>().0);
        let mut first = 0;
        let x = |first: usize| {
            // SAFETY: `first < blocks`, and the arrays have `blocks + WRAP` blocks, so 16 terms' from `first` on.
            unsafe {
                X {
                    parts: std::array::from_fn(|i| starts[i].add(L::PARTS[i] * first)),
                    d: _mm512_loadu_ps(starts[3].add(4 * L::TERMS * first).cast()),
                }
            }
        };
        let units = bytes.chunks_exact(unit * L::BYTES);
        let last = units.remainder();
        for (bytes, (terms, minima)) in units.zip(&mut stores) {
            // SAFETY: the blocks of 16 terms, and those of each part.
            let [term, min] = unsafe { L::terms(bytes.as_ptr(), x(first)) };
            store(terms, term);
            if L::MINIMA {
                store(minima, min);
            }
            first += unit;
            while first >= blocks {
                first -= blocks;
            }
        }
        if let (false, Some((terms, minima))) = (last.is_empty(), stores.next()) {
            // SAFETY: as for `terms`.
            let [term, min] = unsafe { last_terms::<L>(last, x(first)) };
            store(terms, term);
            if L::MINIMA {
                store(minima, min);
            }
        }
        let mut sums = sum_rows(&terms_of_rows[..minima], row_terms);
        if L::MINIMA {
            let minima = sum_rows(&terms_of_rows[minima..], row_terms);
            sums = [_mm512_sub_ps(sums[0], minima[0]), _mm512_sub_ps(sums[1], minima[1])];
        }
        let mut out = [0f32; ROWS];
        store(&mut out, sums[0]);
        store(&mut out[16..], sums[1]);
        tile.store(0, row, &out[..rows]);
    }
    tile.scratch.acc = terms;
    tile.scratch.panel = arranged;
}

/// The terms of the last blocks of a tile, fewer than 16 terms.
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
    const { assert!(16 / L::TERMS * L::BYTES <= ROOM) };
    // SAFETY: the staging buffer holds 16 blocks; the rest is as the caller promises.
    unsafe { L::terms(staged.as_ptr(), x) }
}

/// Fills `arranged` with the three parts and the scales, of `blocks + WRAP` blocks each; returns where each begins,
/// aligned in memory.
fn arrange<L: Linear>(tile: &Tile<'_>, blocks: usize, arranged: &mut Vec<u8>) -> [usize; 4] {
    let count = blocks + WRAP;
    let sizes = L::PARTS.map(|bytes| (bytes * count).next_multiple_of(64));
    arranged.resize(sizes.iter().sum::<usize>() + 4 * L::TERMS * count + 64, 0);
    let first = arranged.as_ptr().align_offset(64).min(64);
    let starts = [first, first + sizes[0], first + sizes[0] + sizes[1], first + sizes.iter().sum::<usize>()];
    let (a, rest) = arranged[first..].split_at_mut(sizes[0]);
    let (b, rest) = rest.split_at_mut(sizes[1]);
    let (c, d) = rest.split_at_mut(sizes[2]);
    let acts = tile.acts;
    let mut places = [&mut *a, &mut *b, &mut *c];
    for (q, sums) in acts.q.chunks_exact(L::VALUES).zip(acts.sums.chunks_exact(L::VALUES / 16)) {
        let mut i = 0;
        let parts = places.each_mut().map(|place| {
            let (part, rest) = std::mem::take(place).split_at_mut(L::PARTS[i]);
            (*place, i) = (rest, i + 1);
            part
        });
        L::arrange(q, sums, parts);
    }
    // Terms of an activation block: more than one where the weights' scales are finer.
    let shared = (blocks * L::TERMS / acts.d.len().max(1)).max(1);
    let scales = d.as_chunks_mut::<4>().0.chunks_exact_mut(shared);
    for (scales, d) in scales.zip(&acts.d) {
        scales.fill(d.to_ne_bytes());
    }
    let ends = [(a, L::PARTS[0]), (b, L::PARTS[1]), (c, L::PARTS[2]), (d, 4 * L::TERMS)];
    for (part, bytes) in ends {
        let mut done = blocks;
        while done < count {
            let more = blocks.min(count - done);
            part.copy_within(..more * bytes, done * bytes);
            done += more;
        }
    }
    starts
}

/// Adds the terms of the rows, `[row][count]`, one after the other; lane = row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn sum_rows(terms: &[f32], count: usize) -> [__m512; ROWS / 16] {
    assert!(terms.len() >= ROWS * count + 16);
    let mut acc = [_mm512_setzero_ps(); ROWS / 16];
    for first in (0..count).step_by(16) {
        let columns = std::array::from_fn(|half| {
            // SAFETY: `31 * count + first + 16 <= 32 * count + 16`, checked. What lies beyond a row's end is not added.
            let row =
                |r: usize| unsafe { _mm512_loadu_ps(terms.as_ptr().add((16 * half + r) * count + first)) };
            transpose(std::array::from_fn(row))
        });
        let [first_rows, last_rows] = columns;
        for (a, b) in first_rows.iter().zip(&last_rows).take(count - first) {
            acc = [_mm512_add_ps(acc[0], *a), _mm512_add_ps(acc[1], *b)];
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

/// [`request`] for the lines that begin in bytes `from..to` after `p`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn request_lines(p: *const u8, from: usize, to: usize) {
    for line in from.div_ceil(64)..to.div_ceil(64) {
        _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(AHEAD + 64 * line).cast());
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

/// The f16 at byte `AT` of 16 consecutive blocks of `BYTES` bytes.
///
/// # Safety
/// The CPU has the tier; the blocks can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
pub(super) unsafe fn scales<const BYTES: usize, const AT: usize>(w: *const u8) -> __m512 {
    // SAFETY: as the caller promises.
    _mm512_cvtph_ps(_mm512_castsi512_si256(unsafe { fields::<BYTES, AT, 2, 16>(w) }))
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

/// Two registers of eight blocks, two dwords for each, to the sums of the 16 blocks in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn add_dword_pairs(a: __m512i, b: __m512i) -> __m512i {
    let (a, b) = (_mm512_castsi512_ps(a), _mm512_castsi512_ps(b));
    let (even, odd) = (_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xdd>(a, b));
    let sums = _mm512_add_epi32(_mm512_castps_si512(even), _mm512_castps_si512(odd));
    // A lane has two sums of `a`, then two of `b`.
    _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15), sums)
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
