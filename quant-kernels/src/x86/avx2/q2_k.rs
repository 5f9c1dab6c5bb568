//! Q2_K: two-bit codes, a 4-bit scale and minimum per 16.

use super::codes::{load16, two_bits};
use super::format::{Blocks, CHUNKS, Format, Steps, halves};
use std::arch::x86_64::*;

/// The format.
pub(super) struct Q2K;

impl Format for Q2K {
    const VALUES: usize = 256;
    const BYTES: usize = 84;
    const STEPS: Steps = Steps::Super(16);
    const TOP: u16 = 3;
    const MINIMA: bool = true;
    const D: usize = 80;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        // SAFETY: bytes 16..80 of the block.
        unsafe { two_bits(block.add(16)) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> __m128i {
        // SAFETY: bytes 0..16 of the block.
        _mm_and_si128(unsafe { load16(block) }, _mm_set1_epi8(15))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn mins(block: *const u8) -> __m128i {
        // SAFETY: bytes 0..16 of the block.
        _mm_and_si128(_mm_srli_epi16::<4>(unsafe { load16(block) }), _mm_set1_epi8(15))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn dmin(blocks: Blocks) -> __m256 {
        // SAFETY: bytes 82..84 of each block.
        unsafe { halves(blocks, 82) }
    }
}
