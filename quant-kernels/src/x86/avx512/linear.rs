//! Few tokens: weights are read in file order, 16 consecutive blocks at a time, whatever rows they belong to.
//!
//! One linear stream is what the memory system follows best. The 16 blocks give 16 terms of the f32 sums of each token,
//! stored in block order; after some rows the terms are transposed and added in the order of the contract, lane = row.
//! A type brings the terms ([`Linear`]); it decodes a block once for all tokens.

use super::fields::fields;
use super::row_sums::RowSums;
pub(super) use super::sums::{
    add_dword_pairs, add_dword_twos, add_lanes, add_products, first_dwords, four_blocks, four_columns, fours,
    last_dwords, sixteen_blocks, sixteen_columns, sixteen_halves,
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
    /// How many bytes ahead of their use weights are requested.
    const AHEAD: usize = 16 << 10;
    /// Fours of blocks that [`fours`] reads by instructions of their own. The CPU fetches ahead for an instruction whose
    /// reads are near each other: measured on Zen 5, types of 1.7 KiB to 16 blocks gain from it and those of 2.1 KiB do not,
    /// and nearer is better. With fewer than four, what the turns share is loaded once.
    const UNROLLED: usize = if 16 * Self::BYTES <= 2048 { 4 } else { 2 };
    /// Bytes of arranged activations per block, in each of three arrays.
    const PARTS: [usize; 3];
    /// Whether blocks are multiplied two at a time: in the first array, `arrange` leaves the upper halves of all lines
    /// of 64 bytes to the next block's lower halves.
    const PAIRS: bool = false;

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

    /// [`Linear::terms`] of `count` times 16 terms. Token `t` gets plane `t` of `planes`, and plane `T + t` for minima.
    ///
    /// # Safety
    /// As for [`Linear::terms`], of all the blocks and of the activations from any block of the walk on; the planes have
    /// room.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn all_terms<const T: usize>(w: *const u8, count: usize, walk: &mut Walk, planes: Planes) {
        // SAFETY: as the caller promises.
        unsafe {
            if Self::UNROLLED < 4 {
                units_apart::<Self, T>(w, count, walk, planes);
            } else {
                units::<Self, T>(w, count, walk, planes);
            }
        }
    }
}

/// [`Linear::all_terms`], in line.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn units<L: Linear + ?Sized, const T: usize>(
    w: *const u8,
    count: usize,
    walk: &mut Walk,
    planes: Planes,
) {
    let (mut w, mut planes) = (w, planes);
    for _ in 0..count {
        // SAFETY: as the caller promises.
        unsafe { planes.store::<L, T>(L::terms::<T>(w, walk.next::<L>())) };
        w = w.wrapping_add(16 / L::TERMS * L::BYTES);
    }
}

/// [`Linear::all_terms`] as a function by itself.
///
/// # Safety
/// As there.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn units_apart<L: Linear + ?Sized, const T: usize>(
    w: *const u8,
    count: usize,
    walk: &mut Walk,
    planes: Planes,
) {
    // SAFETY: as the caller promises.
    unsafe { units::<L, T>(w, count, walk, planes) }
}

/// Activations for one unit of 16 terms after the other, row after row.
#[derive(Clone, Copy)]
pub(super) struct Walk {
    x: X,
    /// The block that comes next, of so many.
    first: usize,
    blocks: usize,
    /// Blocks from a unit's first one to the next's, modulo those of a row.
    step: usize,
}

impl Walk {
    /// For one unit.
    pub fn once(x: X) -> Self {
        Self { x, first: 0, blocks: usize::MAX, step: 0 }
    }

    /// The activations of the next unit.
    #[inline]
    pub fn next<L: Linear + ?Sized>(&mut self) -> X {
        let x = from_block::<L>(self.x, self.first);
        // No loop: around one, constants would not stay in registers.
        self.first += self.step;
        self.first -= if self.first >= self.blocks { self.blocks } else { 0 };
        x
    }
}

/// Where terms go: 16 at a time, into planes.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    place: *mut f32,
    /// Terms in a plane.
    len: usize,
}

impl Planes {
    /// Planes of `len` terms.
    pub fn new(terms: &mut [f32], len: usize) -> Self {
        Self { place: terms.as_mut_ptr(), len }
    }

    /// Stores 16 terms of each token, and goes on to the next ones.
    ///
    /// # Safety
    /// The CPU has the tier; the planes have room.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub unsafe fn store<L: Linear + ?Sized, const T: usize>(&mut self, terms: Terms<T>) {
        for t in 0..T {
            // SAFETY: as the caller promises.
            unsafe {
                _mm512_storeu_ps(self.place.add(t * self.len), terms[t][0]);
                if L::MINIMA {
                    _mm512_storeu_ps(self.place.add((T + t) * self.len), terms[t][1]);
                }
            }
        }
        self.place = self.place.wrapping_add(16);
    }
}

/// Rows whose terms are kept and then added, 16 or 8. Where rows are long, terms leave weights and activations room in
/// the first-level cache.
const fn rows_at_a_time(minima: bool, row_terms: usize) -> usize {
    if minima && row_terms > 128 { 8 } else { 16 }
}

/// The matmul of a tile with `T` tokens.
///
/// # Safety
/// The CPU has the tier.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn tile<L: Linear, const T: usize>(tile: &mut Tile<'_>) {
    const { assert!(T > 0 && T <= 4) };
    assert!(tile.acts.tokens == T, "a kernel for another number of tokens");
    let unit = const { 16 / L::TERMS };
    let blocks = tile.acts.cols / L::VALUES;
    let row_terms = blocks * L::TERMS;
    let rows_at_a_time = rows_at_a_time(L::MINIMA, row_terms);
    if blocks == 0 {
        for t in 0..T {
            (0..tile.rows).for_each(|row| tile.set(t, row, 0.0));
        }
        return;
    }
    let step = unit % blocks;
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
        let units = bytes.chunks_exact(unit * L::BYTES);
        let (count, last) = (units.len(), units.remainder());
        let mut walk = Walk { x, first: 0, step, blocks };
        let mut planes = Planes::new(terms, plane);
        // SAFETY: the blocks of 16 terms each; activations go on for as many from any of the blocks on. At most
        // `(rows * row_terms).div_ceil(16)` times 16 terms fit into a plane.
        unsafe {
            L::all_terms::<T>(bytes.as_ptr(), count, &mut walk, planes);
            if !last.is_empty() {
                planes.place = planes.place.wrapping_add(16 * count);
                last_terms::<L, T>(last, &mut walk, planes);
            }
        }
        let sums = RowSums {
            terms: &*terms,
            plane,
            row_terms,
            ahead: bytes.as_ptr_range().end.wrapping_add(L::AHEAD),
        };
        let out = match rows_at_a_time {
            8 => sums.less_minima::<T, 1>(),
            _ if L::MINIMA => sums.less_minima::<T, 2>(),
            _ => sums.of_tokens::<T>(),
        };
        for (t, out) in out.iter().enumerate() {
            tile.store(t, row, &out[..rows]);
        }
    }
    tile.scratch.acc = buffer;
    tile.scratch.arranged = arranged;
}

/// The activations from block `first` on.
#[inline]
pub(super) fn from_block<L: Linear + ?Sized>(x: X, first: usize) -> X {
    let mut x = x;
    for (part, bytes) in x.parts.iter_mut().zip(L::PARTS) {
        *part = part.wrapping_add(bytes * first);
    }
    x.scales = x.scales.wrapping_add(4 * L::TERMS * first);
    x
}

/// [`Linear::all_terms`] of the last blocks of a tile, fewer than 16 terms.
///
/// # Safety
/// As there.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn last_terms<L: Linear, const T: usize>(bytes: &[u8], walk: &mut Walk, planes: Planes) {
    /// 16 blocks of the largest type.
    const ROOM: usize = 16 * 256;
    let mut staged = [0u8; ROOM];
    staged[..bytes.len()].copy_from_slice(bytes);
    const { assert!(16 / L::TERMS * L::BYTES <= ROOM) };
    // SAFETY: the staging buffer holds 16 blocks; the rest is as the caller promises.
    unsafe {
        if L::UNROLLED < 4 {
            // Called from anywhere else, `terms` would not be in line there.
            L::all_terms::<T>(staged.as_ptr(), 1, walk, planes);
        } else {
            let mut planes = planes;
            planes.store::<L, T>(L::terms::<T>(staged.as_ptr(), walk.next::<L>()));
        }
    }
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
            let parts = [&mut *a, &mut *b, &mut *c];
            match acts.kind {
                Some(ActKind::Q256) => arrange::<L, 256>(acts, t, parts, d),
                _ => arrange::<L, 32>(acts, t, parts, d),
            }
            if L::PAIRS {
                join_next(&mut a[..blocks * L::PARTS[0]], L::PARTS[0]);
            }
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

/// Blocks of `len` activations, of which a scale is kept, to a block of `values` weights.
const fn per_block(values: usize, len: usize) -> usize {
    if values > len { values / len } else { 1 }
}

/// Codes as bytes.
#[inline]
pub(super) fn bytes(q: &[i8]) -> &[u8] {
    // SAFETY: as many bytes, and any is a u8.
    unsafe { std::slice::from_raw_parts(q.as_ptr().cast(), q.len()) }
}

/// Arranges the blocks of a token, `LEN` values each; `scales` has one for each term.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn arrange<L: Linear, const LEN: usize>(acts: &Acts, token: usize, parts: [&mut [u8]; 3], scales: &mut [u8]) {
    // Blocks of activations are finer or coarser than those of the weights.
    let together = const { per_block(L::VALUES, LEN) };
    let shared = const { L::TERMS / per_block(L::VALUES, LEN) };
    let mut scales = scales.as_chunks_mut::<4>().0.chunks_exact_mut(shared);
    let [mut a, mut b, mut c] = parts;
    for first in (0..acts.cols).step_by(L::VALUES) {
        // What a block of weights meets lies together.
        let at = acts.place(first / LEN, token, LEN);
        for (d, scales) in acts.d[at..][..together].iter().zip(&mut scales) {
            scales.fill(d.to_ne_bytes());
        }
        let at = at * LEN;
        let (here, rest) = (a.split_at_mut(L::PARTS[0]), b.split_at_mut(L::PARTS[1]));
        let last = c.split_at_mut(L::PARTS[2]);
        L::arrange(
            &acts.q[at..][..L::VALUES],
            &acts.sums[at / 16..][..L::VALUES / 16],
            [here.0, rest.0, last.0],
        );
        (a, b, c) = (here.1, rest.1, last.1);
    }
}

/// The lower halves of a block's lines to the upper halves of the lines of the block before; the first block follows the
/// last one. Where there are blocks in pairs, none begins at an odd block.
fn join_next(lines: &mut [u8], bytes: usize) {
    let lines = lines.as_chunks_mut::<64>().0;
    let (per_block, all) = (bytes / 64, lines.len());
    let step = if (all / per_block).is_multiple_of(2) { 2 } else { 1 };
    for first in (0..all).step_by(step * per_block) {
        for i in first..first + per_block {
            let mut half = [0; 32];
            half.copy_from_slice(&lines[(i + per_block) % all][..32]);
            lines[i][32..].copy_from_slice(&half);
        }
    }
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

/// Requests the bytes from `from` to `to` after `p`, [`Linear::AHEAD`] of their use: each line of memory once, in the unit of
/// blocks in which its first byte lies.
///
/// Many requests at once are slower than none, so kernels spread them over their work, and `codes`, which that work is
/// done on, pass through: the compiler would gather all requests in one place.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn request<L: Linear>(p: *const u8, from: usize, to: usize, codes: __m512i) -> __m512i {
    let mut codes = codes;
    for line in from.div_ceil(64)..to.div_ceil(64) {
        // SAFETY: a request of any address does nothing but fetch.
        unsafe {
            asm!(
                "prefetcht0 [{line}] /* {codes} */",
                line = in(reg) p.wrapping_add(L::AHEAD + 64 * line),
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
pub(super) fn request_now<L: Linear>(p: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(L::AHEAD + line).cast());
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
