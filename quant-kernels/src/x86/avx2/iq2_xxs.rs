//! IQ2_XXS: eight values at a time from a codebook of 256, signs apart, an offset of 43.

use super::codes::{even_signs, four, narrowed, odd, offset_signed, twice, word64};
use super::format::{CHUNKS, Format, Steps};
use crate::types::codebooks::IQ2_XXS;
use std::arch::x86_64::*;

/// The format.
pub(super) struct Iq2Xxs;

impl Format for Iq2Xxs {
    const VALUES: usize = 256;
    const BYTES: usize = 66;
    const STEPS: Steps = Steps::Super(32);
    const TOP: u16 = 86;
    const OFFSET: i16 = 43;
    const D_FACTOR: f32 = 0.125;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        for (i, codes) in codes.iter_mut().enumerate() {
            // SAFETY: bytes 2..66 of the block.
            let group = unsafe { word64(block.add(2 + 8 * i)) };
            let index = |l: usize| usize::from((group >> (8 * l)) as u8);
            let magnitudes = four([0, 1, 2, 3].map(|l| IQ2_XXS[index(l)]));
            *codes = offset_signed(magnitudes, even_signs(group, [32, 39, 46, 53]), Self::OFFSET);
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> __m128i {
        // SAFETY: bytes 2..66 of the block.
        let groups = unsafe { (_mm256_loadu_ps(block.add(2).cast()), _mm256_loadu_ps(block.add(34).cast())) };
        // The second words of the groups, in the order 0 1 4 5 2 3 6 7.
        let words = _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(groups.0, groups.1));
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
        odd(twice(narrowed(_mm256_srli_epi32::<28>(words))))
    }
}
