//! TQ1_0: base-3 digits with an offset of 1.

use super::codes::{both, load16, word32};
use super::format::{CHUNKS, Format, Steps};
use std::arch::x86_64::*;

/// The format.
pub(super) struct Tq1_0;

impl Format for Tq1_0 {
    const VALUES: usize = 256;
    const BYTES: usize = 54;
    const STEPS: Steps = Steps::Super(32);
    const TOP: u16 = 2;
    const OFFSET: i16 = 1;
    const D: usize = 52;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        // SAFETY: bytes 0..32, 32..48 and 48..52 of the block.
        let (mut fraction, middle, last) =
            unsafe { (_mm256_loadu_si256(block.cast()), load16(block.add(32)), word32(block.add(48))) };
        for codes in &mut codes[..5] {
            *codes = digits(fraction);
            fraction = thrice(fraction);
        }
        let middle = _mm256_broadcastsi128_si256(middle);
        let mut fraction = both(_mm256_castsi256_si128(middle), _mm256_castsi256_si128(thrice(middle)));
        for codes in &mut codes[5..7] {
            *codes = digits(fraction);
            fraction = thrice(thrice(fraction));
        }
        // Four digits of four bytes; as words, so that each meets a power of its own.
        let words = _mm256_cvtepu8_epi16(_mm_set1_epi32(last.cast_signed()));
        let powers = _mm256_setr_epi64x(
            0x0001_0001_0001_0001,
            0x0003_0003_0003_0003,
            0x0009_0009_0009_0009,
            0x001b_001b_001b_001b,
        );
        let words = _mm256_and_si256(_mm256_mullo_epi16(words, powers), _mm256_set1_epi16(255));
        let four = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        codes[7] = digits(both(_mm256_castsi256_si128(fraction), four));
        codes
    }
}

/// The first digits of fractions of 256: what carries over 256 when they are multiplied by 3.
#[inline]
#[target_feature(enable = "avx2")]
fn digits(fractions: __m256i) -> __m256i {
    let reaches = |least: u8| {
        let least = _mm256_set1_epi8(least.cast_signed());
        _mm256_cmpeq_epi8(_mm256_max_epu8(fractions, least), fractions)
    };
    _mm256_sub_epi8(_mm256_setzero_si256(), _mm256_add_epi8(reaches(86), reaches(171)))
}

/// Without the first digit: three times as much, modulo 256.
#[inline]
#[target_feature(enable = "avx2")]
fn thrice(fractions: __m256i) -> __m256i {
    _mm256_add_epi8(fractions, _mm256_add_epi8(fractions, fractions))
}
