//! TQ2_0: two-bit codes less one, no scales inside the block.

use super::linear::{Linear, X, add_dwords, add_lanes, load, request, scales, term};
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
    fn arrange(q: &[i8], sums: &[i16], [codes, sum, _]: [&mut [u8]; 3]) {
        two_bits::arrange(q, codes);
        sum.copy_from_slice(&sums.iter().map(|&sum| i32::from(sum)).sum::<i32>().to_ne_bytes());
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms(w: *const u8, x: X) -> [__m512; 2] {
        let mut quads = [_mm512_setzero_si512(); 4];
        for i in 0..4 {
            let mut dots = [_mm512_setzero_si512(); 4];
            for (k, dot) in dots.iter_mut().enumerate() {
                let at = 4 * i + k;
                request::<66>(w.wrapping_add(66 * at));
                // SAFETY: the 64 bytes of codes of block `at`.
                let codes = two_bits::codes(unsafe { load(w.add(66 * at)) });
                for (j, codes) in codes.into_iter().enumerate() {
                    // SAFETY: the activations of this block.
                    *dot =
                        _mm512_dpbusd_epi32(*dot, codes, unsafe { load(x.parts[0].add(256 * at + 64 * j)) });
                }
            }
            quads[i] = add_lanes(dots);
        }
        // SAFETY: 16 blocks and their sums.
        let (d, sums) = unsafe { (scales::<66, 64>(w), load(x.parts[1])) };
        [term(d, x, _mm512_sub_epi32(add_dwords(quads), sums)), _mm512_setzero_ps()]
    }
}
