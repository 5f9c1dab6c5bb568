//! TQ2_0: two-bit codes less one, no scales inside the block.

use super::linear::{Linear, Terms, X, four_blocks, fours, load, request, scales, sixteen_blocks};
use super::load::{Rows, high_f16};
use super::panel::{self, Format, Panel, Steps};
use super::two_bits;
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<TQ20>(tile) }
}

struct TQ20;

impl Format for TQ20 {
    const BYTES: usize = 66;
    const STEPS: Steps = Steps::Super { sub: 256, minima: false };
    const OFFSET: Option<i16> = Some(1);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, _values: usize, panel: &mut Panel) {
        // SAFETY: the caller vouches for the 66 bytes of the block in every row.
        unsafe {
            panel.set_d(0, high_f16(rows.dword(62)));
            two_bits::columns(rows, 0, |_, k, codes| {
                for i in 0..4 {
                    panel.set_codes(k + i, codes[i]);
                }
            });
        }
    }
}

impl Linear for TQ20 {
    const VALUES: usize = 256;
    const BYTES: usize = 66;
    const MINIMA: bool = false;
    const PARTS: [usize; 3] = [256, 4, 0];

    /// The codes as [`two_bits::codes`] has them, and their sum.
    #[inline]
    fn arrange(q: &[i8], sums: &[i16], [codes, sum, _]: [&mut [u8]; 3]) {
        two_bits::arrange(q, codes);
        sum.copy_from_slice(&sums.iter().map(|&sum| i32::from(sum)).sum::<i32>().to_ne_bytes());
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let quads = fours::<Self, _>(|i| {
            let w = w.wrapping_add(4 * 66 * i);
            four_blocks(|k| {
                // SAFETY: the 64 bytes of codes of block `4i + k`.
                let planes = unsafe { load(w.add(66 * k)) };
                let codes = two_bits::codes(request::<Self>(w, 66 * k, 66 * (k + 1), planes));
                let mut sums = [_mm512_setzero_si512(); T];
                for (j, codes) in codes.into_iter().enumerate() {
                    for t in 0..T {
                        // SAFETY: the activations of this block.
                        let x = unsafe { load(x.part(0, t).add(256 * (4 * i + k) + 64 * j)) };
                        sums[t] = _mm512_dpbusd_epi32(sums[t], codes, x);
                    }
                }
                sums
            })
        });
        // SAFETY: 16 blocks.
        let d = unsafe { scales::<66, 64>(w) };
        let mut terms = [[_mm512_setzero_ps(); 2]; T];
        for t in 0..T {
            // SAFETY: the sums of 16 blocks, and the scales of these terms.
            terms[t][0] =
                unsafe { x.term(t, d, _mm512_sub_epi32(sixteen_blocks(&quads, t), load(x.part(1, t)))) };
        }
        terms
    }
}
