//! One field of consecutive blocks, or pieces of four of them, collected in a register.

use std::arch::x86_64::*;

/// The `LEN` bytes at byte `AT` of `BLOCKS` consecutive blocks of `BYTES` bytes, in order; what follows them is
/// arbitrary.
///
/// Most fields have places of their own within the 64 bytes in which they lie, so that masked loads collect them in
/// one register and one permutation puts them in order. Where two fields meet, two registers hold half of them each.
///
/// # Safety
/// The CPU has the tier; the blocks can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
pub(super) unsafe fn fields<const BYTES: usize, const AT: usize, const LEN: usize, const BLOCKS: usize>(
    w: *const u8,
) -> __m512i {
    let order = vector(const { order(BYTES, AT, LEN, BLOCKS) });
    // SAFETY: as the caller promises.
    unsafe {
        let first = collect::<BYTES, AT, LEN, BLOCKS, 0>(w);
        if const { parts(BYTES, LEN, BLOCKS) == 1 } {
            _mm512_permutexvar_epi8(order, first)
        } else {
            _mm512_permutex2var_epi8(first, order, collect::<BYTES, AT, LEN, BLOCKS, 1>(w))
        }
    }
}

/// The fields of part `PART` of the blocks, each byte where it lies within its 64 bytes.
///
/// # Safety
/// As for [`fields`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn collect<
    const BYTES: usize,
    const AT: usize,
    const LEN: usize,
    const BLOCKS: usize,
    const PART: usize,
>(
    w: *const u8,
) -> __m512i {
    let mut bytes = _mm512_setzero_si512();
    for line in 0..(BLOCKS * BYTES).div_ceil(64) {
        let mask = const { masks(BYTES, AT, LEN, BLOCKS, PART) }[line];
        if mask != 0 {
            // SAFETY: only bytes of fields are read, which lie in the blocks that the caller vouches for.
            bytes = unsafe { _mm512_mask_loadu_epi8(bytes, mask, w.add(64 * line).cast()) };
        }
    }
    bytes
}

/// How many registers the fields need: one or two.
const fn parts(bytes: usize, len: usize, blocks: usize) -> usize {
    if apart(bytes, len, blocks) {
        return 1;
    }
    assert!(blocks.is_multiple_of(2) && apart(bytes, len, blocks / 2), "fields need more than two registers");
    2
}

/// Whether no two fields of some blocks have the same place within their 64 bytes.
const fn apart(bytes: usize, len: usize, blocks: usize) -> bool {
    let mut taken = 0u64;
    let mut i = 0;
    while i < blocks * len {
        let place = 1 << ((bytes * (i / len) + i % len) % 64);
        if taken & place != 0 {
            return false;
        }
        taken |= place;
        i += 1;
    }
    true
}

/// Which bytes of each 64 are fields of the blocks of part `part`.
const fn masks(bytes: usize, at: usize, len: usize, blocks: usize, part: usize) -> [u64; 64] {
    let mut masks = [0; 64];
    let mut i = 0;
    while i < blocks * len {
        if i / len / (blocks / parts(bytes, len, blocks)) == part {
            let byte = bytes * (i / len) + at + i % len;
            masks[byte / 64] |= 1 << (byte % 64);
        }
        i += 1;
    }
    masks
}

/// The place of each byte of the fields in order; those of a second register are from 64 on.
const fn order(bytes: usize, at: usize, len: usize, blocks: usize) -> [u8; 64] {
    let part = blocks / parts(bytes, len, blocks);
    let mut order = [0; 64];
    let mut i = 0;
    while i < blocks * len {
        let block = i / len;
        order[i] = ((bytes * block + at + i % len) % 64 + block / part * 64) as u8;
        i += 1;
    }
    order
}

/// 16 bytes at each of `p`, `p + STEP`, `p + 2 * STEP`, `p + 3 * STEP`, one per 128-bit lane: one permutation of 64
/// bytes has the first three.
///
/// # Safety
/// The CPU has the tier; the bytes can be read, and so can the 64 bytes from `p` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
pub(super) unsafe fn near_lanes<const STEP: usize>(p: *const u8) -> __m512i {
    const { assert!(2 * STEP + 16 <= 64) };
    let order = vector(const { lanes(STEP) });
    // SAFETY: as the caller promises.
    let (near, last) = unsafe { (_mm512_loadu_si512(p.cast()), _mm_loadu_si128(p.add(3 * STEP).cast())) };
    _mm512_mask_broadcast_i32x4(_mm512_permutexvar_epi8(order, near), 0xf000, last)
}

/// Where the bytes of each lane lie, from the first lane on; the last lane is arbitrary.
const fn lanes(step: usize) -> [u8; 64] {
    let mut order = [0; 64];
    let mut i = 0;
    while i < 48 {
        order[i] = (step * (i / 16) + i % 16) as u8;
        i += 1;
    }
    order
}

/// A table as a register.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn vector(table: [u8; 64]) -> __m512i {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(table.as_ptr().cast()) }
}
