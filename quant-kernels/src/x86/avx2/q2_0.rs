//! Q2_0: two-bit codes with an offset of 1, four to a byte in order; two float steps share a scale.

use super::codes::word64;
use super::format::{CHUNKS, Format, Steps};
use std::arch::x86_64::*;

/// The format.
pub(super) struct Q2_0;

impl Format for Q2_0 {
    const VALUES: usize = 64;
    const BYTES: usize = 18;
    const STEPS: Steps = Steps::Float(32);
    const TOP: u16 = 3;
    const OFFSET: i16 = 1;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        for (i, codes) in codes.iter_mut().enumerate().take(2) {
            // SAFETY: bytes 2..18 of the block.
            *codes = spread(unsafe { word64(block.add(2 + 8 * i)) });
        }
        codes
    }
}

/// The bit pairs of 8 bytes, the lowest of each first.
#[inline]
#[target_feature(enable = "avx2")]
fn spread(bytes: u64) -> __m256i {
    let each = _mm256_setr_epi32(
        0x0000_0000,
        0x0101_0101,
        0x0202_0202,
        0x0303_0303,
        0x0404_0404,
        0x0505_0505,
        0x0606_0606,
        0x0707_0707,
    );
    let low = _mm256_shuffle_epi8(_mm256_set1_epi64x(bytes.cast_signed()), each);
    // Of four equal bytes the upper two give their high nibble, then the second of each two the upper pair.
    let low = _mm256_blend_epi16::<0b1010_1010>(low, _mm256_srli_epi16::<4>(low));
    let second = _mm256_set1_epi16(0xFF00_u16.cast_signed());
    let pairs = _mm256_blendv_epi8(low, _mm256_srli_epi16::<2>(low), second);
    _mm256_and_si256(pairs, _mm256_set1_epi8(3))
}
