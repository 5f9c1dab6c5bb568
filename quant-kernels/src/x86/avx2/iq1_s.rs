//! IQ1_S: eight ternary values at a time from a codebook of 2048, shifted per 32; codes are in eighths, with an
//! offset of 9.

use super::codes::{four, load16, odd, twice, word32};
use super::format::{CHUNKS, Format, Steps};
use crate::types::codebooks::IQ1;
use std::arch::x86_64::*;

/// The format.
pub(super) struct Iq1S;

impl Format for Iq1S {
    const VALUES: usize = 256;
    const BYTES: usize = 50;
    const STEPS: Steps = Steps::Super(32);
    const TOP: u16 = 18;
    const OFFSET: i16 = 9;
    const D_FACTOR: f32 = 0.125;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        for (i, codes) in codes.iter_mut().enumerate() {
            // SAFETY: bytes 2..34 (indices) and 34..50 of the block.
            let (low, word) = unsafe {
                (word32(block.add(2 + 4 * i)), block.add(34 + 2 * i).cast::<u16>().read_unaligned())
            };
            let word = u32::from(word);
            let index = |l: usize| (low >> (8 * l) & 255 | (word >> (3 * l) & 7) << 8) as usize;
            let ternary = four([0, 1, 2, 3].map(|l| IQ1[index(l)]));
            // 8 (ternary - 1) + 9, and plus or minus 1.
            let shift = _mm256_set1_epi8(if word >> 15 == 0 { 2 } else { 0 });
            *codes = _mm256_add_epi8(_mm256_slli_epi16::<3>(ternary), shift);
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> __m128i {
        // SAFETY: bytes 34..50 of the block.
        let words = unsafe { load16(block.add(34)) };
        let scales = _mm_and_si128(_mm_srli_epi16::<12>(words), _mm_set1_epi16(7));
        odd(twice(_mm_packus_epi16(scales, scales)))
    }
}
