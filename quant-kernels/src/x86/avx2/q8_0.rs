//! Q8_0: i8 codes.

use super::format::{CHUNKS, Format, Steps};
use std::arch::x86_64::*;

/// The format.
pub(super) struct Q8_0;

impl Format for Q8_0 {
    const VALUES: usize = 32;
    const BYTES: usize = 34;
    const STEPS: Steps = Steps::Float(32);
    const TOP: u16 = 127;
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        // SAFETY: bytes 2..34 of the block.
        codes[0] = unsafe { _mm256_loadu_si256(block.add(2).cast()) };
        codes
    }
}
