//! IQ4_XS: the levels of IQ4_NL, a 6-bit scale per 32.

use super::codes::{entries, nibbles16, nibbles32, twice, word32};
use super::format::{CHUNKS, Format, Steps};
use crate::types::codebooks::IQ4_LEVELS;
use std::arch::x86_64::*;

/// The format.
pub(super) struct Iq4Xs;

impl Format for Iq4Xs {
    const VALUES: usize = 256;
    const BYTES: usize = 136;
    const STEPS: Steps = Steps::Super(32);
    const TOP: u16 = 127;
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        for (i, codes) in codes.iter_mut().enumerate() {
            // SAFETY: bytes 8..136 of the block.
            *codes = entries(IQ4_LEVELS, unsafe { nibbles32(block.add(8 + 16 * i)) });
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> __m128i {
        // SAFETY: bytes 0..8 of the block.
        let (low, high) = unsafe { (word32(block.add(4)), word32(block) >> 16) };
        // Each pair of bits to the top of a word of its own, then to bits 4 and 5.
        let to_top = _mm_setr_epi16(1 << 14, 1 << 12, 1 << 10, 1 << 8, 1 << 6, 1 << 4, 1 << 2, 1);
        let high = _mm_mullo_epi16(_mm_set1_epi16(high as i16), to_top);
        let high = _mm_slli_epi16::<4>(_mm_srli_epi16::<14>(high));
        let scales = _mm_or_si128(nibbles16(low.into()), _mm_packus_epi16(high, high));
        twice(_mm_sub_epi8(scales, _mm_set1_epi8(32)))
    }
}
