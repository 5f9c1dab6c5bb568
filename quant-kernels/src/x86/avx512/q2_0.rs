//! Q2_0: unsigned 2-bit codes with an offset of 1; two of the contract's blocks share a scale.

use super::fields::{fields, vector};
use super::linear::{Linear, Terms, X, add_dword_pairs, add_lanes, load, request};
use super::load::{Rows, low_f16};
use super::panel::{self, Format, Panel, Steps};
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Q2_0>(tile) }
}

struct Q2_0;

/// For each byte of the codes of four values in two rows: the first bit of its code, if they are the low bytes of
/// the rows' dwords.
const PLACES: [u8; 64] = {
    let mut places = [0; 64];
    let mut i = 0;
    while i < 64 {
        places[i] = (i % 4 * 2 + i / 4 % 2 * 32) as u8;
        i += 1;
    }
    places
};

impl Format for Q2_0 {
    const BYTES: usize = 4 * 18;
    const STEPS: Steps = Steps::Blocks { sub: 32, offset: 1, minima: false };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, values: usize, panel: &mut Panel) {
        for b in 0..values / 64 {
            let at = b * 18;
            // SAFETY: the caller vouches for the 18 bytes of block `b` in every row.
            let (d, codes) = unsafe { (rows.dword(at), rows.dwords4(at + 2)) };
            panel.set_d(2 * b, low_f16(d));
            panel.set_d(2 * b + 1, low_f16(d));
            for i in 0..16 {
                let places = _mm512_add_epi8(vector(PLACES), _mm512_set1_epi8((i % 4 * 8) as i8));
                let codes = _mm512_multishift_epi64_epi8(places, codes[i / 4]);
                panel.set_codes(16 * b + i, _mm512_and_si512(codes, _mm512_set1_epi8(3)));
            }
        }
    }
}

impl Linear for Q2_0 {
    const VALUES: usize = 64;
    const BYTES: usize = 18;
    const TERMS: usize = 2;
    const MINIMA: bool = false;
    const PARTS: [usize; 3] = [64, 8, 0];

    /// The codes that meet bit pair 0 of each byte, those that meet bit pair 1, and so on; the sums with their sign
    /// changed.
    #[inline]
    fn arrange(q: &[i8], sums: &[i16], [codes, offsets, _]: [&mut [u8]; 3]) {
        for (i, code) in codes.iter_mut().enumerate() {
            *code = q[i % 16 * 4 + i / 16] as u8;
        }
        for (sums, offset) in sums.as_chunks::<2>().0.iter().zip(offsets.as_chunks_mut::<4>().0) {
            *offset = (-i32::from(sums[0]) - i32::from(sums[1])).to_ne_bytes();
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let zero = _mm512_setzero_si512();
        let (three, shifts) = (_mm512_set1_epi8(3), _mm512_setr_epi64(0, 0, 2, 2, 4, 4, 6, 6));
        let mut sums = [[zero; 2]; T];
        for i in 0..2 {
            let mut dots = [[zero; 4]; T];
            for k in 0..4 {
                // SAFETY: the codes of block `4i + k` of eight.
                let codes =
                    unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(w.add(18 * (4 * i + k) + 2).cast())) };
                let from = 18 * (4 * i + k);
                let codes = request::<Self>(w, from, from + 18, codes);
                // Bit pair `l` in lane `l`.
                let codes = _mm512_and_si512(_mm512_srlv_epi64(codes, shifts), three);
                for t in 0..T {
                    // SAFETY: the block's 64 activations.
                    let x = unsafe { load(x.part(0, t).add(64 * (4 * i + k))) };
                    dots[t][k] = _mm512_dpbusd_epi32(zero, codes, x);
                }
            }
            for t in 0..T {
                sums[t][i] = add_lanes(dots[t]);
            }
        }
        // SAFETY: eight blocks.
        let scales = unsafe { fields::<18, 0, 2, 8>(w) };
        let d = _mm512_castps256_ps512(_mm256_cvtph_ps(_mm512_castsi512_si128(scales)));
        let twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        let d = _mm512_permutexvar_ps(twice, d);
        let mut terms = [[_mm512_setzero_ps(); 2]; T];
        for t in 0..T {
            let sums = add_dword_pairs(sums[t][0], sums[t][1]);
            // SAFETY: 16 offsets, and the scales of these terms.
            terms[t][0] = unsafe { x.term(t, d, _mm512_add_epi32(sums, load(x.part(1, t)))) };
        }
        terms
    }
}
