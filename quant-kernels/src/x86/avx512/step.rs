//! The inner loops of the many-token matmul: `P` panels of 16 rows times `T` tokens over up to 256 values.
//!
//! Multiplications bound these loops (two a cycle on the widest CPUs, whatever their kind), so everything else goes
//! to other units: offsets of codes are where the sums begin, and the integer sums of two sub-blocks are joined as two
//! i16, which one `vpdpwssd` scales and adds. Sums that do not fit i16 (only contrived inputs have them) are noticed
//! and done again, one by one. Two sub-blocks at a time are under way, so that sums hide each other's latency.

use super::panel::{Format, Panel, Steps};
use crate::activations::Acts;
use std::arch::asm;
use std::arch::x86_64::*;

/// Activations of some tokens, and the accumulators of their products: what a step reads and writes.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    acts: &'a Acts,
    /// Values before these, and how many they are.
    pub first: usize,
    pub values: usize,
    /// The first token.
    pub token: usize,
}

impl<'a> Tokens<'a> {
    /// `values` values from `first` on of the tokens from `token` on.
    pub fn new(acts: &'a Acts, first: usize, values: usize, token: usize) -> Self {
        Self { acts, first, values, token }
    }

    /// Codes, sums and scale of a token's block of `LEN` values; checked to be there for `count` tokens.
    #[inline]
    fn block<const LEN: usize>(self, block: usize, count: usize) -> (*const i8, *const i16, *const f32) {
        let at = (self.first / LEN + block) * self.acts.tokens + self.token;
        let end = at + count;
        assert!(
            end * LEN <= self.acts.q.len()
                && end * (LEN / 16) <= self.acts.sums.len()
                && end <= self.acts.d.len(),
            "activations too short"
        );
        (
            self.acts.q.as_ptr().wrapping_add(at * LEN),
            self.acts.sums.as_ptr().wrapping_add(at * (LEN / 16)),
            self.acts.d.as_ptr().wrapping_add(at),
        )
    }
}

/// Four codes, or two sums, in every lane.
///
/// # Safety
/// Four bytes can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn broadcast<T>(p: *const T) -> __m512i {
    // SAFETY: as the caller promises.
    _mm512_set1_epi32(unsafe { p.cast::<i32>().read_unaligned() })
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(v: &[i32; 16]) -> __m512i {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(v.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_f32(v: &[f32; 16]) -> __m512 {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_ps(v.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_f32(v: &mut [f32; 16], value: __m512) {
    // SAFETY: 64 bytes.
    unsafe { _mm512_storeu_ps(v.as_mut_ptr(), value) }
}

/// Adds up to 256 values of `T` tokens to their accumulators, `[T][P]`; minima are left to [`minima`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn step<F: Format, const P: usize, const T: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    acc: &mut [[[f32; 16]; P]; T],
) {
    match F::STEPS {
        Steps::Blocks { offset } => blocks::<P, T>(panels, x, acc, offset),
        Steps::Super { sub: 16, .. } => super_block::<F, P, T, 16>(panels, x, acc),
        Steps::Super { .. } => super_block::<F, P, T, 32>(panels, x, acc),
    }
}

/// Where the sum of a sub-block begins, so that those that fit i16 are told by their upper halves being zero.
const BIAS: i32 = 1 << 15;

/// Something of 64 bytes that is broadcast lane by lane.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Lanes([i32; 16]);

/// Where the sums of a token's sub-blocks begin if codes have an offset, from the sums of 16 activations.
///
/// # Safety
/// 16 sums can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn starts<const SUB: usize>(sums: *const i16, offset: i16) -> Lanes {
    let mut lanes = Lanes([0; 16]);
    // SAFETY: the caller vouches for the sums; stores of 64 bytes.
    unsafe {
        let sums = _mm256_loadu_si256(sums.cast());
        let products = if SUB == 32 {
            _mm512_zextsi256_si512(_mm256_madd_epi16(sums, _mm256_set1_epi16(-offset)))
        } else {
            _mm512_mullo_epi32(_mm512_cvtepi16_epi32(sums), _mm512_set1_epi32((-offset).into()))
        };
        let starts = _mm512_add_epi32(products, _mm512_set1_epi32(BIAS));
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

/// Super-blocks: `SUB` values share an integer scale.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn super_block<F: Format, const P: usize, const T: usize, const SUB: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    acc: &mut [[[f32; 16]; P]; T],
) {
    let (q, sums, d) = x.block::<256>(0, T);
    let zero = _mm512_setzero_si512();
    let mut start = [Lanes([0; 16]); T];
    if let Some(offset) = F::OFFSET {
        for t in 0..T {
            // SAFETY: `block` has checked T tokens.
            start[t] = unsafe { starts::<SUB>(sums.add(16 * t), offset) };
        }
    }
    let mut isum = [[zero; P]; T];
    let mut seen = zero;
    // Not a constant: unrolled, this loop would not fit the caches of decoded instructions.
    let values = x.values;
    assert!(values <= 256, "a step has at most 256 values");
    for j in 0..values / (2 * SUB) {
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
                // SAFETY: `k < 64`, and `block` has checked 256 codes of each of T tokens.
                unsafe { dot(panels, k, q.add(4 * k), 256, &mut dots[half]) };
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
    if adds_sums::<F>() {
        for t in 0..T {
            // SAFETY: `block` has checked T tokens.
            let sums = unsafe { pairs::<SUB>(sums.add(16 * t)) };
            for p in 0..P {
                isum[t][p] = add_sums::<SUB>(isum[t][p], &panels[p], &sums);
            }
        }
    }
    for t in 0..T {
        // SAFETY: `block` has checked T tokens.
        let dx = _mm512_set1_ps(unsafe { *d.add(t) });
        for p in 0..P {
            let term = term(&panels[p].d[0], dx, isum[t][p]);
            let sum = _mm512_add_ps(load_f32(&acc[t][p]), term);
            store_f32(&mut acc[t][p], sum);
        }
    }
}

/// `vpdpbusd`, kept where it is written: the compiler would order products by accumulator, one waiting for another.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn dpbusd(sum: __m512i, codes: __m512i, x: __m512i) -> __m512i {
    let mut sum = sum;
    // SAFETY: touches registers only.
    unsafe {
        asm!(
            "vpdpbusd {sum}, {codes}, {x}",
            sum = inout(zmm_reg) sum,
            codes = in(zmm_reg) codes,
            x = in(zmm_reg) x,
            options(nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Adds the products of four values, quad `k` of the panels and the codes at `q` of tokens that are `stride` apart.
///
/// # Safety
/// The codes can be read, and `k < 64`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn dot<const P: usize, const T: usize>(
    panels: &[Panel; P],
    k: usize,
    q: *const i8,
    stride: usize,
    dots: &mut [[__m512i; P]; T],
) {
    let mut x = [_mm512_setzero_si512(); T];
    for t in 0..T {
        // SAFETY: as the caller promises.
        x[t] = unsafe { broadcast(q.add(t * stride)) };
    }
    for p in 0..P {
        // SAFETY: `k < 64`: 64 bytes.
        let w = unsafe { _mm512_load_si512(panels[p].codes.as_ptr().add(k).cast()) };
        for t in 0..T {
            dots[t][p] = dpbusd(dots[t][p], w, x[t]);
        }
    }
}

/// Whether the products of [`Panel::sums`] belong to the integer sum.
const fn adds_sums<F: Format>() -> bool {
    F::OFFSET.is_none() && matches!(F::STEPS, Steps::Super { minima: false, .. })
}

/// `(d * dx) * isum`
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn term(d: &[f32; 16], dx: __m512, isum: __m512i) -> __m512 {
    _mm512_mul_ps(_mm512_mul_ps(load_f32(d), dx), _mm512_cvtepi32_ps(isum))
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

/// Adds the terms of the minima of a super-block, for all tokens whose accumulators are given.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn minima<F: Format, const P: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    acc: &mut [[[f32; 16]; P]],
) {
    let (_, sums, d) = x.block::<256>(0, acc.len());
    for (t, acc) in acc.iter_mut().enumerate() {
        // SAFETY: `block` has checked these tokens.
        let dx = _mm512_set1_ps(unsafe { *d.add(t) });
        for p in 0..P {
            let zero = _mm512_setzero_si512();
            let isum = match F::STEPS {
                // SAFETY: as above.
                Steps::Super { sub: 16, .. } => unsafe {
                    add_sums::<16>(zero, &panels[p], &pairs::<16>(sums.add(16 * t)))
                },
                // SAFETY: as above.
                _ => unsafe { add_sums::<32>(zero, &panels[p], &pairs::<32>(sums.add(16 * t))) },
            };
            let sum = _mm512_add_ps(load_f32(&acc[p]), term(&panels[p].dmin, dx, isum));
            store_f32(&mut acc[p], sum);
        }
    }
}

/// [`super_block`] for sums of any size.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn wide_super_blocks<F: Format, const P: usize, const SUB: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    acc: &mut [[[f32; 16]; P]],
) {
    let (q, sums, d) = x.block::<256>(0, acc.len());
    for (t, acc) in acc.iter_mut().enumerate() {
        // SAFETY: `block` has checked these tokens.
        let (q, start, pairs, dx) = unsafe {
            let sums = sums.add(16 * t);
            let start = starts::<SUB>(sums, F::OFFSET.unwrap_or(0));
            (q.add(256 * t), start, pairs::<SUB>(sums), _mm512_set1_ps(*d.add(t)))
        };
        for (panel, acc) in panels.iter().zip(acc) {
            let mut isum = _mm512_setzero_si512();
            for j in 0..256 / SUB {
                let mut dots = [[_mm512_set1_epi32(start.0[j] - BIAS)]];
                for k in j * SUB / 4..(j + 1) * SUB / 4 {
                    // SAFETY: `k < 64`, and `block` has checked the codes.
                    unsafe { dot(std::array::from_ref(panel), k, q.add(4 * k), 0, &mut dots) };
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

/// Blocks of 32 with a float step each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn blocks<const P: usize, const T: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    acc: &mut [[[f32; 16]; P]; T],
    offset: i16,
) {
    let mut sums = [[_mm512_setzero_ps(); P]; T];
    for t in 0..T {
        for p in 0..P {
            sums[t][p] = load_f32(&acc[t][p]);
        }
    }
    let blocks = x.values / 32;
    assert!(blocks <= 8, "a step has at most 256 values");
    let mut j = 0;
    while j + 2 <= blocks {
        some_blocks::<P, T, 2>(panels, x, j, &mut sums, offset);
        j += 2;
    }
    if j < blocks {
        some_blocks::<P, T, 1>(panels, x, j, &mut sums, offset);
    }
    for t in 0..T {
        for p in 0..P {
            store_f32(&mut acc[t][p], sums[t][p]);
        }
    }
}

/// `N` blocks side by side.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn some_blocks<const P: usize, const T: usize, const N: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    first: usize,
    acc: &mut [[__m512; P]; T],
    offset: i16,
) {
    let zero = _mm512_setzero_si512();
    let mut dots = [[[zero; P]; T]; N];
    let mut tokens = [(std::ptr::null(), std::ptr::null(), std::ptr::null()); N];
    for n in 0..N {
        tokens[n] = x.block::<32>(first + n, T);
        for t in 0..T {
            // SAFETY: `block` has checked T tokens.
            let sum = unsafe { broadcast(tokens[n].1.add(2 * t)) };
            dots[n][t] = [_mm512_dpwssd_epi32(zero, _mm512_set1_epi16(-offset), sum); P];
        }
    }
    for k in 0..8 {
        for n in 0..N {
            // SAFETY: `first + n < 8`, and `block` has checked 32 codes of T tokens.
            unsafe { dot(panels, 8 * (first + n) + k, tokens[n].0.add(4 * k), 32, &mut dots[n]) };
        }
    }
    for n in 0..N {
        for t in 0..T {
            // SAFETY: `block` has checked T tokens.
            let dx = _mm512_set1_ps(unsafe { *tokens[n].2.add(t) });
            for p in 0..P {
                acc[t][p] = _mm512_add_ps(acc[t][p], term(&panels[p].d[first + n], dx, dots[n][t][p]));
            }
        }
    }
}
