//! Q4_0: blocks of 32 values, nibbles with an offset of 8.

use super::int8::{Format, Scales, run};
use crate::isa::Avx2;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx2) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { run::<Q4_0>(tile) }
}

struct Q4_0;

impl Format for Q4_0 {
    const LEN: usize = 32;
    const BYTES: usize = 18;
    const D: usize = 0;
    const OFFSET: i32 = 8;
    const PAIRS: usize = 8;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        let mut codes = [_mm256_setzero_si256(); 8];
        // SAFETY: bytes 2..18 of the block.
        let nibbles = unsafe { _mm_loadu_si128(block.add(2).cast()) };
        let both = _mm256_set_m128i(_mm_srli_epi16::<4>(nibbles), nibbles);
        codes[0] = _mm256_and_si256(both, _mm256_set1_epi8(15));
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(_: *const u8) -> Scales {
        Scales { scales: _mm256_set1_epi16(1), mins: _mm256_setzero_si256() }
    }
}
