//! Activation blocks: the 256-bit `quantize_block`.

use crate::activations::{Acts, Quantizer, Reach, TINY};
use crate::isa::Avx2;
use std::arch::x86_64::*;

/// [`Acts::quantize_block`] of this tier.
pub(crate) fn quantizer(_: Avx2) -> Quantizer {
    // SAFETY: the argument proves the tier.
    |x, q, d, sums| unsafe { blocks(x, q, d, sums) }
}

/// # Safety
/// The CPU has the tier.
#[target_feature(enable = "avx2")]
unsafe fn blocks(x: &[f32], q: &mut [i8], d: &mut [f32], sums: &mut [i16]) -> Reach {
    // SAFETY: as the caller promises.
    Acts::quantize_blocks(x, q, d, sums, |x, q, sums| unsafe { quantize_block(x, q, sums) })
}

/// # Safety
/// The CPU has the tier.
#[target_feature(enable = "avx2")]
unsafe fn quantize_block(x: &[f32], q: &mut [i8], sums: &mut [i16]) -> f32 {
    // Magnitudes compare like their bits, and those that are not finite are the largest.
    let magnitude = _mm256_set1_epi32(i32::MAX);
    let mut largest = _mm256_setzero_si256();
    for x in x.as_chunks::<8>().0 {
        // SAFETY: 8 floats.
        let x = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
        largest = _mm256_max_epi32(largest, _mm256_and_si256(x, magnitude));
    }
    let mut bits = [0u32; 8];
    // SAFETY: 32 bytes.
    unsafe { _mm256_storeu_si256(bits.as_mut_ptr().cast(), largest) };
    let amax = f32::from_bits(bits.into_iter().fold(0, u32::max));
    if !amax.is_finite() || amax < TINY {
        return Acts::quantize_block(x, q, sums);
    }
    let inverse = _mm256_set1_ps(127.0 / amax);
    for ((x, q), sum) in x.as_chunks::<16>().0.iter().zip(q.as_chunks_mut::<16>().0).zip(sums) {
        // SAFETY: 16 floats.
        let (low, high) = unsafe { (_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x[8..].as_ptr())) };
        // Rounds to nearest even; no product is beyond 127.5.
        let low = _mm256_cvtps_epi32(_mm256_mul_ps(low, inverse));
        let high = _mm256_cvtps_epi32(_mm256_mul_ps(high, inverse));
        // Packing goes by halves of the registers; the permutation brings the 16 codes back in order.
        let codes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
        let (first, second) = (_mm256_castsi256_si128(codes), _mm256_extracti128_si256::<1>(codes));
        // SAFETY: 16 bytes.
        unsafe { _mm_storeu_si128(q.as_mut_ptr().cast(), _mm_packs_epi16(first, second)) };
        let fours = _mm_madd_epi16(_mm_add_epi16(first, second), _mm_set1_epi16(1));
        let twos = _mm_add_epi32(fours, _mm_shuffle_epi32::<0b01_00_11_10>(fours));
        let one = _mm_add_epi32(twos, _mm_shuffle_epi32::<0b10_11_00_01>(twos));
        *sum = _mm_cvtsi128_si32(one) as i16;
    }
    amax / 127.0
}
