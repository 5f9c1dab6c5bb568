//! Q4_K: nibbles, a 6-bit scale and minimum per 32.

use super::codes::{nibbles64, six_bit_mins, six_bit_scales};
use super::format::{Blocks, CHUNKS, Format, Steps, halves};
use std::arch::x86_64::*;

/// The format.
pub(super) struct Q4K;

impl Format for Q4K {
    const VALUES: usize = 256;
    const BYTES: usize = 144;
    const STEPS: Steps = Steps::Super(32);
    const TOP: u16 = 15;
    const MINIMA: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        for (i, codes) in codes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            // SAFETY: bytes 16..144 of the block.
            *codes = unsafe { nibbles64(block.add(16 + 32 * i)) };
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> __m128i {
        // SAFETY: bytes 4..16 of the block.
        unsafe { six_bit_scales(block.add(4)) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn mins(block: *const u8) -> __m128i {
        // SAFETY: bytes 4..16 of the block.
        unsafe { six_bit_mins(block.add(4)) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn dmin(blocks: Blocks) -> __m256 {
        // SAFETY: bytes 2..4 of each block.
        unsafe { halves(blocks, 2) }
    }
}
