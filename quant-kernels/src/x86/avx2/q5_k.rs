//! Q5_K: as Q4_K with a fifth bit apart.

use super::codes::{nibbles64, six_bit_mins, six_bit_scales};
use super::format::{Blocks, CHUNKS, Format, Steps, halves};
use std::arch::x86_64::*;

/// The format.
pub(super) struct Q5K;

impl Format for Q5K {
    const VALUES: usize = 256;
    const BYTES: usize = 176;
    const STEPS: Steps = Steps::Super(32);
    const TOP: u16 = 31;
    const MINIMA: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        // SAFETY: bytes 16..48 of the block.
        let fifth = unsafe { _mm256_loadu_si256(block.add(16).cast()) };
        // Bit `j` of each byte at bit 4; what crosses bytes falls to the mask.
        let at4 = [
            _mm256_slli_epi16::<4>(fifth),
            _mm256_slli_epi16::<3>(fifth),
            _mm256_slli_epi16::<2>(fifth),
            _mm256_slli_epi16::<1>(fifth),
            fifth,
            _mm256_srli_epi16::<1>(fifth),
            _mm256_srli_epi16::<2>(fifth),
            _mm256_srli_epi16::<3>(fifth),
        ];
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        for (i, codes) in codes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            // SAFETY: bytes 48..176 of the block.
            *codes = unsafe { nibbles64(block.add(48 + 32 * i)) };
        }
        for (codes, at4) in codes.iter_mut().zip(at4) {
            *codes = _mm256_or_si256(*codes, _mm256_and_si256(at4, _mm256_set1_epi8(16)));
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
