//! Q4_0: nibbles are unsigned codes with an offset of 8.

use super::linear::{Linear, X, add_dwords, load, load_lanes, request, scales, term};
use super::load::{Rows, high_nibbles, low_f16, low_nibbles};
use super::panel::{self, Format, Panel, Steps};
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Q4_0>(tile) }
}

struct Q4_0;

impl Format for Q4_0 {
    const BYTES: usize = 8 * 18;
    const STEPS: Steps = Steps::Blocks { sub: 32, offset: 8, minima: false };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, values: usize, panel: &mut Panel) {
        for j in 0..values / 32 {
            let at = j * 18;
            // SAFETY: the caller vouches for the 18 bytes of block `j` in every row.
            let (d, codes) = unsafe { (rows.dword(at), rows.dwords4(at + 2)) };
            panel.set_d(j, low_f16(d));
            for i in 0..4 {
                panel.set_codes(j * 8 + i, low_nibbles(codes[i]));
                panel.set_codes(j * 8 + 4 + i, high_nibbles(codes[i]));
            }
        }
    }
}

impl Linear for Q4_0 {
    const VALUES: usize = 32;
    const BYTES: usize = 18;
    const MINIMA: bool = false;
    const PARTS: [usize; 3] = [16, 16, 16];

    /// The codes that meet low nibbles, those that meet high ones, and -8 times the sums of the eight codes that meet
    /// in a dword.
    fn arrange(q: &[i8], _sums: &[i16], [low, high, offsets]: [&mut [u8]; 3]) {
        for (i, offset) in offsets.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let mut sum = 0;
            for at in 4 * i..4 * i + 4 {
                (low[at], high[at]) = (q[at] as u8, q[at + 16] as u8);
                sum += i32::from(q[at]) + i32::from(q[at + 16]);
            }
            *offset = (-8 * sum).to_ne_bytes();
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms(w: *const u8, x: X) -> [__m512; 2] {
        let mut quads = [_mm512_setzero_si512(); 4];
        for i in 0..4 {
            request::<72>(w.wrapping_add(72 * i));
            // SAFETY: blocks `4i..4i + 4` of 16; 64 bytes of each part.
            unsafe {
                let codes = load_lanes(w.add(72 * i + 2), 18);
                let part = |part: usize| load(x.parts[part].add(64 * i));
                let low = _mm512_dpbusd_epi32(part(2), low_nibbles(codes), part(0));
                quads[i] = _mm512_dpbusd_epi32(low, high_nibbles(codes), part(1));
            }
        }
        // SAFETY: 16 blocks.
        let d = unsafe { scales::<18, 0>(w) };
        [term(d, x, add_dwords(quads)), _mm512_setzero_ps()]
    }
}
