//! One field of consecutive blocks, collected in a register.

use std::arch::x86_64::*;

/// The `LEN` bytes at byte `AT` of `BLOCKS` consecutive blocks of `BYTES` bytes, in order; what follows them is
/// arbitrary.
///
/// The fields must have places of their own within the 64 bytes in which they lie: masked loads collect them in one
/// register, and one permutation puts them in order.
///
/// # Safety
/// The CPU has the tier; the blocks can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
pub(super) unsafe fn fields<const BYTES: usize, const AT: usize, const LEN: usize, const BLOCKS: usize>(
    w: *const u8,
) -> __m512i {
    let mut bytes = _mm512_setzero_si512();
    for line in 0..(BLOCKS * BYTES).div_ceil(64) {
        let mask = const { masks(BYTES, AT, LEN, BLOCKS) }[line];
        if mask != 0 {
            // SAFETY: only bytes of fields are read, which lie in the blocks that the caller vouches for.
            bytes = unsafe { _mm512_mask_loadu_epi8(bytes, mask, w.add(64 * line).cast()) };
        }
    }
    _mm512_permutexvar_epi8(vector(const { order(BYTES, AT, LEN, BLOCKS) }), bytes)
}

/// Which bytes of each 64 are fields.
const fn masks(bytes: usize, at: usize, len: usize, blocks: usize) -> [u64; 64] {
    let (mut masks, mut taken) = ([0; 64], 0u64);
    let mut i = 0;
    while i < blocks * len {
        let byte = bytes * (i / len) + at + i % len;
        let place = 1 << (byte % 64);
        assert!(taken & place == 0, "two fields have the same place");
        taken |= place;
        masks[byte / 64] |= place;
        i += 1;
    }
    masks
}

/// The place of each byte of the fields in order.
const fn order(bytes: usize, at: usize, len: usize, blocks: usize) -> [u8; 64] {
    let mut order = [0; 64];
    let mut i = 0;
    while i < blocks * len {
        order[i] = ((bytes * (i / len) + at + i % len) % 64) as u8;
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
