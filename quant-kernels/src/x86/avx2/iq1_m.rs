//! IQ1_M: IQ1_S with a scale per 16, a shift per 8, and the float scale in the top bits of the scales.

use super::codes::{four, low8, odd, word32, word64};
use super::format::{Blocks, CHUNKS, Format, Steps, widened};
use crate::types::codebooks::IQ1;
use std::arch::x86_64::*;

/// The format.
pub(super) struct Iq1M;

impl Format for Iq1M {
    const VALUES: usize = 256;
    const BYTES: usize = 56;
    const STEPS: Steps = Steps::Super(16);
    const TOP: u16 = 18;
    const OFFSET: i16 = 9;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        for (i, codes) in codes.iter_mut().enumerate() {
            // SAFETY: bytes 0..32 (indices) and 32..48 of the block.
            let (low, high) =
                unsafe { (word32(block.add(4 * i)), block.add(32 + 2 * i).cast::<u16>().read_unaligned()) };
            let high = u32::from(high);
            let index = |l: usize| (low >> (8 * l) & 255 | (high >> (4 * l) & 7) << 8) as usize;
            let ternary = four([0, 1, 2, 3].map(|l| IQ1[index(l)]));
            // 8 (ternary - 1) + 9, and plus or minus 1: minus if the top bit of the nibble is set.
            let bit = _mm256_setr_epi64x(1 << 3, 1 << 7, 1 << 11, 1 << 15);
            let set = _mm256_and_si256(_mm256_set1_epi64x(high.into()), bit);
            let plus = _mm256_cmpeq_epi64(set, _mm256_setzero_si256());
            let shift = _mm256_and_si256(plus, _mm256_set1_epi8(2));
            *codes = _mm256_add_epi8(_mm256_slli_epi16::<3>(ternary), shift);
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> __m128i {
        // SAFETY: bytes 48..56 of the block.
        let words = _mm_unpacklo_epi16(low8(0), low8(unsafe { word64(block.add(48)) }));
        // Each word four times; its fields of three bits to the top.
        let low = _mm_shuffle_epi8(words, _mm_setr_epi8(2, 3, 2, 3, 2, 3, 2, 3, 6, 7, 6, 7, 6, 7, 6, 7));
        let high = _mm_shuffle_epi8(
            words,
            _mm_setr_epi8(10, 11, 10, 11, 10, 11, 10, 11, 14, 15, 14, 15, 14, 15, 14, 15),
        );
        let to_top = _mm_set1_epi64x(1 << 13 | 1 << (16 + 10) | 1 << (32 + 7) | 1 << (48 + 4));
        let low = _mm_srli_epi16::<13>(_mm_mullo_epi16(low, to_top));
        let high = _mm_srli_epi16::<13>(_mm_mullo_epi16(high, to_top));
        odd(_mm_packus_epi16(low, high))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn d(blocks: Blocks) -> [__m256; 4] {
        let bits = blocks.each(|block| {
            // SAFETY: bytes 48..56 of the block.
            let words = unsafe { word64(block.add(48)) };
            (words >> 12 & 0xf | words >> 24 & 0xf0 | words >> 36 & 0xf00 | words >> 48 & 0xf000) as i16
        });
        [_mm256_mul_ps(widened(bits), _mm256_set1_ps(0.125)); 4]
    }
}
