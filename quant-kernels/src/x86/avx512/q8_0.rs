//! Q8_0: codes become unsigned by flipping their top bit.

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
    const STEPS: Steps = Steps::Blocks { offset: 128 };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, values: usize, panel: &mut Panel) {
        let flip = _mm512_set1_epi8(-128);
        for j in 0..values / 32 {
            let at = j * 34;
            // SAFETY: the caller vouches for the 34 bytes of block `j` in every row.
            let (d, low, high) = unsafe { (rows.dword(at), rows.dwords4(at + 2), rows.dwords4(at + 18)) };
            panel.set_d(j, low_f16(d));
            for i in 0..4 {
                panel.set_codes(j * 8 + i, _mm512_xor_si512(low[i], flip));
                panel.set_codes(j * 8 + 4 + i, _mm512_xor_si512(high[i], flip));
            }
        }
    }
}
