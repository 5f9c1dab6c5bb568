//! Q6_K: super-blocks of 256 values, nibbles and upper bit pairs, an i8 scale per 16, an offset of 32.

use super::int8::{Format, Scales, run};
use super::q4_k::nibbles;
use crate::isa::Avx2;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx2) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { run::<Q6K>(tile) }
}

struct Q6K;

impl Format for Q6K {
    const LEN: usize = 256;
    const BYTES: usize = 210;
    const D: usize = 208;
    const OFFSET: i32 = 32;
    const SCALE_PER_16: bool = true;
    const PAIRS: usize = 2;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        let mask = _mm256_set1_epi8(0x30);
        let mut codes = [_mm256_setzero_si256(); 8];
        for (half, codes) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            // SAFETY: bytes 0..128 (nibbles) and 128..192 (upper bits) of the block.
            let (first, second, upper) = unsafe {
                (
                    nibbles(block.add(64 * half)),
                    nibbles(block.add(64 * half + 32)),
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
    unsafe fn scales(block: *const u8) -> Scales {
        // SAFETY: bytes 192..208 of the block.
        let scales = unsafe { _mm_loadu_si128(block.add(192).cast()) };
        Scales { scales: _mm256_cvtepi8_epi16(scales), mins: _mm256_setzero_si256() }
    }
}
