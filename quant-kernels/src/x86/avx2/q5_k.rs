//! Q5_K: as Q4_K with a fifth bit apart.

use super::int8::{Format, Scales, run};
use super::q4_k::{nibbles, scales_and_mins};
use crate::isa::Avx2;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx2) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { run::<Q5K>(tile) }
}

struct Q5K;

impl Format for Q5K {
    const LEN: usize = 256;
    const BYTES: usize = 176;
    const D: usize = 0;
    const DMIN: Option<usize> = Some(2);
    const PAIRS: usize = 4;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
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
        let mut codes = [_mm256_setzero_si256(); 8];
        for (i, codes) in codes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            // SAFETY: bytes 48..176 of the block.
            *codes = unsafe { nibbles(block.add(48 + 32 * i)) };
        }
        for (codes, at4) in codes.iter_mut().zip(at4) {
            *codes = _mm256_or_si256(*codes, _mm256_and_si256(at4, _mm256_set1_epi8(16)));
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> Scales {
        // SAFETY: bytes 4..16 of the block.
        unsafe { scales_and_mins(block.add(4)) }
    }
}
