//! Q4_K: nibbles are the codes; Q5_K shares the packed scales.

use super::load::{Rows, high_f16, high_nibbles, low_f16, low_nibbles};
use super::panel::{self, Format, Panel, Steps};
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Q4K>(tile) }
}

struct Q4K;

impl Format for Q4K {
    const BYTES: usize = 144;
    const STEPS: Steps = Steps::Super { sub: 32, minima: true };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, _values: usize, panel: &mut Panel) {
        // SAFETY: the caller vouches for the 144 bytes of the block in every row.
        unsafe { header(rows, panel) };
        for g in 0..4 {
            for half in 0..2 {
                // SAFETY: as above.
                let codes = unsafe { rows.dwords4(16 + 32 * g + 16 * half) };
                for i in 0..4 {
                    panel.set_codes(16 * g + 4 * half + i, low_nibbles(codes[i]));
                    panel.set_codes(16 * g + 8 + 4 * half + i, high_nibbles(codes[i]));
                }
            }
        }
    }
}

/// The first 16 bytes of Q4_K and Q5_K blocks: both scales, and the packed scales and minima of 8 sub-blocks.
///
/// # Safety
/// The CPU has the tier; 16 bytes can be read in every row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn header(rows: Rows, panel: &mut Panel) {
    // SAFETY: as the caller promises.
    let h = unsafe { rows.dwords4(0) };
    panel.set_d(0, low_f16(h[0]));
    panel.set_dmin(high_f16(h[0]));
    // The packed bytes, four sub-blocks per dword: `scale_min` on all of them at once.
    let six = _mm512_set1_epi8(63);
    let join = |low: __m512i, high: __m512i| {
        let high = _mm512_and_si512(_mm512_srli_epi32::<2>(high), _mm512_set1_epi8(0x30));
        _mm512_or_si512(low_nibbles(low), high)
    };
    let scales = [_mm512_and_si512(h[1], six), join(h[3], h[1])];
    let minima = [_mm512_and_si512(h[2], six), join(_mm512_srli_epi32::<4>(h[3]), h[2])];
    for j in 0..8 {
        let pick = _mm512_add_epi32(lane_bytes(), _mm512_set1_epi32((j % 4) as i32));
        // Byte `j % 4` of each lane, zero-extended to an i32.
        panel.set_scale(j, _mm512_maskz_shuffle_epi8(0x1111_1111_1111_1111, scales[j / 4], pick));
        // The same, twice, as two i16: both halves of a sub-block have its minimum.
        let pick = _mm512_or_si512(pick, _mm512_slli_epi32::<16>(pick));
        panel.set_sums(j, _mm512_maskz_shuffle_epi8(0x5555_5555_5555_5555, minima[j / 4], pick));
    }
}

/// In every 128-bit lane: the number of the first byte of each dword.
#[inline]
#[target_feature(enable = "avx512f")]
fn lane_bytes() -> __m512i {
    _mm512_setr4_epi32(0, 4, 8, 12)
}
