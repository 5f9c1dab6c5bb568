//! Activation blocks in 512-bit registers.

use super::linear::{add_lanes, in_order};
use crate::activations::{Acts, Codes, Quantizer, TINY};
use crate::isa::Avx512;
use std::arch::x86_64::*;

/// Quantizes runs of blocks, with the bits of [`Acts::quantize_block`].
pub(crate) fn quantizer(_: Avx512) -> Quantizer {
    |x, codes| {
        // SAFETY: the argument proves the tier.
        unsafe { if codes.len == 256 { blocks_256(x, codes) } else { blocks_32(x, codes) } }
    }
}

/// # Safety
/// The CPU has the tier.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn blocks_32(x: &[f32], codes: Codes<'_>) {
    codes.fill::<32>(x, |x, q, sums| {
        let Some((values, inverse, d)) = scaled::<2>(x) else { return Acts::quantize_block(x, q, sums) };
        let words = _mm512_packs_epi32(to_i32(values[0], inverse), to_i32(values[1], inverse));
        // In every lane four codes of the first register, four of the second one, and both again.
        let bytes = _mm512_castsi512_si256(in_order(_mm512_packs_epi16(words, words)));
        // Sums of eight, 128 too large for each code.
        let eights = _mm256_sad_epu8(_mm256_xor_si256(bytes, _mm256_set1_epi8(-128)), _mm256_setzero_si256());
        let sixteens = _mm256_add_epi64(eights, _mm256_shuffle_epi32::<0x4e>(eights));
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(q.as_mut_ptr().cast(), bytes) };
        for (sum, lane) in sums.iter_mut().zip([sixteens, _mm256_permute4x64_epi64::<0x0e>(sixteens)]) {
            *sum = (_mm256_cvtsi256_si32(lane) - 16 * 128) as i16;
        }
        d
    });
}

/// # Safety
/// The CPU has the tier.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn blocks_256(x: &[f32], codes: Codes<'_>) {
    codes.fill::<256>(x, |x, q, sums| {
        let Some((values, inverse, d)) = scaled::<16>(x) else { return Acts::quantize_block(x, q, sums) };
        let mut fours = [_mm512_setzero_si512(); 4];
        for (i, q) in q.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            let words = |k: usize| {
                let (a, b) = (values[4 * i + k], values[4 * i + k + 1]);
                _mm512_packs_epi32(to_i32(a, inverse), to_i32(b, inverse))
            };
            // In every lane four codes of each register.
            let bytes = _mm512_packs_epi16(words(0), words(2));
            // SAFETY: 64 bytes.
            unsafe { _mm512_storeu_si512(q.as_mut_ptr().cast(), in_order(bytes)) };
            fours[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), bytes);
        }
        let sixteens = _mm512_cvtepi32_epi16(add_lanes(fours));
        assert!(sums.len() == 16);
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), sixteens) };
        d
    });
}

/// The `16 * N` values of a block, the factor that makes codes of them, and the scale; `None` for blocks that have no
/// such factor.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn scaled<const N: usize>(x: &[f32]) -> Option<([__m512; N], __m512, f32)> {
    let mut values = [_mm512_setzero_ps(); N];
    // Magnitudes compare like their bits, and those that are not finite are the largest.
    let mut largest = _mm512_setzero_si512();
    for (value, x) in values.iter_mut().zip(x.as_chunks::<16>().0) {
        // SAFETY: 16 floats.
        *value = unsafe { _mm512_loadu_ps(x.as_ptr()) };
        largest = _mm512_max_epi32(largest, _mm512_castps_si512(_mm512_abs_ps(*value)));
    }
    let amax = f32::from_bits(_mm512_reduce_max_epi32(largest) as u32);
    if !amax.is_finite() || amax < TINY {
        return None;
    }
    Some((values, _mm512_set1_ps(127.0 / amax), amax / 127.0))
}

/// Rounds to nearest even; no product is beyond 127.5.
#[inline]
#[target_feature(enable = "avx512f")]
fn to_i32(x: __m512, inverse: __m512) -> __m512i {
    _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse))
}
