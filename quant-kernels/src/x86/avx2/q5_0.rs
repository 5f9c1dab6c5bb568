//! Q5_0: five-bit codes with an offset of 16.

use super::codes::five_bits;
use super::format::{CHUNKS, Format, Steps};
use std::arch::x86_64::*;

/// The format.
pub(super) struct Q5_0;

impl Format for Q5_0 {
    const VALUES: usize = 32;
    const BYTES: usize = 22;
    const STEPS: Steps = Steps::Float(32);
    const TOP: u16 = 31;
    const OFFSET: i16 = 16;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        // SAFETY: bytes 2..22 of the block.
        codes[0] = unsafe { five_bits(block.add(2)) };
        codes
    }
}
