//! NVFP4: 4-bit floats with a small float as the scale of each 16, which is the contract's block.

use super::blocks32::{levels, repeated};
use super::columns::{Acc, Ahead, Columns, Quads};
use super::load::Rows;
use super::panel::{self, Format, Panel, Steps};
use super::two_bits;
use crate::isa::Avx512;
use crate::types::TileFn;
use crate::types::codebooks::FP4_LEVELS;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile_by_columns::<Nvfp4>(tile) }
}

struct Nvfp4;

/// What the unsigned codes are too large by.
const OFFSET: i16 = 12;
/// The unsigned codes.
const LEVELS: [u8; 64] = repeated(FP4_LEVELS, OFFSET);

/// Half of each scale as an f32, of which two bytes are zero: the others, for the seven lower bits of a scale.
#[repr(align(64))]
struct Scales([[u8; 128]; 2]);

static SCALES: Scales = {
    let mut planes = [[0; 128]; 2];
    let mut byte = 0;
    while byte < 128 {
        let (exponent, mantissa) = (byte as u32 >> 3, byte as u32 & 7);
        // In steps of 2^-10; all numbers are exact.
        let steps = if exponent == 0 { mantissa } else { (8 + mantissa) << (exponent - 1) };
        let [_, _, low, high] = (steps as f32 / 1024.0).to_bits().to_le_bytes();
        (planes[0][byte], planes[1][byte]) = (low, high);
        byte += 1;
    }
    Scales(planes)
};

/// Half the scales of 16 rows, four bytes each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn half_scales(bytes: __m512i) -> [__m512; 4] {
    let nonzero = _mm512_cmpneq_epi8_mask(bytes, _mm512_set1_epi8(127));
    let plane = |plane: &[u8; 128]| {
        // SAFETY: 128 bytes.
        let (a, b) = unsafe {
            let table = plane.as_ptr();
            (_mm512_loadu_si512(table.cast()), _mm512_loadu_si512(table.add(64).cast()))
        };
        _mm512_maskz_mov_epi8(nonzero, _mm512_permutex2var_epi8(a, bytes, b))
    };
    let (low, high) = (plane(&SCALES.0[0]), plane(&SCALES.0[1]));
    let mut out = [_mm512_setzero_ps(); 4];
    for s in 0..4 {
        // Byte s of each dword of both planes to bytes 2 and 3.
        let pick = two_bits::pick(0x0000_8080 + 0x0001_0000 * s as u32 + 0x0100_0000 * s as u32);
        let low = _mm512_maskz_shuffle_epi8(0x4444_4444_4444_4444, low, pick);
        let both = _mm512_mask_shuffle_epi8(low, 0x8888_8888_8888_8888, high, pick);
        out[s] = _mm512_castsi512_ps(both);
    }
    out
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
            let (scales, codes) = unsafe { (rows.dword(at), [rows.dwords4(at + 4), rows.dwords4(at + 20)]) };
            for (s, d) in half_scales(scales).into_iter().enumerate() {
                panel.set_d(4 * b + s, d);
                for i in 0..2 {
                    let [low, high] = levels(codes[s / 2][s % 2 * 2 + i], LEVELS);
                    panel.set_codes(16 * b + 4 * s + i, low);
                    panel.set_codes(16 * b + 4 * s + 2 + i, high);
                }
            }
        }
    }
}

impl Columns for Nvfp4 {
    const VALUES: usize = 64;
    const BYTES: usize = 36;
    const SHARE: usize = 32;

    /// What the offset adds too much.
    fn words(sums: &[i16]) -> [[u8; 4]; 8] {
        let mut words = [[0; 4]; 8];
        for (word, sum) in words.iter_mut().zip(sums) {
            *word = (-i32::from(OFFSET) * i32::from(*sum)).to_ne_bytes();
        }
        words
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn columns<const T: usize>(rows: Rows, x: Quads<T>, ahead: Ahead, acc: &mut Acc<T>) {
        ahead.request::<{ 16 * 36 }>(0);
        // SAFETY: the caller vouches for the 36 bytes of the block in every row.
        let (scales, codes) = unsafe { (rows.anew().dword(0), rows.anew().dwords8(4)) };
        let scales = half_scales(scales);
        for s in 0..4 {
            // SAFETY: the caller vouches for the activations, `4 * s + 3 < 16`.
            unsafe {
                let mut sums = x.sums(s);
                for i in 0..2 {
                    let [low, high] = levels(codes[2 * s + i], LEVELS);
                    x.dot(4 * s + i, low, &mut sums);
                    x.dot(4 * s + 2 + i, high, &mut sums);
                }
                acc.add(x, s / 2, scales[s], sums);
            }
        }
    }
}
