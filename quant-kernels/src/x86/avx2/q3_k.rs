//! Q3_K: two-bit codes and a third bit apart with an offset of 4, a 6-bit scale per 16.

use super::codes::{low8, two_bits, word32, word64};
use super::format::{CHUNKS, Format, Steps};
use std::arch::x86_64::*;

/// The format.
pub(super) struct Q3K;

impl Format for Q3K {
    const VALUES: usize = 256;
    const BYTES: usize = 110;
    const STEPS: Steps = Steps::Super(16);
    const TOP: u16 = 7;
    const OFFSET: i16 = 4;
    const D: usize = 108;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        // SAFETY: bytes 0..32 (third bits) and 32..96 of the block.
        let (third, mut codes) = unsafe { (_mm256_loadu_si256(block.cast()), two_bits(block.add(32))) };
        // Bit `j` of each byte at bit 2; what crosses bytes falls to the mask.
        let at2 = [
            _mm256_slli_epi16::<2>(third),
            _mm256_slli_epi16::<1>(third),
            third,
            _mm256_srli_epi16::<1>(third),
            _mm256_srli_epi16::<2>(third),
            _mm256_srli_epi16::<3>(third),
            _mm256_srli_epi16::<4>(third),
            _mm256_srli_epi16::<5>(third),
        ];
        for (codes, at2) in codes.iter_mut().zip(at2) {
            *codes = _mm256_or_si256(*codes, _mm256_and_si256(at2, _mm256_set1_epi8(4)));
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> __m128i {
        // SAFETY: bytes 96..108 of the block.
        let (low, high) = unsafe { (low8(word64(block.add(96))), word32(block.add(104))) };
        let low = _mm_unpacklo_epi64(low, _mm_srli_epi16::<4>(low));
        let high = _mm_srlv_epi32(_mm_set1_epi32(high.cast_signed()), _mm_setr_epi32(0, 2, 4, 6));
        let high = _mm_slli_epi16::<4>(_mm_and_si128(high, _mm_set1_epi8(3)));
        let scales = _mm_or_si128(_mm_and_si128(low, _mm_set1_epi8(15)), high);
        _mm_sub_epi8(scales, _mm_set1_epi8(32))
    }
}
