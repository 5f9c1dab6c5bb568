//! Q1_0: signs; four float steps share a scale.

use super::codes::{set_bits, word32};
use super::format::{CHUNKS, Format, Steps};
use std::arch::x86_64::*;

/// The format.
pub(super) struct Q1_0;

impl Format for Q1_0 {
    const VALUES: usize = 128;
    const BYTES: usize = 18;
    const STEPS: Steps = Steps::Float(32);
    const TOP: u16 = 2;
    const OFFSET: i16 = 1;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        for (i, codes) in codes.iter_mut().enumerate().take(4) {
            // SAFETY: bytes 2..18 of the block.
            let set = set_bits(unsafe { word32(block.add(2 + 4 * i)) });
            *codes = _mm256_and_si256(set, _mm256_set1_epi8(2));
        }
        codes
    }
}
