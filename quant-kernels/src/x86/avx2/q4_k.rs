//! Q4_K: super-blocks of 256 values, nibbles, a 6-bit scale and minimum per 32.

use super::int8::{Format, Scales, run};
use crate::isa::Avx2;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx2) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { run::<Q4K>(tile) }
}

/// The low and the high nibbles of 32 bytes.
///
/// # Safety
/// 32 bytes can be read.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn nibbles(bytes: *const u8) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(15);
    // SAFETY: the caller vouches for 32 bytes.
    let bytes = unsafe { _mm256_loadu_si256(bytes.cast()) };
    [_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask)]
}

/// The 6-bit scales and minima of Q4_K and Q5_K, four at a time in the bytes of a word: the low four lie in six
/// bits, the upper four in a nibble of the last word and the two top bits of the others.
///
/// # Safety
/// 12 bytes can be read.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn scales_and_mins(packed: *const u8) -> Scales {
    const SIX: u32 = 0x3f3f_3f3f;
    const FOUR: u32 = 0x0f0f_0f0f;
    const TWO: u32 = 0x0303_0303;
    // SAFETY: the caller vouches for 12 bytes.
    let [a, b, c] = unsafe { packed.cast::<[u32; 3]>().read_unaligned() };
    let scales = u64::from(a & SIX) | u64::from(c & FOUR | (a >> 6 & TWO) << 4) << 32;
    let mins = u64::from(b & SIX) | u64::from(c >> 4 & FOUR | (b >> 6 & TWO) << 4) << 32;
    let twice = |bytes: u64| {
        let bytes = _mm_cvtsi64_si128(bytes.cast_signed());
        _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(bytes, bytes))
    };
    Scales { scales: twice(scales), mins: twice(mins) }
}

struct Q4K;

impl Format for Q4K {
    const LEN: usize = 256;
    const BYTES: usize = 144;
    const D: usize = 0;
    const DMIN: Option<usize> = Some(2);
    const PAIRS: usize = 8;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        let mut codes = [_mm256_setzero_si256(); 8];
        for (i, codes) in codes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            // SAFETY: bytes 16..144 of the block.
            *codes = unsafe { nibbles(block.add(16 + 32 * i)) };
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
