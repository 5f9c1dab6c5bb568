//! IQ2_XS: eight values at a time from a codebook of 512, with signs, an offset of 43.

use super::codes::{even_signs, four, nibbles16, odd, offset_signed, word64};
use super::format::{CHUNKS, Format, Steps};
use crate::types::codebooks::IQ2_XS;
use std::arch::x86_64::*;

/// The format.
pub(super) struct Iq2Xs;

impl Format for Iq2Xs {
    const VALUES: usize = 256;
    const BYTES: usize = 74;
    const STEPS: Steps = Steps::Super(16);
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
            let index = |l: usize| (group >> (16 * l) & 511) as usize;
            let magnitudes = four([0, 1, 2, 3].map(|l| IQ2_XS[index(l)]));
            *codes = offset_signed(magnitudes, even_signs(group, [9, 25, 41, 57]), Self::OFFSET);
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> __m128i {
        // SAFETY: bytes 66..74 of the block.
        odd(nibbles16(unsafe { word64(block.add(66)) }))
    }
}
