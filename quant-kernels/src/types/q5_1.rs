//! Q5_1: 32 values in 24 bytes (6 bits per value): 5-bit codes with a scale and an offset.
//!
//! ```text
//! bytes 0..2    d, f16
//! bytes 2..4    m, f16
//! bytes 4..8    fifth bits, little-endian u32: bit j belongs to value j
//! bytes 8..24   low four bits: byte j holds value j (low nibble) and value j + 16 (high nibble)
//! value = d * code + m, code 0..=31
//! ```
//!
//! Source: ggml, `block_q5_1`.

use super::affine_search::fit_line;
use super::blocks32::{OffsetBlock, five_bit_codes, offset_codes, pack_five_bit_codes};
use super::quantize::each_block;
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};
use half::f16;

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q5_1,
        acts: ActKind::Q32,
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

/// Values to blocks, as ggml's `quantize_row_q5_1_ref`: the minimum becomes code 0, the maximum 31.
pub fn quantize(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<24>().0) {
        let (d, m, codes) = offset_codes(x, 31);
        block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        block[2..4].copy_from_slice(&f16::from_f32(m).to_le_bytes());
        pack_five_bit_codes(&codes, &mut block[4..]);
    }
}

/// Values to blocks: scale and offset by the affine search.
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    each_block::<32, 24>(x, importance, out, |sample, block| {
        let (d, m, codes) = fit_line(sample, 31);
        block[..2].copy_from_slice(&d);
        block[2..4].copy_from_slice(&m);
        pack_five_bit_codes(&codes, &mut block[4..]);
    });
}

pub(crate) fn unpack(b: &[u8; 24]) -> OffsetBlock {
    let [_, _, _, _, codes @ ..] = b;
    OffsetBlock { d: f16_at(b, 0), m: f16_at(b, 2), q: five_bit_codes(codes).map(|q| q as i8) }
}
