//! Q6_K: unsigned 6-bit codes with an offset of 32, which becomes a product of scales and activation sums.

use super::load::{Rows, high_f16, high_nibbles, low_nibbles};
use super::panel::{self, Format, Panel, Steps};
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Q6K>(tile) }
}

struct Q6K;

impl Format for Q6K {
    const BYTES: usize = 210;
    const STEPS: Steps = Steps::Super { sub: 16, minima: false };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, _values: usize, panel: &mut Panel) {
        // SAFETY: the caller vouches for the 210 bytes of the block in every row.
        let (d, scales) = unsafe { (rows.dword(206), rows.dwords4(192)) };
        panel.set_d(0, high_f16(d));
        for i in 0..4 {
            let s = scales[i];
            let s = [
                _mm512_srai_epi32::<24>(_mm512_slli_epi32::<24>(s)),
                _mm512_srai_epi32::<24>(_mm512_slli_epi32::<16>(s)),
                _mm512_srai_epi32::<24>(_mm512_slli_epi32::<8>(s)),
                _mm512_srai_epi32::<24>(s),
            ];
            for (j, s) in s.into_iter().enumerate() {
                panel.set_scale(4 * i + j, s);
            }
            for j in 0..2 {
                // -32 times two scales, as two i16 for the sums of their values.
                let pair =
                    _mm512_mask_blend_epi16(0xaaaa_aaaa, s[2 * j], _mm512_slli_epi32::<16>(s[2 * j + 1]));
                panel.set_sums(2 * i + j, _mm512_mullo_epi16(pair, _mm512_set1_epi16(-32)));
            }
        }
        let upper = |bits| _mm512_and_si512(bits, _mm512_set1_epi8(0x30));
        for half in 0..2 {
            for part in 0..2 {
                // SAFETY: as above.
                let (a, b, pairs) = unsafe {
                    let at = 64 * half + 16 * part;
                    (rows.dwords4(at), rows.dwords4(at + 32), rows.dwords4(128 + 32 * half + 16 * part))
                };
                for i in 0..4 {
                    let codes = [
                        _mm512_or_si512(low_nibbles(a[i]), upper(_mm512_slli_epi32::<4>(pairs[i]))),
                        _mm512_or_si512(low_nibbles(b[i]), upper(_mm512_slli_epi32::<2>(pairs[i]))),
                        _mm512_or_si512(high_nibbles(a[i]), upper(pairs[i])),
                        _mm512_or_si512(high_nibbles(b[i]), upper(_mm512_srli_epi32::<2>(pairs[i]))),
                    ];
                    for (r, codes) in codes.into_iter().enumerate() {
                        panel.set_codes(32 * half + 8 * r + 4 * part + i, codes);
                    }
                }
            }
        }
    }
}
