//! IQ1_S: each 32 values have a word with the upper bits of four indices, a scale and the sign of the shift.

use super::codebook::{load_halves, load_quarters};
use super::eights::{Copied, arrange_products};
use super::grid::sub_32;
use super::linear::load;
use super::load::{Rows, low_f16};
use super::ternary::{self, Shifted};
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(proof: Avx512) -> TileFn {
    ternary::tile::<Iq1S>(proof)
}

struct Iq1S;

/// The words of two blocks, each dword (two words) as both halves of a qword: a qword for 8 indices.
///
/// # Safety
/// The CPU has the tier; the bytes of both blocks can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn words(blocks: [*const u8; 2]) -> __m512i {
    // SAFETY: the last 16 bytes of the blocks.
    let both = _mm512_castsi256_si512(unsafe { load_quarters(blocks, 34) });
    let twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    _mm512_permutexvar_epi32(twice, both)
}

/// The words of two blocks as dwords.
///
/// # Safety
/// The CPU has the tier; the bytes of both blocks can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn dwords(blocks: [*const u8; 2]) -> __m512i {
    // SAFETY: the last 16 bytes of the blocks.
    _mm512_cvtepu16_epi32(unsafe { load_quarters(blocks, 34) })
}

impl Shifted for Iq1S {
    const BYTES: usize = 50;
    const SUB: usize = 32;
    const STARTS: usize = 2;
    const EXTRA: u8 = 0;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn indices(blocks: [*const u8; 2]) -> [__m512i; 2] {
        let by = _mm512_set1_epi64(i64::from_le_bytes([60, 63, 2, 5, 12, 15, 18, 21]));
        // SAFETY: as the caller promises.
        unsafe { [load_halves(blocks, 2), _mm512_multishift_epi64_epi8(by, words(blocks))] }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn negative(blocks: [*const u8; 2]) -> __mmask64 {
        let by = _mm512_set1_epi64(i64::from_le_bytes([8, 8, 8, 8, 24, 24, 24, 24]));
        // SAFETY: as the caller promises.
        _mm512_movepi8_mask(_mm512_multishift_epi64_epi8(by, unsafe { words(blocks) }))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn scales(block: *const u8, p: usize) -> __m512i {
        // SAFETY: four of the last eight words of the block.
        let words = _mm512_set1_epi64(unsafe { block.add(34 + 8 * p).cast::<i64>().read_unaligned() });
        let mut first = sub_32(0);
        for bit in &mut first {
            *bit = 16 * *bit + 12;
        }
        ternary::scale_words(words, first)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn scaled(blocks: [*const u8; 2], [a, b]: [__m512i; 2]) -> __m512i {
        // SAFETY: as the caller promises.
        let bits = _mm512_srli_epi32::<11>(unsafe { dwords(blocks) });
        // 1 | (bits & 14)
        let scales = _mm512_ternarylogic_epi32::<0xf8>(_mm512_set1_epi32(1), bits, _mm512_set1_epi32(14));
        _mm512_mullo_epi32(_mm512_add_epi32(a, b), scales)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn starts(blocks: [*const u8; 2], _upper: __m512i, lines: *const u8) -> [__m512i; 2] {
        // SAFETY: as the caller promises.
        let starts = unsafe {
            let negative = _mm512_test_epi32_mask(dwords(blocks), _mm512_set1_epi32(0x8000));
            _mm512_mask_loadu_epi32(load(lines), negative, lines.add(64).cast())
        };
        [starts, _mm512_setzero_si512()]
    }

    /// Both values of c times the sums.
    fn arrange_starts(_q: &[i8], sums: &[i16], lines: &mut [[u8; 64]]) {
        arrange_products::<32>(sums, -7, lines);
        arrange_products::<32>(sums, -9, &mut lines[1..]);
    }

    #[inline]
    unsafe fn copy_d(w: *const u8, to: &mut Copied) {
        // SAFETY: as the caller promises.
        unsafe { to.copy::<u16>(w, Self::BYTES, 0) };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn copied_d(copied: &Copied) -> __m512 {
        copied.f16(0.125)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn row_d(rows: Rows) -> __m512 {
        // SAFETY: as the caller promises.
        _mm512_mul_ps(low_f16(unsafe { rows.dword(0) }), _mm512_set1_ps(0.125))
    }
}
