//! NVFP4: 4-bit floats with a small float as the scale of each 16, which is the contract's block.

use super::blocks32::{levels, repeated};
use super::fields::fields;
use super::linear::{Linear, Terms, X, add_dword_pairs, load, request};
use super::load::Rows;
use super::panel::{self, Format, Panel, Steps};
use crate::isa::Avx512;
use crate::types::TileFn;
use crate::types::codebooks::FP4_LEVELS;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Nvfp4>(tile) }
}

struct Nvfp4;

/// What the unsigned codes are too large by.
const OFFSET: i16 = 12;
/// The unsigned codes.
const LEVELS: [u8; 64] = repeated(FP4_LEVELS, OFFSET);

/// Half the scales that are in the low bytes of 16 dwords; the bytes above are arbitrary.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn half_scales(bytes: __m512i) -> __m512 {
    let bytes = _mm512_and_si512(bytes, _mm512_set1_epi32(255));
    // Exponent and mantissa in their places in an f16, whose exponent has a bias of 15 instead of 7, and half of that.
    let half = _mm512_slli_epi32::<7>(_mm512_and_si512(bytes, _mm512_set1_epi32(127)));
    let value = _mm512_mul_ps(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(half)), _mm512_set1_ps(128.0));
    _mm512_maskz_mov_ps(_mm512_cmpneq_epi32_mask(bytes, _mm512_set1_epi32(127)), value)
}

impl Format for Nvfp4 {
    const BYTES: usize = 4 * 36;
    const STEPS: Steps = Steps::Blocks { sub: 16, offset: OFFSET, minima: false };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, values: usize, panel: &mut Panel) {
        for b in 0..values / 64 {
            let at = b * 36;
            // SAFETY: the caller vouches for the 36 bytes of block `b` in every row.
            let (mut scales, codes) =
                unsafe { (rows.dword(at), [rows.dwords4(at + 4), rows.dwords4(at + 20)]) };
            for s in 0..4 {
                panel.set_d(4 * b + s, half_scales(scales));
                scales = _mm512_srli_epi32::<8>(scales);
                for i in 0..2 {
                    let [low, high] = levels(codes[s / 2][s % 2 * 2 + i], LEVELS);
                    panel.set_codes(16 * b + 4 * s + i, low);
                    panel.set_codes(16 * b + 4 * s + 2 + i, high);
                }
            }
        }
    }
}

impl Linear for Nvfp4 {
    const VALUES: usize = 64;
    const BYTES: usize = 36;
    const TERMS: usize = 4;
    const MINIMA: bool = false;
    const PARTS: [usize; 3] = [32, 32, 16];

    /// The codes that meet low nibbles, those that meet high ones, and what the offset adds too much.
    #[inline]
    fn arrange(q: &[i8], sums: &[i16], [low, high, offsets]: [&mut [u8]; 3]) {
        for (s, q) in q.as_chunks::<16>().0.iter().enumerate() {
            for i in 0..8 {
                (low[8 * s + i], high[8 * s + i]) = (q[i] as u8, q[i + 8] as u8);
            }
        }
        for (sum, offset) in sums.iter().zip(offsets.as_chunks_mut::<4>().0) {
            *offset = (-i32::from(OFFSET) * i32::from(*sum)).to_ne_bytes();
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let mut dots = [[_mm512_setzero_si512(); 2]; T];
        for i in 0..2 {
            // SAFETY: the codes of blocks `2i` and `2i + 1` of four.
            let codes = unsafe {
                let p = w.add(72 * i);
                let first = _mm512_castsi256_si512(_mm256_loadu_si256(p.add(4).cast()));
                _mm512_inserti64x4::<1>(first, _mm256_loadu_si256(p.add(40).cast()))
            };
            let codes = request(w, 72 * i, 72 * (i + 1), codes);
            let [low, high] = levels(codes, LEVELS);
            for t in 0..T {
                // SAFETY: 64 bytes of two parts.
                let (x0, x1) = unsafe { (load(x.part(0, t).add(64 * i)), load(x.part(1, t).add(64 * i))) };
                dots[t][i] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(dots[t][i], low, x0), high, x1);
            }
        }
        // SAFETY: four blocks.
        let scales = unsafe { fields::<36, 0, 4, 4>(w) };
        let d = half_scales(_mm512_cvtepu8_epi32(_mm512_castsi512_si128(scales)));
        let mut terms = [[_mm512_setzero_ps(); 2]; T];
        for t in 0..T {
            // SAFETY: 16 offsets, and the scales of these terms.
            terms[t][0] = unsafe {
                let offsets = load(x.part(2, t));
                x.term(t, d, _mm512_add_epi32(add_dword_pairs(dots[t][0], dots[t][1]), offsets))
            };
        }
        terms
    }
}
