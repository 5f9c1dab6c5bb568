//! Q1_0: a set bit is the unsigned code 2, a clear one 0, with an offset of 1; four of the contract's blocks share a
//! scale.

use super::fields::{fields, vector};
use super::linear::{Linear, Terms, X, add_lanes, load, request};
use super::load::{Rows, low_f16};
use super::panel::{self, Format, Panel, Steps};
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Q1_0>(tile) }
}

struct Q1_0;

/// For each byte of the codes of four values in two rows: from which bit on eight bits have the value's bit at place
/// 1, if these values' bits are the lowest of the rows' dwords.
const PLACES: [u8; 64] = {
    let mut places = [0; 64];
    let mut i = 0;
    while i < 64 {
        places[i] = ((i % 4 + i / 4 % 2 * 32 + 64 - 1) % 64) as u8;
        i += 1;
    }
    places
};

impl Format for Q1_0 {
    const BYTES: usize = 2 * 18;
    const STEPS: Steps = Steps::Blocks { sub: 32, offset: 1, minima: false };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, values: usize, panel: &mut Panel) {
        for b in 0..values / 128 {
            let at = b * 18;
            // SAFETY: the caller vouches for the 18 bytes of block `b` in every row.
            let (d, bits) = unsafe { (rows.dword(at), rows.dwords4(at + 2)) };
            for i in 0..4 {
                panel.set_d(4 * b + i, low_f16(d));
                for k in 0..8 {
                    let places = _mm512_add_epi8(vector(PLACES), _mm512_set1_epi8(4 * k as i8));
                    let codes = _mm512_multishift_epi64_epi8(places, bits[i]);
                    panel.set_codes(32 * b + 8 * i + k, _mm512_and_si512(codes, _mm512_set1_epi8(2)));
                }
            }
        }
    }
}

impl Linear for Q1_0 {
    const VALUES: usize = 128;
    const BYTES: usize = 18;
    const TERMS: usize = 4;
    const MINIMA: bool = false;
    const PARTS: [usize; 3] = [128, 16, 0];

    /// The codes that meet bit 0 of each byte, those that meet bit 1, and so on; the sums with their sign changed.
    #[inline]
    fn arrange(q: &[i8], sums: &[i16], [codes, offsets, _]: [&mut [u8]; 3]) {
        for (i, code) in codes.iter_mut().enumerate() {
            *code = q[i % 16 * 8 + i / 16] as u8;
        }
        for (sums, offset) in sums.as_chunks::<2>().0.iter().zip(offsets.as_chunks_mut::<4>().0) {
            *offset = (-i32::from(sums[0]) - i32::from(sums[1])).to_ne_bytes();
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let zero = _mm512_setzero_si512();
        // Lane `l` rotates bits `l` and `4 + l` of each byte to place 1.
        let lanes = |first: i32| {
            let by = |lane: i32| 1 - first - lane;
            let low = _mm256_setr_m128i(_mm_set1_epi32(by(0)), _mm_set1_epi32(by(1)));
            let high = _mm256_setr_m128i(_mm_set1_epi32(by(2)), _mm_set1_epi32(by(3)));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        };
        let (two, shifts) = (_mm512_set1_epi8(2), [lanes(0), lanes(4)]);
        let mut dots = [[zero; 4]; T];
        for k in 0..4 {
            // SAFETY: the bits of block `k` of four.
            let bits = unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(w.add(18 * k + 2).cast())) };
            let bits = request::<Self>(w, 18 * k, 18 * (k + 1), bits);
            for half in 0..2 {
                let codes = _mm512_and_si512(_mm512_rolv_epi32(bits, shifts[half]), two);
                for t in 0..T {
                    // SAFETY: 64 of the block's 128 activations.
                    let x = unsafe { load(x.part(0, t).add(128 * k + 64 * half)) };
                    dots[t][k] = _mm512_dpbusd_epi32(dots[t][k], codes, x);
                }
            }
        }
        // SAFETY: four blocks.
        let scales = unsafe { fields::<18, 0, 2, 4>(w) };
        let d = _mm512_castps128_ps512(_mm_cvtph_ps(_mm512_castsi512_si128(scales)));
        let four_times = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        let d = _mm512_permutexvar_ps(four_times, d);
        let mut terms = [[_mm512_setzero_ps(); 2]; T];
        for t in 0..T {
            // SAFETY: 16 offsets, and the scales of these terms.
            terms[t][0] = unsafe { x.term(t, d, _mm512_add_epi32(add_lanes(dots[t]), load(x.part(1, t)))) };
        }
        terms
    }
}
