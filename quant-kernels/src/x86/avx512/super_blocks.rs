//! Steps of super-blocks: integer scales for sub-blocks, f32 terms for 256 values.
//!
//! The integer sums of two sub-blocks are joined as two i16, which one `vpdpwssd` scales and adds. Whether they fit is known
//! from bounds of the activations ([`crate::activations::Reach`]), or seen in the sums; those that do not are scaled one
//! by one. Two sub-blocks at a time are under way, so that sums hide each other's latency.

use super::panel::{Format, Panel, Steps};
use super::step::{Chunk, Fetch, PARTS, Tokens, by_tokens, dot, dpwssd, four_times, resume, store_f32, term};
use crate::activations::Reach;
use std::arch::x86_64::*;

/// Where the sum of a sub-block begins, so that those that fit i16 are told by their upper halves being zero.
const BIAS: i32 = 1 << 15;

/// The sums of a token's activations that meet the two i16 of [`Panel::sums`]: of 16 values each, or of 32.
///
/// # Safety
/// 16 sums can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn pairs<const SUB: usize>(sums: *const i16) -> [i32; 8] {
    let mut pairs = [0; 8];
    // SAFETY: the caller vouches for the sums; stores of at most 32 bytes.
    unsafe {
        let sums = _mm256_loadu_si256(sums.cast());
        if SUB == 32 {
            // At most 32 * 127 each.
            let sums = _mm256_cvtepi32_epi16(_mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
            _mm_storeu_si128(pairs.as_mut_ptr().cast(), sums);
        } else {
            _mm256_storeu_si256(pairs.as_mut_ptr().cast(), sums);
        }
    }
    pairs
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(v: &[i32; 16]) -> __m512i {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(v.as_ptr().cast()) }
}

/// Adds the products of sub-blocks `2j` and `2j + 1`, of `SUB` values each. No function: the compiler might leave it one,
/// and sums would go through memory.
macro_rules! pair_dots {
    ($panels:ident, $at:ident, $j:ident, $dots:ident) => {
        assert!((2 * $j + 2) * SUB <= 256, "sub-blocks of 256 values");
        four_times!(k, pair_dots!(@ $panels, $at, $j, $dots, k));
        if SUB == 32 {
            four_times!(k, pair_dots!(@ $panels, $at, $j, $dots, 4 + k));
        }
    };
    (@ $panels:ident, $at:ident, $j:ident, $dots:ident, $k:expr) => {
        for half in 0..2 {
            let k = (2 * $j + half) * (SUB / 4) + $k;
            // SAFETY: `k < 64`, and who made `at` has checked 256 codes of each of T tokens.
            unsafe { dot($panels, k, $at.q(0, 0).add(4 * k), 256, &mut $dots[half]) };
        }
    };
}

/// `SUB` values share an integer scale.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn pair_steps<F: Format, const P: usize, const SUB: usize, const T: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]],
) {
    by_tokens!(256, T, pair_step::<F, P, SUB>, panels, x, fetch, acc);
}

/// [`pair_steps`] for sums of any size.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn wide_steps<F: Format, const P: usize, const SUB: usize, const T: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]],
) {
    by_tokens!(256, T, wide_step::<F, P, SUB>, panels, x, fetch, acc);
}

/// Super-blocks whose codes have the scales in them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn scaled_codes<F: Format, const P: usize, const T: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]],
) {
    by_tokens!(256, T, scaled_step::<F, P>, panels, x, fetch, acc);
}

/// The largest bound of sums over `SUB` codes.
#[inline]
fn reach<const SUB: usize>(reach: &[Reach]) -> u16 {
    reach.iter().map(|reach| if SUB == 16 { reach.of_16 } else { reach.one_sign_of_32 }).max().unwrap_or(0)
}

/// [`pair_steps`] for `T` tokens.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn pair_step<F: Format, const P: usize, const SUB: usize, const T: usize>(
    panels: &[Panel; P],
    x: Chunk<'_, 256, T>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]; T],
) {
    match F::NARROW {
        None => narrow_step::<F, P, SUB, true, T>(panels, x, fetch, acc),
        Some(most) if reach::<SUB>(&x.reach[..T]) <= most => {
            narrow_step::<F, P, SUB, false, T>(panels, x, fetch, acc);
        }
        Some(_) => checked_step::<F, P, SUB, T>(panels, x, fetch, acc),
    }
}

/// [`narrow_step`] for types of which few blocks need the check: apart, so that the others have all registers.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn checked_step<F: Format, const P: usize, const SUB: usize, const T: usize>(
    panels: &[Panel; P],
    x: Chunk<'_, 256, T>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]; T],
) {
    narrow_step::<F, P, SUB, true, T>(panels, x, fetch, acc);
}

/// [`pair_step`] where sums fit i16, or with `CHECK` where it is to be seen whether they do.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn narrow_step<F: Format, const P: usize, const SUB: usize, const CHECK: bool, const T: usize>(
    panels: &[Panel; P],
    x: Chunk<'_, 256, T>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]; T],
) {
    let at = x.at;
    let zero = _mm512_setzero_si512();
    let bias = _mm512_set1_epi32(if CHECK { BIAS } else { 0 });
    let mut isum = [[zero; P]; T];
    let mut seen = zero;
    for j in 0..128 / SUB {
        if (j * PARTS).is_multiple_of(128 / SUB) {
            fetch.some();
        }
        let mut dots = begin::<F, P, T>(x, j);
        if CHECK {
            for half in 0..2 {
                for t in 0..T {
                    dots[half][t] = [_mm512_add_epi32(dots[half][t][0], bias); P];
                }
            }
        }
        pair_dots!(panels, at, j, dots);
        for p in 0..P {
            let scales = load(&panels[p].scales[j]);
            for t in 0..T {
                let (a, b) = (dots[0][t][p], dots[1][t][p]);
                let mut pair = _mm512_mask_blend_epi16(0xaaaa_aaaa, a, _mm512_slli_epi32::<16>(b));
                if CHECK {
                    // seen | a | b
                    seen = _mm512_ternarylogic_epi32::<0xfe>(seen, a, b);
                    pair = _mm512_xor_si512(pair, _mm512_set1_epi16(i16::MIN));
                }
                isum[t][p] = dpwssd(isum[t][p], pair, scales);
            }
        }
    }
    if CHECK && _mm512_test_epi32_mask(seen, _mm512_set1_epi32(!0xffff)) != 0 {
        return seldom::<F, P, SUB, T>(panels, x, fetch, acc);
    }
    finish::<F, P, SUB, T>(panels, x, isum, acc);
}

/// Where the sums of sub-blocks `2j` and `2j + 1` begin.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn begin<F: Format, const P: usize, const T: usize>(
    x: Chunk<'_, 256, T>,
    j: usize,
) -> [[[__m512i; P]; T]; 2] {
    let mut dots = [[[_mm512_setzero_si512(); P]; T]; 2];
    if F::OFFSET.is_some() {
        for half in 0..2 {
            for t in 0..T {
                dots[half][t] = [_mm512_set1_epi32(x.starts[t][2 * j + half]); P];
            }
        }
    }
    dots
}

/// [`wide_step`] for types of which few blocks need it.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn seldom<F: Format, const P: usize, const SUB: usize, const T: usize>(
    panels: &[Panel; P],
    x: Chunk<'_, 256, T>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]; T],
) {
    wide_step::<F, P, SUB, T>(panels, x, fetch, acc);
}

/// [`pair_step`] for sums of any size: each is multiplied with its scale.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn wide_step<F: Format, const P: usize, const SUB: usize, const T: usize>(
    panels: &[Panel; P],
    x: Chunk<'_, 256, T>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]; T],
) {
    let at = x.at;
    let mut isum = [[_mm512_setzero_si512(); P]; T];
    for j in 0..128 / SUB {
        if (j * PARTS).is_multiple_of(128 / SUB) {
            fetch.some();
        }
        let mut dots = begin::<F, P, T>(x, j);
        pair_dots!(panels, at, j, dots);
        for p in 0..P {
            let pair = load(&panels[p].scales[j]);
            let scales = [_mm512_slli_epi32::<16>(pair), pair].map(|upper| _mm512_srai_epi32::<16>(upper));
            for t in 0..T {
                for half in 0..2 {
                    let scaled = _mm512_mullo_epi32(dots[half][t][p], scales[half]);
                    isum[t][p] = _mm512_add_epi32(isum[t][p], scaled);
                }
            }
        }
    }
    finish::<F, P, SUB, T>(panels, x, isum, acc);
}

/// [`scaled_codes`] for `T` tokens.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn scaled_step<F: Format, const P: usize, const T: usize>(
    panels: &[Panel; P],
    x: Chunk<'_, 256, T>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]; T],
) {
    let at = x.at;
    let mut dots = [[[_mm512_setzero_si512(); P]; T]; 2];
    if let Some(offset) = F::OFFSET {
        for t in 0..T {
            // SAFETY: `blocks` has checked T tokens.
            dots[0][t] = [unsafe { whole_start(at.sums(0, t), offset) }; P];
        }
    }
    for j in 0..PARTS {
        fetch.some();
        for k in 0..8 {
            for half in 0..2 {
                let k = 16 * j + 2 * k + half;
                // SAFETY: `k < 64`, and `blocks` has checked 256 codes of each of T tokens.
                unsafe { dot(panels, k, at.q(0, 0).add(4 * k), 256, &mut dots[half]) };
            }
        }
    }
    let mut isum = dots[0];
    for t in 0..T {
        for p in 0..P {
            isum[t][p] = _mm512_add_epi32(isum[t][p], dots[1][t][p]);
        }
    }
    finish::<F, P, 16, T>(panels, x, isum, acc);
}

/// Where the sum of a whole block begins if codes have an offset, from the sums of 16 activations.
///
/// # Safety
/// 16 sums can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn whole_start(sums: *const i16, offset: i16) -> __m512i {
    // SAFETY: as the caller promises.
    let sums = unsafe { _mm256_loadu_si256(sums.cast()) };
    let eight = _mm256_madd_epi16(sums, _mm256_set1_epi16(-offset));
    let four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0x4e>(four));
    _mm512_broadcastd_epi32(_mm_add_epi32(two, _mm_shuffle_epi32::<0xb1>(two)))
}

/// Adds the f32 terms of a super-block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn finish<F: Format, const P: usize, const SUB: usize, const T: usize>(
    panels: &[Panel; P],
    x: Chunk<'_, 256, T>,
    mut isum: [[__m512i; P]; T],
    acc: &mut [[[f32; 16]; P]; T],
) {
    let at = x.at;
    if adds_sums::<F>() {
        for t in 0..T {
            // SAFETY: `blocks` has checked T tokens.
            let sums = unsafe { pairs::<SUB>(at.sums(0, t)) };
            for p in 0..P {
                isum[t][p] = add_sums::<SUB>(isum[t][p], sum_factors::<SUB>(&panels[p]), &sums);
            }
        }
    }
    for t in 0..T {
        // SAFETY: `blocks` has checked T tokens.
        let dx = _mm512_set1_ps(unsafe { *at.d(0, t) });
        for p in 0..P {
            let term = term(&panels[p].d[0], dx, isum[t][p]);
            let sum = _mm512_add_ps(resume(x.earlier, &acc[t][p]), term);
            store_f32(&mut acc[t][p], sum);
        }
    }
}

/// Whether the products of [`Panel::sums`] belong to the integer sum.
const fn adds_sums<F: Format>() -> bool {
    F::OFFSET.is_none() && matches!(F::STEPS, Steps::Super { minima: false, .. })
}

/// [`Panel::sums`] as they meet [`pairs`]: 8 of 16 values, or 4 of 32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn sum_factors<const SUB: usize>(panel: &Panel) -> [__m512i; 8] {
    let mut factors = [_mm512_setzero_si512(); 8];
    for j in 0..128 / SUB {
        factors[j] = if SUB == 32 {
            let (a, b) = (load(&panel.sums[2 * j]), load(&panel.sums[2 * j + 1]));
            _mm512_mask_blend_epi16(0xaaaa_aaaa, a, b)
        } else {
            load(&panel.sums[j])
        };
    }
    factors
}

/// Adds the products of [`Panel::sums`] and a token's sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn add_sums<const SUB: usize>(mut isum: __m512i, factors: [__m512i; 8], sums: &[i32; 8]) -> __m512i {
    for j in 0..128 / SUB {
        isum = dpwssd(isum, factors[j], _mm512_set1_epi32(sums[j]));
    }
    isum
}

/// Terms of minima whose [`Panel::sums`] are of `SUB` values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn minima<const P: usize, const SUB: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    acc: &mut [[[f32; 16]; P]],
) {
    let at = x.blocks::<256>(acc.len());
    // Put together before the loop over tokens, which has multiplications enough to do.
    let mut factors = [[_mm512_setzero_si512(); 8]; P];
    for p in 0..P {
        factors[p] = sum_factors::<SUB>(&panels[p]);
    }
    for (chunk, acc) in acc.chunks_mut(PAIRED).enumerate() {
        let first = chunk * PAIRED;
        let mut sums = [[0; 8]; PAIRED];
        for (t, sums) in sums[..acc.len()].iter_mut().enumerate() {
            // SAFETY: `blocks` has checked these tokens.
            *sums = unsafe { pairs::<SUB>(at.sums(0, first + t)) };
        }
        for (t, (acc, sums)) in acc.iter_mut().zip(&sums).enumerate() {
            // SAFETY: `blocks` has checked these tokens.
            let dx = _mm512_set1_ps(unsafe { *at.d(0, first + t) });
            for p in 0..P {
                let isum = add_sums::<SUB>(_mm512_setzero_si512(), factors[p], sums);
                let sum = _mm512_add_ps(resume(x.earlier(), &acc[p]), term(&panels[p].dmin, dx, isum));
                store_f32(&mut acc[p], sum);
            }
        }
    }
}

/// Tokens whose sums are paired at a time.
const PAIRED: usize = 32;
