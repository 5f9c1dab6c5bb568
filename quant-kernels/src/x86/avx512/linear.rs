//! Few tokens: weights are read in file order, 16 consecutive blocks at a time, whatever rows they belong to.
//!
//! One linear stream is what the memory system follows best. The 16 blocks give 16 terms of the f32 sums of each token,
//! stored in block order; after some rows the terms are transposed and added in the order of the contract, lane = row.
//! A type brings the terms ([`Linear`]); it decodes a block once for all tokens.

use super::fields::fields;
pub(super) use super::sums::{
    add_dword_pairs, add_lane_pairs, add_lanes, add_products, first_dwords, four_blocks, fours, fours_apart,
    last_dwords, sixteen_blocks,
};
use crate::activations::{ActKind, Acts};
use crate::matmul::{Arranged, Tile};
use crate::types::TileFn;
use std::arch::asm;
use std::arch::x86_64::*;

/// The activations of some tokens, arranged as a type's [`Linear::terms`] reads them, from some block on.
#[derive(Clone, Copy)]
pub(super) struct X {
    parts: [*const u8; 3],
    scales: *const u8,
    /// Bytes from a token's arrays to the next one's.
    stride: usize,
}

impl X {
    /// Array `i` of token `t`: [`Linear::PARTS`] bytes per block, from the first of the blocks on.
    #[inline]
    pub fn part(self, i: usize, t: usize) -> *const u8 {
        self.parts[i].wrapping_add(t * self.stride)
    }

    /// The terms `(d * dx) * sum` of token `t`.
    ///
    /// # Safety
    /// The scales of this token's 16 terms can be read.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub unsafe fn term(self, t: usize, d: __m512, sum: __m512i) -> __m512 {
        // SAFETY: as the caller promises.
        let dx = unsafe { _mm512_loadu_ps(self.scales.wrapping_add(t * self.stride).cast()) };
        _mm512_mul_ps(_mm512_mul_ps(d, dx), _mm512_cvtepi32_ps(sum))
    }
}

/// 16 terms of each of `T` tokens, and those of the minima.
pub(super) type Terms<const T: usize> = [[__m512; 2]; T];

/// A weight type's dot products, block by block.
pub(super) trait Linear: 'static {
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

    /// The matmul of so many tokens with so many columns, at most eight tokens, where there is a faster one than for all
    /// types.
    fn few(_tokens: usize, _cols: usize) -> Option<TileFn> {
        None
    }

    /// Arranges the codes `q` and sums of 16 codes of one block.
    fn arrange(q: &[i8], sums: &[i16], parts: [&mut [u8]; 3]);

    /// 16 terms of each token, those of `16 / TERMS` consecutive blocks: `(d * dx) * isum`, and those of the minima.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of the blocks can be read from `w` on, and those of as many blocks from each
    /// part and the scales of `T` tokens.
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T>;
}

/// How far ahead of their use weights are requested.
const AHEAD: usize = 16 << 10;

/// Rows whose terms are kept and then added. A sum waits for its last addition, so at least two registers of them are
/// under way: one of each token, or two of a single one.
const fn rows_at_a_time(tokens: usize) -> usize {
    if tokens == 1 { 32 } else { 16 }
}

/// The matmul of a tile with `T` tokens.
///
/// # Safety
/// The CPU has the tier.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn tile<L: Linear, const T: usize>(tile: &mut Tile<'_>) {
    const { assert!(T > 0 && T <= 4) };
    assert!(tile.acts.tokens == T, "a kernel for another number of tokens");
    let (unit, rows_at_a_time) = const { (16 / L::TERMS, rows_at_a_time(T)) };
    let blocks = tile.acts.cols / L::VALUES;
    let row_terms = blocks * L::TERMS;
    if blocks == 0 {
        for t in 0..T {
            (0..tile.rows).for_each(|row| tile.set(t, row, 0.0));
        }
        return;
    }
    let mut arranged = std::mem::take(&mut tile.scratch.arranged);
    let x = activations::<L, T>(tile.acts, blocks, &mut arranged);
    let mut buffer = std::mem::take(&mut tile.scratch.acc);
    // A plane of terms for each token, then one of minima for each.
    let plane = (rows_at_a_time * row_terms).next_multiple_of(16) + 16;
    buffer.resize(2 * T * plane + 16, 0.0);
    // Whole cache lines, as every store is one.
    let aligned = buffer.as_ptr().align_offset(64).min(16);
    let terms = &mut buffer[aligned..][..2 * T * plane];
    for row in (0..tile.rows).step_by(rows_at_a_time) {
        let rows = (tile.rows - row).min(rows_at_a_time);
        let bytes = &tile.weight[row * tile.row_bytes..][..rows * tile.row_bytes];
        assert!(bytes.len() == rows * blocks * L::BYTES, "rows of another length than the activations");
        let mut first = 0;
        let units = bytes.chunks_exact(unit * L::BYTES);
        let last = units.remainder();
        let mut place = terms.as_mut_ptr();
        let mut keep = |got: Terms<T>| {
            for t in 0..T {
                // SAFETY: at most `(rows * row_terms).div_ceil(16)` times 16 terms, which fit into a plane.
                unsafe {
                    _mm512_storeu_ps(place.add(t * plane), got[t][0]);
                    if L::MINIMA {
                        _mm512_storeu_ps(place.add((T + t) * plane), got[t][1]);
                    }
                }
            }
            place = place.wrapping_add(16);
        };
        for bytes in units {
            if let Some(next) = tile.next {
                request_next(tile.weight, bytes, next);
            }
            // SAFETY: the blocks of 16 terms; activations go on for as many from `first` on.
            keep(unsafe { L::terms::<T>(bytes.as_ptr(), from_block::<L>(x, first)) });
            first += unit;
            while first >= blocks {
                first -= blocks;
            }
        }
        if !last.is_empty() {
            // SAFETY: as above.
            keep(unsafe { last_terms::<L, T>(last, from_block::<L>(x, first)) });
        }
        let (terms, minima) = terms.split_at(T * plane);
        if T == 1 {
            let sums = sums_of_rows::<L, 2>(terms, minima, 16 * row_terms, row_terms);
            tile.store(0, row, &sums.as_flattened()[..rows]);
        } else {
            let sums = sums_of_rows::<L, T>(terms, minima, plane, row_terms);
            for (t, sums) in sums.iter().enumerate() {
                tile.store(t, row, &sums[..rows]);
            }
        }
    }
    tile.scratch.acc = buffer;
    tile.scratch.arranged = arranged;
}

/// Requests of the tile's next weights, which do not follow in memory, what a unit of blocks near the tile's end requests in
/// vain from beyond it.
#[inline]
#[target_feature(enable = "avx512f")]
fn request_next(tile: &[u8], unit: &[u8], next: &[u8]) {
    let end = tile.as_ptr_range().end.addr();
    let ahead = unit.as_ptr_range().end.addr() + AHEAD;
    if ahead > end {
        let to = ahead - end;
        for line in (to.saturating_sub(unit.len())..to).step_by(64) {
            _mm_prefetch::<_MM_HINT_T0>(next.as_ptr().wrapping_add(line).cast());
        }
    }
}

/// The activations from block `first` on.
#[inline]
fn from_block<L: Linear>(x: X, first: usize) -> X {
    let mut x = x;
    for (part, bytes) in x.parts.iter_mut().zip(L::PARTS) {
        *part = part.wrapping_add(bytes * first);
    }
    x.scales = x.scales.wrapping_add(4 * L::TERMS * first);
    x
}

/// The terms of the last blocks of a tile, fewer than 16 terms.
///
/// # Safety
/// The CPU has the tier; `x` as for [`Linear::terms`].
#[cold]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn last_terms<L: Linear, const T: usize>(bytes: &[u8], x: X) -> Terms<T> {
    /// 16 blocks of the largest type.
    const ROOM: usize = 16 * 256;
    let mut staged = [0u8; ROOM];
    staged[..bytes.len()].copy_from_slice(bytes);
    const { assert!(16 / L::TERMS * L::BYTES <= ROOM) };
    // SAFETY: the staging buffer holds 16 blocks; the rest is as the caller promises.
    unsafe { L::terms::<T>(staged.as_ptr(), x) }
}

/// The activations in the order of the type: what the last tile arranged, if that was the same.
///
/// A unit of 16 terms may begin at any block that is a multiple of what the unit and a row have in common, so the
/// activations go on after the last block with the first ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn activations<L: Linear, const T: usize>(acts: &Acts, blocks: usize, arranged: &mut Arranged) -> X {
    let unit = const { 16 / L::TERMS };
    let common = 1 << blocks.trailing_zeros().min(unit.trailing_zeros());
    let count = blocks + unit - common;
    let bytes = [L::PARTS[0], L::PARTS[1], L::PARTS[2], 4 * L::TERMS];
    let sizes = bytes.map(|bytes| (bytes * count).next_multiple_of(64));
    let stride = sizes.iter().sum::<usize>();
    let fill = |all: &mut [u8]| {
        for (t, all) in all.chunks_exact_mut(stride).enumerate() {
            let (a, rest) = all.split_at_mut(sizes[0]);
            let (b, rest) = rest.split_at_mut(sizes[1]);
            let (c, d) = rest.split_at_mut(sizes[2]);
            arrange::<L>(acts, t, [&mut *a, &mut *b, &mut *c], d);
            for (part, bytes) in [a, b, c, d].into_iter().zip(bytes) {
                let mut done = blocks;
                while done < count {
                    let more = blocks.min(count - done);
                    part.copy_within(..more * bytes, done * bytes);
                    done += more;
                }
            }
        }
    };
    let start = arranged.get::<L>(acts.stamp, T * stride, fill).as_ptr();
    let ends = [sizes[0], sizes[0] + sizes[1], sizes[0] + sizes[1] + sizes[2]];
    let [b, c, scales] = ends.map(|end| start.wrapping_add(end));
    X { parts: [start, b, c], scales, stride }
}

/// Arranges the blocks of a token; `scales` has one for each term.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn arrange<L: Linear>(acts: &Acts, token: usize, mut parts: [&mut [u8]; 3], scales: &mut [u8]) {
    // Blocks of activations are finer or coarser than those of the weights.
    let len = acts.kind.map_or(1, ActKind::block_len);
    let per_block = (L::VALUES / len).max(1);
    let shared = L::TERMS / per_block;
    let mut scales = scales.as_chunks_mut::<4>().0.chunks_exact_mut(shared);
    for first in (0..acts.cols).step_by(L::VALUES) {
        let mut i = 0;
        let block = parts.each_mut().map(|place| {
            let (part, rest) = std::mem::take(place).split_at_mut(L::PARTS[i]);
            (*place, i) = (rest, i + 1);
            part
        });
        // What a block of weights meets lies together.
        let at = acts.place(first / len, token, len);
        for (d, scales) in acts.d[at..][..per_block].iter().zip(&mut scales) {
            scales.fill(d.to_ne_bytes());
        }
        let at = at * len;
        L::arrange(&acts.q[at..][..L::VALUES], &acts.sums[at / 16..][..L::VALUES / 16], block);
    }
}

/// `N` times the sums of 16 rows, `step` terms apart, less those of the minima.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn sums_of_rows<L: Linear, const N: usize>(
    terms: &[f32],
    minima: &[f32],
    step: usize,
    count: usize,
) -> [[f32; 16]; N] {
    let mut sums = sum_rows::<N>(terms, step, count);
    if L::MINIMA {
        let minima = sum_rows::<N>(minima, step, count);
        for n in 0..N {
            sums[n] = _mm512_sub_ps(sums[n], minima[n]);
        }
    }
    let mut out = [[0.0; 16]; N];
    for n in 0..N {
        // SAFETY: 16 floats.
        unsafe { _mm512_storeu_ps(out[n].as_mut_ptr(), sums[n]) };
    }
    out
}

/// Adds the terms of 16 rows, `[row][count]`, one after the other, lane = row; and those of 16 rows `step` further on,
/// and so on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn sum_rows<const N: usize>(terms: &[f32], step: usize, count: usize) -> [__m512; N] {
    assert!(terms.len() >= (N - 1) * step + 16 * count + 16);
    let mut acc = [_mm512_setzero_ps(); N];
    for first in (0..count).step_by(16) {
        for n in 0..N {
            let row = |r: usize| {
                // SAFETY: `15 * count + first + 16 <= 16 * count + 16`, checked. What lies beyond a row's end is not
                // added.
                unsafe { _mm512_loadu_ps(terms.as_ptr().add(n * step + r * count + first)) }
            };
            let columns = transpose(std::array::from_fn(row));
            for column in columns.iter().take(count - first) {
                acc[n] = _mm512_add_ps(acc[n], *column);
            }
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

/// Requests the bytes from `from` to `to` after `p`, [`AHEAD`] of their use: each line of memory once, in the unit of
/// blocks in which its first byte lies.
///
/// Many requests at once are slower than none, so kernels spread them over their work, and `codes`, which that work is
/// done on, pass through: the compiler would gather all requests in one place.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn request(p: *const u8, from: usize, to: usize, codes: __m512i) -> __m512i {
    let mut codes = codes;
    for line in from.div_ceil(64)..to.div_ceil(64) {
        // SAFETY: a request of any address does nothing but fetch.
        unsafe {
            asm!(
                "prefetcht0 [{line}] /* {codes} */",
                line = in(reg) p.wrapping_add(AHEAD + 64 * line),
                codes = inout(zmm_reg) codes,
                options(readonly, nostack, preserves_flags),
            );
        }
    }
    codes
}

/// [`request`] of the `bytes` bytes after `p` for kernels in loops, which the compiler leaves as they are.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn request_now(p: *const u8, bytes: usize) {
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
