//! Steps of blocks with an f32 term each.

use super::panel::Panel;
use super::step::{Blocks, Fetch, Tokens, broadcast, dot, load_f32, store_f32, term};
use std::arch::x86_64::*;

/// Blocks of `SUB` values with a float step each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn step<const P: usize, const T: usize, const SUB: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]; T],
    offset: i16,
) {
    let at = x.blocks::<32>(T);
    let mut sums = [[_mm512_setzero_ps(); P]; T];
    for t in 0..T {
        for p in 0..P {
            sums[t][p] = load_f32(&acc[t][p]);
        }
    }
    let count = x.values / SUB;
    let mut j = 0;
    while j + 2 <= count {
        if (j * SUB).is_multiple_of(64) {
            fetch.some();
        }
        // SAFETY: `j + 2 <= values / SUB`, and `blocks` has checked T tokens.
        unsafe { some_blocks::<P, T, SUB, 2>(panels, at, j, &mut sums, offset) };
        j += 2;
    }
    if j < count {
        // SAFETY: `j < values / SUB`, and `blocks` has checked T tokens.
        unsafe { some_blocks::<P, T, SUB, 1>(panels, at, j, &mut sums, offset) };
    }
    for t in 0..T {
        for p in 0..P {
            store_f32(&mut acc[t][p], sums[t][p]);
        }
    }
}

/// `N` blocks side by side, from block `first` on.
///
/// # Safety
/// These blocks of `T` tokens are there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn some_blocks<const P: usize, const T: usize, const SUB: usize, const N: usize>(
    panels: &[Panel; P],
    at: Blocks<32>,
    first: usize,
    acc: &mut [[__m512; P]; T],
    offset: i16,
) {
    let zero = _mm512_setzero_si512();
    let mut dots = [[[zero; P]; T]; N];
    // Block of activations, and values before these in it.
    let block = |n: usize| ((first + n) * SUB / 32, (first + n) * SUB % 32);
    for n in 0..N {
        let (block, before) = block(n);
        // Blocks of 16 have one of the two sums.
        let half = if SUB == 32 { u32::MAX } else { 0x5555_5555 << (before / 16) };
        // A step reads as many lines as there are blocks, far apart: too many streams for the CPU to foresee.
        _mm_prefetch::<_MM_HINT_T0>(at.q(block, 2 * T));
        for t in 0..T {
            // SAFETY: as the caller promises.
            let sum = unsafe { broadcast(at.sums(block, t)) };
            dots[n][t] = [_mm512_dpwssd_epi32(zero, _mm512_maskz_set1_epi16(half, -offset), sum); P];
        }
    }
    for k in 0..SUB / 4 {
        for n in 0..N {
            let (block, before) = block(n);
            // SAFETY: as the caller promises.
            unsafe {
                let q = at.q(block, 0).add(before + 4 * k);
                dot(panels, SUB / 4 * (first + n) + k, q, 32, &mut dots[n]);
            }
        }
    }
    for n in 0..N {
        for t in 0..T {
            // SAFETY: as the caller promises.
            let dx = _mm512_set1_ps(unsafe { *at.d(block(n).0, t) });
            for p in 0..P {
                acc[t][p] = _mm512_add_ps(acc[t][p], term(&panels[p].d[first + n], dx, dots[n][t][p]));
            }
        }
    }
}
/// Terms of the minima of blocks of 32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn minima<const P: usize>(panels: &[Panel; P], x: Tokens<'_>, acc: &mut [[[f32; 16]; P]]) {
    let at = x.blocks::<32>(acc.len());
    for (t, acc) in acc.iter_mut().enumerate() {
        for j in 0..x.values / 32 {
            // SAFETY: `blocks` has checked these tokens, two sums each.
            let (sum, dx) = unsafe {
                let sums = at.sums(j, t);
                (i32::from(*sums) + i32::from(*sums.add(1)), _mm512_set1_ps(*at.d(j, t)))
            };
            for p in 0..P {
                let term = term(&panels[p].d[8 + j], dx, _mm512_set1_epi32(sum));
                let sum = _mm512_add_ps(load_f32(&acc[p]), term);
                store_f32(&mut acc[p], sum);
            }
        }
    }
}
