//! Steps of blocks with an f32 term each.

use super::panel::Panel;
use super::step::{
    Blocks, Chunk, Fetch, Starts, Tokens, by_tokens, dot, four_times, resume, store_f32, term,
};
use std::arch::x86_64::*;

/// Blocks of `SUB` values with a float step each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn step<const P: usize, const SUB: usize, const T: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]],
) {
    by_tokens!(32, T, blocks::<P, SUB>, panels, x, fetch, acc);
}

/// All blocks of `T` tokens.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn blocks<const P: usize, const SUB: usize, const T: usize>(
    panels: &[Panel; P],
    x: Chunk<'_, 32, T>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]; T],
) {
    let mut sums = [[_mm512_setzero_ps(); P]; T];
    for t in 0..T {
        for p in 0..P {
            sums[t][p] = resume(x.earlier, &acc[t][p]);
        }
    }
    for j in 0..x.values / SUB {
        if (j * SUB).is_multiple_of(64) {
            fetch.some();
        }
        // SAFETY: `j < values / SUB`, and who made `x` has checked T tokens.
        unsafe { block::<P, SUB, T>(panels, x.at, j, x.starts, &mut sums) };
    }
    for t in 0..T {
        for p in 0..P {
            store_f32(&mut acc[t][p], sums[t][p]);
        }
    }
}

/// Block `j`.
///
/// # Safety
/// This block of `T` tokens is there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn block<const P: usize, const SUB: usize, const T: usize>(
    panels: &[Panel; P],
    at: Blocks<32>,
    j: usize,
    start: &[Starts; T],
    acc: &mut [[__m512; P]; T],
) {
    // Block of activations, and values before these in it.
    let (block, before) = (j * SUB / 32, j * SUB % 32);
    let mut dots = [[_mm512_setzero_si512(); P]; T];
    for t in 0..T {
        dots[t] = [_mm512_set1_epi32(start[t][j]); P];
    }
    // SAFETY: as the caller promises.
    let dots_of = |k: usize, dots: &mut [[__m512i; P]; T]| unsafe {
        dot(panels, SUB / 4 * j + k, at.q(block, 0).add(before + 4 * k), 32 * at.stride(), dots);
    };
    four_times!(k, dots_of(k, &mut dots));
    if SUB == 32 {
        four_times!(k, dots_of(4 + k, &mut dots));
    }
    for t in 0..T {
        // SAFETY: as the caller promises.
        let dx = _mm512_set1_ps(unsafe { *at.d(block, t) });
        for p in 0..P {
            acc[t][p] = _mm512_add_ps(acc[t][p], term(&panels[p].d[j], dx, dots[t][p]));
        }
    }
}

/// Terms of the minima of blocks of 32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn minima<const P: usize>(panels: &[Panel; P], x: Tokens<'_>, acc: &mut [[[f32; 16]; P]]) {
    let at = x.blocks::<32>(acc.len());
    for (t, acc) in acc.iter_mut().enumerate() {
        let mut state = [_mm512_setzero_ps(); P];
        for p in 0..P {
            state[p] = resume(x.earlier(), &acc[p]);
        }
        for j in 0..x.values / 32 {
            // SAFETY: `blocks` has checked these tokens, two sums each.
            let (sum, dx) = unsafe {
                let sums = at.sums(j, t);
                (i32::from(*sums) + i32::from(*sums.add(1)), _mm512_set1_ps(*at.d(j, t)))
            };
            for p in 0..P {
                state[p] = _mm512_add_ps(state[p], term(&panels[p].d[8 + j], dx, _mm512_set1_epi32(sum)));
            }
        }
        for p in 0..P {
            store_f32(&mut acc[p], state[p]);
        }
    }
}
