//! Two-bit codes in the order of Q2_K, Q3_K and TQ2_0: each 32 bytes hold 128 values, bit pair `j` of byte `l` being
//! value `32 j + l`.

use super::load::Rows;
use std::arch::x86_64::*;

/// The 64 bytes of a block to its 256 codes: register `j` has bit pairs `j`, values `32 j..32 j + 32` and
/// `128 + 32 j..128 + 32 j + 32`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn codes(planes: __m512i) -> [__m512i; 4] {
    let three = _mm512_set1_epi8(3);
    [
        _mm512_and_si512(planes, three),
        _mm512_and_si512(_mm512_srli_epi16::<2>(planes), three),
        _mm512_and_si512(_mm512_srli_epi16::<4>(planes), three),
        _mm512_and_si512(_mm512_srli_epi16::<6>(planes), three),
    ]
}

/// The activations of a block in the order of [`codes`].
pub(super) fn arrange(q: &[i8], out: &mut [u8]) {
    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let from = 128 * (i % 2) + 32 * (i / 2);
        *out = std::array::from_fn(|l| q[from + l] as u8);
    }
}

/// Shuffle of 16 bytes, one to a sub-block: in lane `l` the byte of the sub-block that register `j` of [`codes`] has
/// there, as eight equal i16.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn sub_block_words(j: usize) -> __m512i {
    let word = |l: usize| {
        let byte = (8 * (l / 2) + 2 * j + l % 2) as i64;
        0x8000_8000_8000_8000_u64 as i64 | byte * 0x0001_0001_0001_0001
    };
    _mm512_setr_epi64(word(0), word(0), word(1), word(1), word(2), word(2), word(3), word(3))
}

/// Shuffle of the bytes of every dword: `bytes` has the number of each, or 0x80 for zero.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn pick(bytes: u32) -> __m512i {
    let lane = |d: u32| {
        // The first byte of dword d is added to the numbers, not to the zeros.
        let numbers = (!bytes >> 7 & 0x0101_0101) * (4 * d);
        (bytes + numbers) as i32
    };
    _mm512_setr4_epi32(lane(0), lane(1), lane(2), lane(3))
}

/// The codes of 16 rows, whose 64 bytes begin at `at`, lane = row: calls `set(k, codes)` with values `4 k..4 k + 4`.
///
/// # Safety
/// The CPU has the tier; 64 bytes can be read at `at` in every row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn columns(rows: Rows, at: usize, mut set: impl FnMut(usize, __m512i)) {
    for part in 0..4 {
        // SAFETY: as the caller promises.
        let planes = unsafe { rows.dwords4(at + 16 * part) };
        for i in 0..4 {
            for (j, codes) in codes(planes[i]).into_iter().enumerate() {
                set(32 * (part / 2) + 8 * j + 4 * (part % 2) + i, codes);
            }
        }
    }
}
