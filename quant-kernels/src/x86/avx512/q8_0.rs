//! Q8_0: codes become unsigned by flipping their top bit.

use super::linear::{self, Linear, Terms, X, add_lane_pairs, fours, load, request, scales, sixteen_blocks};
use super::load::{Rows, low_f16};
use super::panel::{self, Format, Panel, Steps};
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Q8_0>(tile) }
}

struct Q8_0;

impl Format for Q8_0 {
    const BYTES: usize = 8 * 34;
    const STEPS: Steps = Steps::Blocks { sub: 32, offset: 128, minima: false };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, values: usize, panel: &mut Panel) {
        let flip = _mm512_set1_epi8(-128);
        for j in 0..values / 32 {
            let at = j * 34;
            // SAFETY: the caller vouches for the 34 bytes of block `j` in every row.
            let (d, codes) = unsafe { (rows.dword(at), rows.dwords8(at + 2)) };
            panel.set_d(j, low_f16(d));
            for i in 0..8 {
                panel.set_codes(j * 8 + i, _mm512_xor_si512(codes[i], flip));
            }
        }
    }
}

impl Linear for Q8_0 {
    const VALUES: usize = 32;
    const BYTES: usize = 34;
    const MINIMA: bool = false;
    const PARTS: [usize; 3] = [32, 4, 0];

    fn few(tokens: usize, cols: usize) -> Option<TileFn> {
        // Longer activations and terms leave no room for weights in the first-level cache.
        // SAFETY: this type's matmul exists with a proof of the tier only.
        (tokens == 4 && cols <= 4096).then_some(|tile| unsafe { linear::tile::<Self, 4>(tile) })
    }

    /// The codes, and -128 times their sum.
    #[inline]
    fn arrange(q: &[i8], sums: &[i16], [codes, offset, _]: [&mut [u8]; 3]) {
        codes.iter_mut().zip(q).for_each(|(code, q)| *code = *q as u8);
        offset.copy_from_slice(&(-128 * (i32::from(sums[0]) + i32::from(sums[1]))).to_ne_bytes());
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let zero = _mm512_setzero_si512();
        let quads = fours(|i| {
            let codes = |k: usize| {
                let p = w.wrapping_add(68 * (2 * i + k));
                // SAFETY: two blocks of 16, 68 bytes together.
                let pair = unsafe {
                    let low = _mm512_castsi256_si512(_mm256_loadu_si256(p.add(2).cast()));
                    _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(p.add(36).cast()))
                };
                let from = 68 * (2 * i + k);
                let pair = request(w, from, from + 68, pair);
                _mm512_xor_si512(pair, _mm512_set1_epi8(-128))
            };
            let (a, b) = (codes(0), codes(1));
            let mut dots = [zero; T];
            for t in 0..T {
                // SAFETY: the activations of these four blocks.
                let (x0, x1) = unsafe {
                    let x = x.part(0, t).add(128 * i);
                    (load(x), load(x.add(64)))
                };
                dots[t] = add_lane_pairs(_mm512_dpbusd_epi32(zero, a, x0), _mm512_dpbusd_epi32(zero, b, x1));
            }
            dots
        });
        // SAFETY: 16 blocks.
        let d = unsafe { scales::<34, 0>(w) };
        let mut terms = [[_mm512_setzero_ps(); 2]; T];
        for t in 0..T {
            // SAFETY: 16 offsets, and the scales of these terms.
            terms[t][0] =
                unsafe { x.term(t, d, _mm512_add_epi32(sixteen_blocks(&quads, t), load(x.part(1, t)))) };
        }
        terms
    }
}
