//! Steps of super-blocks: integer scales for sub-blocks, f32 terms for 256 values.
//!
//! The integer sums of two sub-blocks are joined as two i16, which one `vpdpwssd` scales and adds. Sums that do not fit
//! i16 (only contrived inputs have them) are noticed and done again, one by one. Two sub-blocks at a time are under way,
//! so that sums hide each other's latency.

use super::panel::{Format, Panel, Steps};
use super::step::{Blocks, Fetch, PARTS, Tokens, broadcast, dot, load_f32, store_f32, term};
use std::arch::x86_64::*;

/// Where the sum of a sub-block begins, so that those that fit i16 are told by their upper halves being zero.
const BIAS: i32 = 1 << 15;

/// Something of 64 bytes that is broadcast lane by lane.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Lanes([i32; 16]);

/// Where the sums of a token's sub-blocks begin if codes have an offset, from the sums of 16 activations; plus `bias`.
///
/// # Safety
/// 16 sums can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn starts<const SUB: usize>(sums: *const i16, offset: i16, bias: i32) -> Lanes {
    let mut lanes = Lanes([0; 16]);
    // SAFETY: the caller vouches for the sums; stores of 64 bytes.
    unsafe {
        let sums = _mm256_loadu_si256(sums.cast());
        let products = if SUB == 32 {
            _mm512_zextsi256_si512(_mm256_madd_epi16(sums, _mm256_set1_epi16(-offset)))
        } else {
            _mm512_mullo_epi32(_mm512_cvtepi16_epi32(sums), _mm512_set1_epi32((-offset).into()))
        };
        let starts = _mm512_add_epi32(products, _mm512_set1_epi32(bias));
        _mm512_store_si512(lanes.0.as_mut_ptr().cast(), starts);
    }
    lanes
}

/// The sums of a token's activations that meet the two i16 of [`Panel::sums`]: of 16 values each, or of 32.
///
/// # Safety
/// 16 sums can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn pairs<const SUB: usize>(sums: *const i16) -> Lanes {
    let mut lanes = Lanes([0; 16]);
    // SAFETY: the caller vouches for the sums; stores of at most 64 bytes.
    unsafe {
        let sums = _mm256_loadu_si256(sums.cast());
        if SUB == 32 {
            // At most 32 * 127 each.
            let sums = _mm256_cvtepi32_epi16(_mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
            _mm_storeu_si128(lanes.0.as_mut_ptr().cast(), sums);
        } else {
            _mm256_storeu_si256(lanes.0.as_mut_ptr().cast(), sums);
        }
    }
    lanes
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(v: &[i32; 16]) -> __m512i {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(v.as_ptr().cast()) }
}

/// `SUB` values share an integer scale.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn step<F: Format, const P: usize, const T: usize, const SUB: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]; T],
) {
    let at = x.blocks::<256>(T);
    let zero = _mm512_setzero_si512();
    let mut start = [Lanes([0; 16]); T];
    if let Some(offset) = F::OFFSET {
        for t in 0..T {
            // SAFETY: `blocks` has checked T tokens.
            start[t] = unsafe { starts::<SUB>(at.sums(0, t), offset, BIAS) };
        }
    }
    let mut isum = [[zero; P]; T];
    let mut seen = zero;
    for j in 0..128 / SUB {
        if (j * PARTS).is_multiple_of(128 / SUB) {
            fetch.some();
        }
        let mut dots = [[[_mm512_set1_epi32(BIAS); P]; T]; 2];
        if F::OFFSET.is_some() {
            for half in 0..2 {
                for t in 0..T {
                    // SAFETY: `2 * j + half < 16`.
                    dots[half][t] = [unsafe { broadcast(start[t].0.as_ptr().add(2 * j + half)) }; P];
                }
            }
        }
        for k in 0..SUB / 4 {
            for half in 0..2 {
                let k = (2 * j + half) * (SUB / 4) + k;
                // SAFETY: `k < 64`, and `blocks` has checked 256 codes of each of T tokens.
                unsafe { dot(panels, k, at.q(0, 0).add(4 * k), 256, &mut dots[half]) };
            }
        }
        for p in 0..P {
            let scales = load(&panels[p].scales[j]);
            for t in 0..T {
                let (a, b) = (dots[0][t][p], dots[1][t][p]);
                // seen | a | b
                seen = _mm512_ternarylogic_epi32::<0xfe>(seen, a, b);
                let pair = _mm512_mask_blend_epi16(0xaaaa_aaaa, a, _mm512_slli_epi32::<16>(b));
                let pair = _mm512_xor_si512(pair, _mm512_set1_epi16(i16::MIN));
                isum[t][p] = _mm512_dpwssd_epi32(isum[t][p], pair, scales);
            }
        }
    }
    if _mm512_test_epi32_mask(seen, _mm512_set1_epi32(!0xffff)) != 0 {
        return wide_super_blocks::<F, P, SUB>(panels, x, acc);
    }
    finish::<F, P, T, SUB>(panels, at, isum, acc);
}

/// [`step`] for sub-blocks of 32 with codes so large that sums seldom fit i16: each is multiplied with its scale.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn wide_step<F: Format, const P: usize, const T: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]; T],
) {
    let at = x.blocks::<256>(T);
    let mut start = [Lanes([0; 16]); T];
    for t in 0..T {
        // SAFETY: `blocks` has checked T tokens.
        start[t] = unsafe { starts::<32>(at.sums(0, t), F::OFFSET.unwrap_or(0), 0) };
    }
    let mut isum = [[_mm512_setzero_si512(); P]; T];
    for j in 0..PARTS {
        fetch.some();
        let mut dots = [[[_mm512_setzero_si512(); P]; T]; 2];
        for half in 0..2 {
            for t in 0..T {
                // SAFETY: `2 * j + half < 8`.
                dots[half][t] = [unsafe { broadcast(start[t].0.as_ptr().add(2 * j + half)) }; P];
            }
        }
        for k in 0..8 {
            for half in 0..2 {
                let k = (2 * j + half) * 8 + k;
                // SAFETY: `k < 64`, and `blocks` has checked 256 codes of each of T tokens.
                unsafe { dot(panels, k, at.q(0, 0).add(4 * k), 256, &mut dots[half]) };
            }
        }
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
    finish::<F, P, T, 32>(panels, at, isum, acc);
}

/// Super-blocks whose codes have the scales in them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn scaled_codes<F: Format, const P: usize, const T: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]; T],
) {
    let at = x.blocks::<256>(T);
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
    finish::<F, P, T, 16>(panels, at, isum, acc);
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
fn finish<F: Format, const P: usize, const T: usize, const SUB: usize>(
    panels: &[Panel; P],
    at: Blocks<256>,
    mut isum: [[__m512i; P]; T],
    acc: &mut [[[f32; 16]; P]; T],
) {
    if adds_sums::<F>() {
        for t in 0..T {
            // SAFETY: `blocks` has checked T tokens.
            let sums = unsafe { pairs::<SUB>(at.sums(0, t)) };
            for p in 0..P {
                isum[t][p] = add_sums::<SUB>(isum[t][p], &panels[p], &sums);
            }
        }
    }
    for t in 0..T {
        // SAFETY: `blocks` has checked T tokens.
        let dx = _mm512_set1_ps(unsafe { *at.d(0, t) });
        for p in 0..P {
            let term = term(&panels[p].d[0], dx, isum[t][p]);
            let sum = _mm512_add_ps(load_f32(&acc[t][p]), term);
            store_f32(&mut acc[t][p], sum);
        }
    }
}

/// Whether the products of [`Panel::sums`] belong to the integer sum.
const fn adds_sums<F: Format>() -> bool {
    F::OFFSET.is_none() && matches!(F::STEPS, Steps::Super { minima: false, .. })
}

/// Adds the products of [`Panel::sums`] and a token's sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn add_sums<const SUB: usize>(mut isum: __m512i, panel: &Panel, sums: &Lanes) -> __m512i {
    for j in 0..128 / SUB {
        let factors = if SUB == 32 {
            let (a, b) = (load(&panel.sums[2 * j]), load(&panel.sums[2 * j + 1]));
            _mm512_mask_blend_epi16(0xaaaa_aaaa, a, b)
        } else {
            load(&panel.sums[j])
        };
        isum = _mm512_dpwssd_epi32(isum, factors, _mm512_set1_epi32(sums.0[j]));
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
    for (t, acc) in acc.iter_mut().enumerate() {
        // SAFETY: `blocks` has checked these tokens.
        let (sums, dx) = unsafe { (pairs::<SUB>(at.sums(0, t)), _mm512_set1_ps(*at.d(0, t))) };
        for p in 0..P {
            let isum = add_sums::<SUB>(_mm512_setzero_si512(), &panels[p], &sums);
            let sum = _mm512_add_ps(load_f32(&acc[p]), term(&panels[p].dmin, dx, isum));
            store_f32(&mut acc[p], sum);
        }
    }
}

/// [`step`] for sums of any size.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn wide_super_blocks<F: Format, const P: usize, const SUB: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    acc: &mut [[[f32; 16]; P]],
) {
    let at = x.blocks::<256>(acc.len());
    for (t, acc) in acc.iter_mut().enumerate() {
        // SAFETY: `blocks` has checked these tokens.
        let (start, pairs, dx) = unsafe {
            let start = starts::<SUB>(at.sums(0, t), F::OFFSET.unwrap_or(0), 0);
            (start, pairs::<SUB>(at.sums(0, t)), _mm512_set1_ps(*at.d(0, t)))
        };
        for (panel, acc) in panels.iter().zip(acc) {
            let mut isum = _mm512_setzero_si512();
            for j in 0..256 / SUB {
                let mut dots = [[_mm512_set1_epi32(start.0[j])]];
                for k in j * SUB / 4..(j + 1) * SUB / 4 {
                    // SAFETY: `k < 64`, and `blocks` has checked the codes.
                    unsafe { dot(std::array::from_ref(panel), k, at.q(0, t).add(4 * k), 0, &mut dots) };
                }
                let pair = load(&panel.scales[j / 2]);
                let upper = if j.is_multiple_of(2) { _mm512_slli_epi32::<16>(pair) } else { pair };
                let scale = _mm512_srai_epi32::<16>(upper);
                isum = _mm512_add_epi32(isum, _mm512_mullo_epi32(dots[0][0], scale));
            }
            if adds_sums::<F>() {
                isum = add_sums::<SUB>(isum, panel, &pairs);
            }
            let sum = _mm512_add_ps(load_f32(acc), term(&panel.d[0], dx, isum));
            store_f32(acc, sum);
        }
    }
}
