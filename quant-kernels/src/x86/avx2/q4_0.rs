//! Q4_0: nibbles with an offset of 8.

use super::codes::nibbles32;
use super::format::{CHUNKS, Format, Steps};
use std::arch::x86_64::*;

/// The format.
pub(super) struct Q4_0;

impl Format for Q4_0 {
    const VALUES: usize = 32;
    const BYTES: usize = 18;
    const STEPS: Steps = Steps::Float(32);
    const TOP: u16 = 15;
    const OFFSET: i16 = 8;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        // SAFETY: bytes 2..18 of the block.
        codes[0] = unsafe { nibbles32(block.add(2)) };
        codes
    }
}
