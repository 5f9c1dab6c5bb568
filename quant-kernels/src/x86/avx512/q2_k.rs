//! Q2_K: a code times its sub-scale is at most 45, so scales go into the codes and one exact sum does a whole block.

use super::linear::{Linear, X, add_dwords, add_lanes, load, load_lanes, request, term};
use super::load::{Rows, high_f16, high_nibbles, low_f16, low_nibbles};
use super::panel::{self, Format, Panel, Steps};
use super::two_bits;
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Q2K>(tile) }
}

struct Q2K;

impl Format for Q2K {
    const BYTES: usize = 84;
    const STEPS: Steps = Steps::Super { sub: 256, minima: true };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, _values: usize, panel: &mut Panel) {
        // SAFETY: the caller vouches for the 84 bytes of the block in every row.
        let (packed, d) = unsafe { (rows.dwords4(0), rows.dword(80)) };
        panel.set_d(0, low_f16(d));
        panel.set_dmin(high_f16(d));
        let scales = packed.map(|packed| low_nibbles(packed));
        for j in 0..8 {
            // Two bytes of every dword, as two i16.
            let pick = two_bits::pick(0x8001_8000 + 0x0002_0002 * (j as u32 % 2));
            panel.set_sums(j, _mm512_shuffle_epi8(high_nibbles(packed[j / 2]), pick));
        }
        // SAFETY: as above.
        unsafe {
            two_bits::columns(rows, 16, |j, k, codes| {
                let pick = two_bits::pick(0x8000_8000 + 0x0001_0001 * (j as u32 % 4));
                let scale = _mm512_shuffle_epi8(scales[j / 4], pick);
                for i in 0..4 {
                    panel.set_codes(k + i, _mm512_mullo_epi16(codes[i], scale));
                }
            });
        }
    }
}

impl Linear for Q2K {
    const VALUES: usize = 256;
    const BYTES: usize = 84;
    const MINIMA: bool = true;
    const PARTS: [usize; 3] = [256, 16, 16];

    /// The codes as [`two_bits::codes`] has them, and two halves of their sums.
    fn arrange(q: &[i8], sums: &[i16], [codes, low, high]: [&mut [u8]; 3]) {
        two_bits::arrange(q, codes);
        two_bits::arrange_sums(sums, 1, [low, high]);
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms(w: *const u8, x: X) -> [__m512; 2] {
        let zero = _mm512_setzero_si512();
        let (mut quads, mut minima, mut d) = ([zero; 4], [zero; 4], [zero; 4]);
        for i in 0..4 {
            let mut dots = [zero; 4];
            for (k, dot) in dots.iter_mut().enumerate() {
                let at = 4 * i + k;
                request::<84>(w.wrapping_add(84 * at));
                // SAFETY: block `at` and its activations.
                let (packed, planes, x) = unsafe {
                    let block = w.add(84 * at);
                    let packed = _mm512_broadcast_i32x4(_mm_loadu_si128(block.cast()));
                    (packed, load(block.add(16)), x.parts[0].add(256 * at))
                };
                let scales = low_nibbles(packed);
                for (j, codes) in two_bits::codes(planes).into_iter().enumerate() {
                    // In lane l the scale of sub-block `8 (l / 2) + 2 j + l % 2`, as i16.
                    let scale = _mm512_shuffle_epi8(scales, two_bits::sub_block_words(j));
                    // SAFETY: 64 of the 256 bytes.
                    let x = unsafe { load(x.add(64 * j)) };
                    *dot = _mm512_dpbusd_epi32(*dot, _mm512_mullo_epi16(codes, scale), x);
                }
            }
            quads[i] = add_lanes(dots);
            // SAFETY: the first and the last 16 bytes of these blocks, and their sums.
            unsafe {
                let mins = high_nibbles(load_lanes(w.add(84 * 4 * i), 84));
                let (low, high) = (_mm512_unpacklo_epi8(mins, zero), _mm512_unpackhi_epi8(mins, zero));
                let low = _mm512_dpwssd_epi32(zero, low, load(x.parts[1].add(64 * i)));
                minima[i] = _mm512_dpwssd_epi32(low, high, load(x.parts[2].add(64 * i)));
                d[i] = load_lanes(w.add(84 * 4 * i + 68), 84);
            }
        }
        let d = super::linear::last_dwords(d);
        [term(low_f16(d), x, add_dwords(quads)), term(high_f16(d), x, add_dwords(minima))]
    }
}
