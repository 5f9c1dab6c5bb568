//! Q5_K: Q4_K with a fifth bit from a plane of its own.

use super::load::{Rows, high_nibbles, low_nibbles};
use super::panel::{self, Format, Panel, Steps};
use super::q4_k::header;
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Q5K>(tile) }
}

struct Q5K;

impl Format for Q5K {
    const BYTES: usize = 176;
    const STEPS: Steps = Steps::Super { sub: 32, minima: true };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, _values: usize, panel: &mut Panel) {
        // SAFETY: the caller vouches for the 176 bytes of the block in every row.
        unsafe { header(rows, panel) };
        for half in 0..2 {
            // SAFETY: as above.
            let mut plane = unsafe { rows.dwords4(16 + 16 * half) };
            for g in 0..4 {
                // SAFETY: as above.
                let codes = unsafe { rows.dwords4(48 + 32 * g + 16 * half) };
                for i in 0..4 {
                    // Bits 0 and 1 of the plane belong to the low and the high nibbles of this group.
                    let fifth = |bits| _mm512_and_si512(bits, _mm512_set1_epi8(16));
                    let (low, high) =
                        (fifth(_mm512_slli_epi32::<4>(plane[i])), fifth(_mm512_slli_epi32::<3>(plane[i])));
                    panel.set_codes(16 * g + 4 * half + i, _mm512_or_si512(low_nibbles(codes[i]), low));
                    panel.set_codes(16 * g + 8 + 4 * half + i, _mm512_or_si512(high_nibbles(codes[i]), high));
                    plane[i] = _mm512_srli_epi32::<2>(plane[i]);
                }
            }
        }
    }
}
