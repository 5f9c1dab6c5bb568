//! Activation blocks: a group of 256 values at a time, whose maxima, codes and sums stay in registers until they are
//! reduced together.

use crate::activations::{Acts, GROUP, Quantizer, Reach, TINY};
use crate::isa::Avx512;
use std::arch::x86_64::*;

/// [`Acts::quantize_block`] of this tier, for the blocks of a group.
pub(crate) fn quantizer(_: Avx512) -> Quantizer {
    |x, q, d, sums| {
        if let (Ok(x), Ok(q), Ok(sums)) = (x.try_into(), (&mut *q).try_into(), (&mut *sums).try_into()) {
            // SAFETY: the argument proves the tier.
            let done = unsafe {
                match d {
                    [d] => whole(x, q, d, sums),
                    _ => d.try_into().ok().and_then(|d| eighths(x, q, d, sums)),
                }
            };
            if let Some(reach) = done {
                return reach;
            }
        }
        // SAFETY: the argument proves the tier.
        Acts::quantize_blocks(x, q, d, sums, |x, q, sums| unsafe { quantize_block(x, q, sums) })
    }
}

/// Bits of the first magnitude that is not finite.
const INFINITE: i32 = 0x7f80_0000;

/// One block of 256; `None` if its maximum is too small or not finite.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn whole(x: &[f32; 256], q: &mut [i8; 256], d: &mut f32, sums: &mut [i16; 16]) -> Option<Reach> {
    let x = load(x);
    // Magnitudes compare like their bits, and those that are not finite are the largest.
    let mut largest = magnitudes(x[0]);
    for x in &x[1..] {
        largest = _mm512_max_epi32(largest, magnitudes(*x));
    }
    let amax = _mm512_reduce_max_epi32(largest);
    if !(TINY.to_bits() as i32..INFINITE).contains(&amax) {
        return None;
    }
    let amax = f32::from_bits(amax as u32);
    *d = amax / 127.0;
    let codes = codes(x, [_mm512_set1_ps(127.0 / amax); 8], q, sums);
    Some(reach(codes))
}

/// Eight blocks of 32; `None` if some maximum is too small or not finite.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn eighths(x: &[f32; 256], q: &mut [i8; 256], d: &mut [f32; 8], sums: &mut [i16; 16]) -> Option<Reach> {
    let x = load(x);
    let mut halves = [_mm256_setzero_si256(); 8];
    for b in 0..8 {
        let largest = _mm512_max_epi32(magnitudes(x[2 * b]), magnitudes(x[2 * b + 1]));
        halves[b] =
            _mm256_max_epi32(_mm512_castsi512_si256(largest), _mm512_extracti64x4_epi64::<1>(largest));
    }
    // Pairs, then fours of blocks side by side in every 128-bit lane, then both lanes.
    let pair = |a, b| _mm256_max_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let four = |a, b| _mm256_max_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let low = four(pair(halves[0], halves[1]), pair(halves[2], halves[3]));
    let high = four(pair(halves[4], halves[5]), pair(halves[6], halves[7]));
    let amax = _mm256_max_epi32(
        _mm256_permute2x128_si256::<0x20>(low, high),
        _mm256_permute2x128_si256::<0x31>(low, high),
    );
    let small = _mm256_cmplt_epi32_mask(amax, _mm256_set1_epi32(TINY.to_bits() as i32));
    let infinite = _mm256_cmpge_epi32_mask(amax, _mm256_set1_epi32(INFINITE));
    if small | infinite != 0 {
        return None;
    }
    let amax = _mm256_castsi256_ps(amax);
    let most = _mm256_set1_ps(127.0);
    let inverse = _mm512_castps256_ps512(_mm256_div_ps(most, amax));
    // SAFETY: 8 floats.
    unsafe { _mm256_storeu_ps(d.as_mut_ptr(), _mm256_div_ps(amax, most)) };
    let mut inverses = [_mm512_setzero_ps(); 8];
    for (b, of_block) in inverses.iter_mut().enumerate() {
        *of_block = _mm512_permutexvar_ps(_mm512_set1_epi32(b as i32), inverse);
    }
    codes(x, inverses, q, sums);
    Some(Reach::UNKNOWN)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(x: &[f32; 256]) -> [__m512; 16] {
    let mut values = [_mm512_setzero_ps(); 16];
    for (value, x) in values.iter_mut().zip(x.as_chunks::<16>().0) {
        // The token's next group, whose turn comes after other tokens'.
        // SAFETY: a hint; 16 floats.
        *value = unsafe {
            _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().wrapping_add(GROUP).cast());
            _mm512_loadu_ps(x.as_ptr())
        };
    }
    values
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn magnitudes(x: __m512) -> __m512i {
    _mm512_castps_si512(_mm512_abs_ps(x))
}

/// Codes and their sums; there is an inverse for each 32 values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn codes(x: [__m512; 16], inverses: [__m512; 8], q: &mut [i8; 256], sums: &mut [i16; 16]) -> [__m512i; 4] {
    // From dword `i` of lane `l` to dword `l` of lane `i`.
    let turn = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let (mut all_codes, mut fours) = ([_mm512_setzero_si512(); 4], [_mm512_setzero_si512(); 4]);
    for (i, q) in q.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        // Rounds to nearest even; no product is beyond 127.5.
        let code = |v: usize| _mm512_cvtps_epi32(_mm512_mul_ps(x[v], inverses[v / 2]));
        let low = _mm512_packs_epi32(code(4 * i), code(4 * i + 1));
        let high = _mm512_packs_epi32(code(4 * i + 2), code(4 * i + 3));
        let codes = _mm512_permutexvar_epi32(turn, _mm512_packs_epi16(low, high));
        // SAFETY: 64 bytes.
        unsafe { _mm512_storeu_si512(q.as_mut_ptr().cast(), codes) };
        all_codes[i] = codes;
        fours[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), codes);
    }
    let pair = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (a, b) = (pair(fours[0], fours[1]), pair(fours[2], fours[3]));
    let all = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    let all = _mm512_cvtepi32_epi16(_mm512_permutexvar_epi32(turn, all));
    // SAFETY: 32 bytes.
    unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), all) };
    all_codes
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn reach(codes: [__m512i; 4]) -> Reach {
    let zero = _mm512_setzero_si512();
    // Sums of the 16 bytes of a 128-bit lane, in both of its qwords.
    let sum_16 = |bytes| {
        let eights = _mm512_sad_epu8(bytes, zero);
        _mm512_add_epi64(eights, _mm512_shuffle_epi32::<0x4e>(eights))
    };
    let sum_32 = |sums| _mm512_add_epi64(sums, _mm512_shuffle_i64x2::<0xb1>(sums, sums));
    let (mut of_16, mut of_32) = (zero, zero);
    for codes in codes {
        let all = sum_16(_mm512_abs_epi8(codes));
        let positive = sum_16(_mm512_max_epi8(codes, zero));
        let negative = _mm512_sub_epi64(all, positive);
        of_16 = _mm512_max_epi32(of_16, all);
        of_32 = _mm512_max_epi32(of_32, _mm512_max_epi32(sum_32(positive), sum_32(negative)));
    }
    // At most 16 * 127 and 32 * 127.
    let of_16 = _mm512_reduce_max_epi32(of_16) as u16;
    Reach { of_16, one_sign_of_32: _mm512_reduce_max_epi32(of_32) as u16 }
}

/// A block of any length, by itself.
///
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
