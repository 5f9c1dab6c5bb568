//! IQ3_S: four values at a time from a codebook of 512, signs apart, an offset of 15.

use super::codes::{eight, nibbles16, odd, offset_signed, set_bits, twice, word32, word64};
use super::format::{CHUNKS, Format, Steps};
use crate::types::codebooks::IQ3_S;
use std::arch::x86_64::*;

/// The format.
pub(super) struct Iq3S;

impl Format for Iq3S {
    const VALUES: usize = 256;
    const BYTES: usize = 110;
    const STEPS: Steps = Steps::Super(32);
    const TOP: u16 = 30;
    const OFFSET: i16 = 15;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        for (i, codes) in codes.iter_mut().enumerate() {
            // SAFETY: bytes 2..66 (indices), 66..74 (their high bits) and 74..106 (signs) of the block.
            let (group, high, signs) = unsafe {
                (word64(block.add(2 + 8 * i)), u64::from(*block.add(66 + i)), word32(block.add(74 + 4 * i)))
            };
            let index = |k: usize| (group >> (8 * k) & 255 | (high >> k & 1) << 8) as usize;
            let magnitudes = eight([0, 1, 2, 3, 4, 5, 6, 7].map(|k| IQ3_S[index(k)]));
            *codes = offset_signed(magnitudes, set_bits(signs), Self::OFFSET);
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> __m128i {
        // SAFETY: bytes 106..110 of the block.
        odd(twice(nibbles16(unsafe { word32(block.add(106)) }.into())))
    }
}
