//! Q6_K: nibbles and upper bit pairs, an i8 scale per 16, an offset of 32.

use super::codes::{load16, nibbles64};
use super::format::{CHUNKS, Format, Steps};
use std::arch::x86_64::*;

/// The format.
pub(super) struct Q6K;

impl Format for Q6K {
    const VALUES: usize = 256;
    const BYTES: usize = 210;
    const STEPS: Steps = Steps::Super(16);
    const TOP: u16 = 63;
    const OFFSET: i16 = 32;
    const D: usize = 208;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mask = _mm256_set1_epi8(0x30);
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        for (half, codes) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            // SAFETY: bytes 0..128 (nibbles) and 128..192 (upper bits) of the block.
            let (first, second, upper) = unsafe {
                (
                    nibbles64(block.add(64 * half)),
                    nibbles64(block.add(64 * half + 32)),
                    _mm256_loadu_si256(block.add(128 + 32 * half).cast()),
                )
            };
            let at4 = [
                _mm256_slli_epi16::<4>(upper),
                _mm256_slli_epi16::<2>(upper),
                upper,
                _mm256_srli_epi16::<2>(upper),
            ];
            let low = [first[0], second[0], first[1], second[1]];
            for ((codes, low), at4) in codes.iter_mut().zip(low).zip(at4) {
                *codes = _mm256_or_si256(low, _mm256_and_si256(at4, mask));
            }
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> __m128i {
        // SAFETY: bytes 192..208 of the block.
        unsafe { load16(block.add(192)) }
    }
}
