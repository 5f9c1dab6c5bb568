//! TQ2_0: two-bit codes with an offset of 1.

use super::codes::two_bits;
use super::format::{CHUNKS, Format, Steps};
use std::arch::x86_64::*;

/// The format.
pub(super) struct Tq2_0;

impl Format for Tq2_0 {
    const VALUES: usize = 256;
    const BYTES: usize = 66;
    const STEPS: Steps = Steps::Super(32);
    const TOP: u16 = 3;
    const OFFSET: i16 = 1;
    const D: usize = 64;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        // SAFETY: bytes 0..64 of the block.
        unsafe { two_bits(block) }
    }
}
