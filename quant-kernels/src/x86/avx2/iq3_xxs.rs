//! IQ3_XXS: four values at a time from a codebook of 256, signs apart, an offset of 62.

use super::codes::{eight, even_signs, narrowed, odd, offset_signed, twice, word32, word64};
use super::format::{CHUNKS, Format, Steps};
use crate::types::codebooks::IQ3_XXS;
use std::arch::x86_64::*;

/// The format.
pub(super) struct Iq3Xxs;

impl Format for Iq3Xxs {
    const VALUES: usize = 256;
    const BYTES: usize = 98;
    const STEPS: Steps = Steps::Super(32);
    const TOP: u16 = 124;
    const OFFSET: i16 = 62;
    const D_FACTOR: f32 = 0.25;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        for (i, codes) in codes.iter_mut().enumerate() {
            // SAFETY: bytes 2..66 (indices) and 66..98 of the block.
            let (group, word) = unsafe { (word64(block.add(2 + 8 * i)), word32(block.add(66 + 4 * i))) };
            let index = |k: usize| usize::from((group >> (8 * k)) as u8);
            let magnitudes = eight([0, 1, 2, 3, 4, 5, 6, 7].map(|k| IQ3_XXS[index(k)]));
            *codes = offset_signed(magnitudes, even_signs(word.into(), [0, 7, 14, 21]), Self::OFFSET);
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> __m128i {
        // SAFETY: bytes 66..98 of the block.
        let words = unsafe { _mm256_loadu_si256(block.add(66).cast()) };
        odd(twice(narrowed(_mm256_srli_epi32::<28>(words))))
    }
}
