//! Activation blocks: the 512-bit `quantize_block`.

use crate::activations::{Acts, TINY};
use crate::isa::Avx512;
use std::arch::x86_64::*;

/// [`Acts::quantize_block`] of this tier.
pub(crate) fn quantizer(_: Avx512) -> fn(&[f32], &mut [i8], &mut [i16]) -> f32 {
    // SAFETY: the argument proves the tier.
    |x, q, sums| unsafe { quantize_block(x, q, sums) }
}

/// # Safety
/// The CPU has the tier.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn quantize_block(x: &[f32], q: &mut [i8], sums: &mut [i16]) -> f32 {
    // Magnitudes compare like their bits, and those that are not finite are the largest.
    let mut amax = _mm512_setzero_si512();
    for x in x.as_chunks::<16>().0 {
        // SAFETY: 16 floats.
        let x = unsafe { _mm512_loadu_ps(x.as_ptr()) };
        amax = _mm512_max_epi32(amax, _mm512_castps_si512(_mm512_abs_ps(x)));
    }
    let amax = f32::from_bits(_mm512_reduce_max_epi32(amax) as u32);
    if !amax.is_finite() || amax < TINY {
        return Acts::quantize_block(x, q, sums);
    }
    let inverse = _mm512_set1_ps(127.0 / amax);
    for ((x, q), sum) in x.as_chunks::<16>().0.iter().zip(q.as_chunks_mut::<16>().0).zip(sums) {
        // SAFETY: 16 floats.
        let x = unsafe { _mm512_loadu_ps(x.as_ptr()) };
        // Rounds to nearest even; no product is beyond 127.5.
        let codes = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
        // SAFETY: 16 bytes.
        unsafe { _mm_storeu_si128(q.as_mut_ptr().cast(), _mm512_cvtsepi32_epi8(codes)) };
        *sum = _mm512_reduce_add_epi32(codes) as i16;
    }
    amax / 127.0
}
