//! Q8_0: blocks of 32 values, i8 codes.

use super::int8::{Format, Scales, run};
use crate::isa::Avx2;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx2) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { run::<Q8_0>(tile) }
}

struct Q8_0;

impl Format for Q8_0 {
    const LEN: usize = 32;
    const BYTES: usize = 34;
    const D: usize = 0;
    const SIGNED: bool = true;
    const PAIRS: usize = 1;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        let mut codes = [_mm256_setzero_si256(); 8];
        // SAFETY: bytes 2..34 of the block.
        codes[0] = unsafe { _mm256_loadu_si256(block.add(2).cast()) };
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(_: *const u8) -> Scales {
        Scales { scales: _mm256_set1_epi16(1), mins: _mm256_setzero_si256() }
    }
}
