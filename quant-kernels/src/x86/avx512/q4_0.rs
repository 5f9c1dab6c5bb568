//! Q4_0: nibbles are unsigned codes with an offset of 8.

use super::load::{Rows, high_nibbles, low_f16, low_nibbles};
use super::panel::{self, Format, Panel, Steps};
use crate::isa::Avx512;
use crate::types::TileFn;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Q4_0>(tile) }
}

struct Q4_0;

impl Format for Q4_0 {
    const BYTES: usize = 8 * 18;
    const STEPS: Steps = Steps::Blocks { offset: 8 };

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
