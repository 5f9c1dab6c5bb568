//! TQ2_0: 256 ternary values in 66 bytes (2.0625 bits per value): 2-bit codes with a scale.
//!
//! ```text
//! bytes  0..64   codes 0..=2 (3 decodes too): each 32 bytes hold 128 values, bit pair j of byte l being
//!                value 32 j + l
//! bytes 64..66   d, f16
//! value = d * (code - 1)
//! ```
//!
//! Source: ggml, `block_tq2_0`.

use super::blocks256::{Block256, fit_ternary, pack_two_bit_codes, ternary_digits, two_bit_codes};
use super::quantize::each_block;
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};
use half::f16;

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::TQ2_0,
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

/// Values to blocks, as ggml's `quantize_row_tq2_0_ref`: d is the largest magnitude.
pub fn quantize(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<66>().0) {
        let (d, digits) = ternary_digits(x);
        pack_two_bit_codes(&digits, &mut block[..64]);
        block[64..].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    }
}

/// Values to blocks: the scale by search.
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    each_block::<256, 66>(x, importance, out, |sample, block| {
        let (d, digits) = fit_ternary(sample);
        pack_two_bit_codes(&digits, &mut block[..64]);
        block[64..].copy_from_slice(&d);
    });
}

pub(crate) fn unpack(b: &[u8; 66]) -> Block256 {
    Block256 { d: f16_at(b, 64), scales: [1; 16], q: two_bit_codes(&b[..64]).map(|q| q as i8 - 1) }
}
