//! Q4_1: nibbles; what is added to every value is a negative minimum.

use super::codes::nibbles32;
use super::format::{Blocks, CHUNKS, Format, Steps, halves};
use std::arch::x86_64::*;

/// The format.
pub(super) struct Q4_1;

impl Format for Q4_1 {
    const VALUES: usize = 32;
    const BYTES: usize = 20;
    const STEPS: Steps = Steps::Float(32);
    const TOP: u16 = 15;
    const MINIMA: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        // SAFETY: bytes 4..20 of the block.
        codes[0] = unsafe { nibbles32(block.add(4)) };
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn dmin(blocks: Blocks) -> __m256 {
        let sign = _mm256_set1_ps(-0.0);
        // SAFETY: bytes 2..4 of each block. The offset is a minimum of -m.
        _mm256_xor_ps(unsafe { halves(blocks, 2) }, sign)
    }
}
