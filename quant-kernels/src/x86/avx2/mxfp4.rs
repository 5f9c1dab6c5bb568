//! MXFP4: 4-bit floats with an 8-bit exponent.

use super::codes::{entries, nibbles32};
use super::format::{Blocks, CHUNKS, Format, Steps, bytes};
use crate::types::codebooks::FP4_LEVELS;
use std::arch::x86_64::*;

/// The levels with an offset of 12.
pub(super) const LEVELS: [i8; 16] = {
    let mut levels = FP4_LEVELS;
    let mut i = 0;
    while i < 16 {
        levels[i] += 12;
        i += 1;
    }
    levels
};

/// The format.
pub(super) struct Mxfp4;

impl Format for Mxfp4 {
    const VALUES: usize = 32;
    const BYTES: usize = 17;
    const STEPS: Steps = Steps::Float(32);
    const TOP: u16 = 24;
    const OFFSET: i16 = 12;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        // SAFETY: bytes 1..17 of the block.
        codes[0] = unsafe { entries(LEVELS, nibbles32(block.add(1))) };
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn d(blocks: Blocks) -> [__m256; 4] {
        // SAFETY: the first byte of each block.
        let e = unsafe { bytes(blocks, 0) };
        // 2^(e - 128), subnormal below e = 2.
        let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, _mm256_set1_epi32(1)));
        let subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), e);
        let small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
        [_mm256_castsi256_ps(_mm256_blendv_epi8(normal, subnormal, small)); 4]
    }
}
