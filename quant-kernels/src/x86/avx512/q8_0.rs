//! Q8_0: codes become unsigned by flipping their top bit.

use super::linear::{Linear, X, add_dwords, add_lane_pairs, load, request, scales, term};
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
    const PARTS: [usize; 3] = [32, 32, 0];

    /// The codes, and -128 times the sums of four of them: where `vpdpbusd` begins.
    fn arrange(q: &[i8], _sums: &[i16], [codes, offsets, _]: [&mut [u8]; 3]) {
        for ((q, codes), offset) in
            q.as_chunks::<4>().0.iter().zip(codes.as_chunks_mut::<4>().0).zip(offsets.as_chunks_mut::<4>().0)
        {
            *codes = q.map(|q| q as u8);
            *offset = (-128 * q.iter().map(|&q| i32::from(q)).sum::<i32>()).to_ne_bytes();
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms(w: *const u8, x: X) -> [__m512; 2] {
        let zero = _mm512_setzero_si512();
        let mut dots = [zero; 8];
        for i in 0..8 {
            request::<68>(w.wrapping_add(68 * i));
            // SAFETY: blocks `2i` and `2i + 1` of 16, 68 bytes together; 64 bytes of each part.
            unsafe {
                let p = w.add(68 * i);
                let low = _mm512_castsi256_si512(_mm256_loadu_si256(p.add(2).cast()));
                let codes = _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(p.add(36).cast()));
                let codes = _mm512_xor_si512(codes, _mm512_set1_epi8(-128));
                let (x, offset) = (load(x.parts[0].add(64 * i)), load(x.parts[1].add(64 * i)));
                dots[i] = _mm512_dpbusd_epi32(offset, codes, x);
            }
        }
        let mut quads = [zero; 4];
        for i in 0..4 {
            quads[i] = add_lane_pairs(dots[2 * i], dots[2 * i + 1]);
        }
        // SAFETY: 16 blocks.
        let d = unsafe { scales::<34, 0>(w) };
        [term(d, x, add_dwords(quads)), _mm512_setzero_ps()]
    }
}
