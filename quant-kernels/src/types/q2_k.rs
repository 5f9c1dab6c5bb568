//! Q2_K: 256 values in 84 bytes (2.625 bits per value): 2-bit codes, a 4-bit scale and minimum for each 16.
//!
//! ```text
//! bytes  0..16   byte i: scale (low nibble) and minimum (high nibble) of values 16 i .. 16 i + 16
//! bytes 16..80   codes 0..=3: each 32 bytes hold 128 values, bit pair j of byte l being value 32 j + l
//! bytes 80..82   d, f16
//! bytes 82..84   dmin, f16
//! value = d * scale * code - dmin * minimum
//! ```
//!
//! Source: ggml, `block_q2_K`.

use super::affine_search::fit_scales_and_minima;
use super::blocks256::{Block256, MinBlock256, pack_two_bit_codes, two_bit_codes};
use super::quantize::each_block;
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q2_K,
        acts: ActKind::Q256,
        dequantize,
        quantize: quantize_fitted,
        dot,
        tile: |tile| unpacked::tile(tile, unpack),
    }
}

/// Blocks to values.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    unpacked::dequantize(blocks, out, unpack);
}

/// One row with one token.
pub fn dot(row: &[u8], acts: &Acts, token: usize) -> f32 {
    unpacked::dot(row, acts, token, unpack)
}

/// Values to blocks: scale and minimum of each sub-block by the affine search, rounded to 4 bits together.
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    each_block::<256, 84>(x, importance, out, |sample, block| {
        let fit = fit_scales_and_minima::<16>(sample, 3, 15);
        for (byte, (scale, minimum)) in block.iter_mut().zip(fit.scales.iter().zip(&fit.minima)) {
            *byte = scale | minimum << 4;
        }
        let codes = std::array::from_fn(|i| fit.lines[i / 16].code(sample.x[i], 3));
        pack_two_bit_codes(&codes, &mut block[16..80]);
        block[80..82].copy_from_slice(&fit.d);
        block[82..].copy_from_slice(&fit.dmin);
    });
}

pub(crate) fn unpack(b: &[u8; 84]) -> MinBlock256 {
    MinBlock256 {
        scaled: Block256 {
            d: f16_at(b, 80),
            scales: std::array::from_fn(|i| (b[i] & 15) as i8),
            q: two_bit_codes(&b[16..80]).map(|q| q as i8),
        },
        dmin: f16_at(b, 82),
        mins: std::array::from_fn(|i| b[i] >> 4),
    }
}
