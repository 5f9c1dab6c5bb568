//! Two-bit codes in the order of Q2_K, Q3_K and TQ2_0: each 32 bytes hold 128 values, bit pair `j` of byte `l` being
//! value `32 j + l`.

use super::linear::bytes;
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
#[inline]
pub(super) fn arrange(q: &[i8], out: &mut [u8]) {
    let q = q.as_chunks::<32>().0;
    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        out.copy_from_slice(bytes(&q[4 * (i % 2) + i / 2]));
    }
}

/// `factor` times the sums of a block: the first eight, the others.
#[inline]
pub(super) fn arrange_sums(sums: &[i16], factor: i16, out: [&mut [u8]; 2]) {
    for (out, sums) in out.into_iter().zip(sums.as_chunks::<8>().0) {
        for (out, sum) in out.as_chunks_mut::<2>().0.iter_mut().zip(sums) {
            *out = (factor * sum).to_ne_bytes();
        }
    }
}

/// Shuffle of the bytes of every dword: `bytes` has the number of each, or 0x80 for zero.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn pick(bytes: u32) -> __m512i {
    // The first byte of a dword in its lane: set in bits that the numbers of its bytes, and 0x80, leave clear.
    let first = _mm512_setr4_epi32(0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c);
    _mm512_or_si512(first, _mm512_set1_epi32(bytes as i32))
}

/// The codes of 16 rows, whose 64 bytes begin at `at`, lane = row: calls `set(j, k, codes)` for each sub-block `j` of
/// 16 values with its `codes`, values `4 k..4 k + 16`.
///
/// # Safety
/// The CPU has the tier; 64 bytes can be read at `at` in every row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn columns(rows: Rows, at: usize, mut set: impl FnMut(usize, usize, [__m512i; 4])) {
    for part in 0..4 {
        // SAFETY: as the caller promises.
        let planes = unsafe { rows.dwords4(at + 16 * part) }.map(|planes| codes(planes));
        for j in 0..4 {
            let sub = 8 * (part / 2) + 2 * j + part % 2;
            set(sub, 4 * sub, [planes[0][j], planes[1][j], planes[2][j], planes[3][j]]);
        }
    }
}
