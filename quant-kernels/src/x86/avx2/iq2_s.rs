//! IQ2_S: eight values at a time from a codebook of 1024, signs apart, an offset of 43.

use super::codes::{four, nibbles16, odd, offset_signed, set_bits, word32, word64};
use super::format::{CHUNKS, Format, Steps};
use crate::types::codebooks::IQ2_S;
use std::arch::x86_64::*;

/// The format.
pub(super) struct Iq2S;

impl Format for Iq2S {
    const VALUES: usize = 256;
    const BYTES: usize = 82;
    const STEPS: Steps = Steps::Super(16);
    const TOP: u16 = 86;
    const OFFSET: i16 = 43;
    const D_FACTOR: f32 = 0.125;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        for (i, codes) in codes.iter_mut().enumerate() {
            // SAFETY: bytes 2..66 (indices, then signs) and 66..74 of the block.
            let (low, signs, high) = unsafe {
                (word32(block.add(2 + 4 * i)), word32(block.add(34 + 4 * i)), u32::from(*block.add(66 + i)))
            };
            let index = |l: usize| (low >> (8 * l) & 255 | (high >> (2 * l) & 3) << 8) as usize;
            let magnitudes = four([0, 1, 2, 3].map(|l| IQ2_S[index(l)]));
            *codes = offset_signed(magnitudes, set_bits(signs), Self::OFFSET);
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> __m128i {
        // SAFETY: bytes 74..82 of the block.
        odd(nibbles16(unsafe { word64(block.add(74)) }))
    }
}
