//! NVFP4: 4-bit floats with an E4M3 scale for each 16.

use super::codes::{both, entries, load16};
use super::format::{Blocks, CHUNKS, Format, Steps, bytes};
use super::mxfp4::LEVELS;
use std::arch::x86_64::*;

/// The format.
pub(super) struct Nvfp4;

impl Format for Nvfp4 {
    const VALUES: usize = 64;
    const BYTES: usize = 36;
    const STEPS: Steps = Steps::Float(16);
    const TOP: u16 = 24;
    const OFFSET: i16 = 12;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS] {
        let mask = _mm_set1_epi8(15);
        let mut codes = [_mm256_setzero_si256(); CHUNKS];
        for (i, codes) in codes.iter_mut().enumerate().take(2) {
            // SAFETY: bytes 4..36 of the block.
            let bytes = unsafe { load16(block.add(4 + 16 * i)) };
            let (low, high) = (_mm_and_si128(bytes, mask), _mm_and_si128(_mm_srli_epi16::<4>(bytes), mask));
            // Each 8 bytes hold 16 values.
            let nibbles = both(_mm_unpacklo_epi64(low, high), _mm_unpackhi_epi64(low, high));
            *codes = entries(LEVELS, nibbles);
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn d(blocks: Blocks) -> [__m256; 4] {
        let mut d = [_mm256_setzero_ps(); 4];
        for (i, d) in d.iter_mut().enumerate() {
            // SAFETY: bytes 0..4 of each block.
            *d = half_scale(unsafe { bytes(blocks, i) });
        }
        d
    }
}

/// Half of unsigned E4M3 values (bit 7 ignored, 0x7F is 0). Every product is exact.
#[inline]
#[target_feature(enable = "avx2")]
fn half_scale(bytes: __m256i) -> __m256 {
    let code = _mm256_and_si256(bytes, _mm256_set1_epi32(127));
    // Exponent and mantissa where those of an f32 lie; the biases differ by 127 - 7, and one for the half.
    let normal = _mm256_add_epi32(_mm256_slli_epi32::<20>(code), _mm256_set1_epi32((127 - 8) << 23));
    let subnormal = _mm256_mul_ps(_mm256_cvtepi32_ps(code), _mm256_set1_ps(1.0 / 1024.0));
    let small = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(8), code));
    let value = _mm256_blendv_ps(_mm256_castsi256_ps(normal), subnormal, small);
    let none = _mm256_castsi256_ps(_mm256_cmpeq_epi32(bytes, _mm256_set1_epi32(127)));
    _mm256_andnot_ps(none, value)
}
