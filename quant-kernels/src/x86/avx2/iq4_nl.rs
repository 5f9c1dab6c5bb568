//! IQ4_NL: nibbles are indices into 16 levels.

use super::codes::{entries, nibbles32};
use super::format::{CHUNKS, Format, Steps};
use crate::types::codebooks::IQ4_LEVELS;
use std::arch::x86_64::*;

/// The format.
pub(super) struct Iq4Nl;

impl Format for Iq4Nl {
    const VALUES: usize = 32;
    const BYTES: usize = 18;
    const STEPS: Steps = Steps::Float(32);
    const TOP: u16 = 127;
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        // SAFETY: bytes 2..18 of the block.
        codes[0] = unsafe { entries(IQ4_LEVELS, nibbles32(block.add(2))) };
        codes
    }
}
