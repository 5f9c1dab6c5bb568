//! Q1_0: 128 values in 18 bytes (1.125 bits per value): signs with a scale.
//!
//! ```text
//! bytes 0..2    d, f16
//! bytes 2..18   signs: bit j % 8 of byte j / 8 belongs to value j
//! value = d if the bit is set, else -d
//! ```
//!
//! The contract's block is that of the activations: four of 32 values share d.
//!
//! Source: ggml, `block_q1_0`.

use super::blocks32::CodeBlock;
use super::quantize::each_block;
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};
use half::f16;

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q1_0,
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

/// Values to blocks, as ggml's `quantize_row_q1_0_ref`: d is the mean magnitude.
pub fn quantize(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<128>().0.iter().zip(out.as_chunks_mut::<18>().0) {
        let sum = x.iter().fold(0.0, |sum, x| sum + x.abs());
        block[..2].copy_from_slice(&f16::from_f32(sum / 128.0).to_le_bytes());
        for (byte, x) in block[2..].iter_mut().zip(x.as_chunks::<8>().0) {
            *byte = (0..8).fold(0, |byte, i| byte | u8::from(x[i] >= 0.0) << i);
        }
    }
}

/// Values to blocks: the weighted mean magnitude is the scale of least error, no search needed.
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    each_block::<128, 18>(x, importance, out, |sample, block| {
        let (sum, weight) = (sample.x.iter().zip(&sample.w))
            .fold((0.0, 0.0), |(sum, weight), (x, w)| (sum + w * x.abs(), weight + w));
        block[..2].copy_from_slice(&sample.f16(sum / weight, 1.0).0);
        for (byte, x) in block[2..].iter_mut().zip(sample.x.as_chunks::<8>().0) {
            *byte = (0..8).fold(0, |byte, i| byte | u8::from(x[i] >= 0.0) << i);
        }
    });
}

pub(crate) fn unpack(b: &[u8; 18]) -> CodeBlock<128> {
    let q = std::array::from_fn(|i| if b[2 + i / 8] >> (i % 8) & 1 != 0 { 1 } else { -1 });
    CodeBlock { d: f16_at(b, 0), q }
}
