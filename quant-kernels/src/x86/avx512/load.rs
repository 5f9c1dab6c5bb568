//! Pieces of 16 weight rows, transposed on the way in: lane = row.

use std::arch::asm;
use std::arch::x86_64::*;

/// The next `BLOCK` bytes of 16 rows: where row 0 stands, and how far apart rows are.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub base: *const u8,
    pub stride: usize,
}

impl Rows {
    /// Four dwords of every row from byte `at`: lane `r` of result `i` is dword `i` of row `r`.
    ///
    /// # Safety
    /// 16 bytes can be read at `at` in each of the 16 rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub unsafe fn dwords4(self, at: usize) -> [__m512i; 4] {
        // SAFETY: rows i, i + 4, i + 8 and i + 12 for i in 0..4 are the 16 rows the caller vouches for.
        let (a, b, c, d) =
            unsafe { (self.quad(0, at), self.quad(1, at), self.quad(2, at), self.quad(3, at)) };
        transpose(a, b, c, d)
    }

    /// Eight dwords of every row from byte `at`, as [`Self::dwords4`].
    ///
    /// # Safety
    /// 32 bytes can be read at `at` in each of the 16 rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub unsafe fn dwords8(self, at: usize) -> [__m512i; 8] {
        // SAFETY: rows i and i + 4 for i in 0..4 and 8..12 are the 16 rows the caller vouches for.
        let pair = |first: usize| unsafe {
            let row = |i: usize| _mm256_loadu_si256(self.base.add(i * self.stride + at).cast());
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(row(first)), row(first + 4))
        };
        // Lanes: dwords 0 to 3 of rows 0..4, dwords 4 to 7 of them, the same of rows 4..8.
        let a = transpose(pair(0), pair(1), pair(2), pair(3));
        let b = transpose(pair(8), pair(9), pair(10), pair(11));
        let mut out = [a[0]; 8];
        for i in 0..4 {
            out[i] = _mm512_shuffle_i32x4::<0x88>(a[i], b[i]);
            out[4 + i] = _mm512_shuffle_i32x4::<0xdd>(a[i], b[i]);
        }
        out
    }

    /// 16 bytes of rows `first`, `first + 4`, `first + 8` and `first + 12`, one row per 128-bit lane.
    ///
    /// # Safety
    /// 16 bytes can be read at `at` in each of these rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn quad(self, first: usize, at: usize) -> __m512i {
        // SAFETY: the caller vouches for these four rows.
        unsafe {
            let p = self.base.add(first * self.stride + at);
            let row = |i: usize| _mm_loadu_si128(p.add(4 * i * self.stride).cast());
            let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(row(0)), row(1));
            let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(row(2)), row(3));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        }
    }

    /// These rows, their addresses to be computed anew: the compiler would rather keep 16 of them in memory.
    #[inline]
    pub fn anew(self) -> Self {
        let mut stride = self.stride;
        // SAFETY: touches nothing.
        unsafe {
            asm!("/* {stride} */", stride = inout(reg) stride, options(nomem, nostack, preserves_flags))
        };
        Self { stride, ..self }
    }

    /// The dword at byte `at` of every row.
    ///
    /// # Safety
    /// 4 bytes can be read at `at` in each of the 16 rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub unsafe fn dword(self, at: usize) -> __m512i {
        // SAFETY: the caller vouches for all rows.
        let row = |r: usize| unsafe { self.base.add(r * self.stride + at).cast::<i32>().read_unaligned() };
        _mm512_setr_epi32(
            row(0),
            row(1),
            row(2),
            row(3),
            row(4),
            row(5),
            row(6),
            row(7),
            row(8),
            row(9),
            row(10),
            row(11),
            row(12),
            row(13),
            row(14),
            row(15),
        )
    }
}

/// Transposes 4 x 4 dwords inside every 128-bit lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn transpose(a: __m512i, b: __m512i, c: __m512i, d: __m512i) -> [__m512i; 4] {
    let (ab, ab2) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd, cd2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab, cd),
        _mm512_unpackhi_epi64(ab, cd),
        _mm512_unpacklo_epi64(ab2, cd2),
        _mm512_unpackhi_epi64(ab2, cd2),
    ]
}

/// The f16 in the lower half of every dword.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn low_f16(v: __m512i) -> __m512 {
    _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v))
}

/// The f16 in the upper half of every dword.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn high_f16(v: __m512i) -> __m512 {
    low_f16(_mm512_srli_epi32::<16>(v))
}

/// The low nibble of every byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn low_nibbles(v: __m512i) -> __m512i {
    _mm512_and_si512(v, _mm512_set1_epi8(15))
}

/// The high nibble of every byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn high_nibbles(v: __m512i) -> __m512i {
    low_nibbles(_mm512_srli_epi16::<4>(v))
}
