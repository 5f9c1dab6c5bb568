//! Q2_0: 64 values in 18 bytes (2.25 bits per value): 2-bit codes with a scale.
//!
//! ```text
//! bytes 0..2    d, f16
//! bytes 2..18   codes 0..=3: bit pair j % 4 of byte j / 4 belongs to value j
//! value = d * (code - 1)
//! ```
//!
//! The contract's block is that of the activations: two of 32 values share d.
//!
//! Source: ggml, `block_q2_0`.

use super::blocks32::{CodeBlock, amax, inverse};
use super::quantize::each_block;
use super::scale_search::{Integers, Levels, closer, scale_search, two_sided};
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};
use half::f16;

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q2_0,
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

/// Values to blocks, as ggml's `quantize_row_q2_0_ref`: d is the largest magnitude, so codes are 0, 1 and 2.
pub fn quantize(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<64>().0.iter().zip(out.as_chunks_mut::<18>().0) {
        let d = amax(x);
        let inverse = inverse(d);
        block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        let code = |x: f32| ((x * inverse).round() + 1.0) as u8;
        for (byte, x) in block[2..].iter_mut().zip(x.as_chunks::<4>().0) {
            *byte = (0..4).fold(0, |byte, i| byte | code(x[i]) << (2 * i));
        }
    }
}

/// Values to blocks: the scale by search, of either sign (the levels are -1, 0, 1 and 2).
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let levels = Integers::<-1, 2>;
    each_block::<64, 18>(x, importance, out, |sample, block| {
        let candidates = two_sided::<32>(&sample.x, 0.95, 4.0);
        let scale = scale_search(&levels, &sample.x, &sample.w, &candidates, &closer(0.1)).scale;
        let (bytes, d) = sample.f16(scale, 1.0);
        let over = inverse(d);
        block[..2].copy_from_slice(&bytes);
        let code = |x: f32| (levels.nearest(x * over) + 1.0) as u8;
        for (byte, x) in block[2..].iter_mut().zip(sample.x.as_chunks::<4>().0) {
            *byte = (0..4).fold(0, |byte, i| byte | code(x[i]) << (2 * i));
        }
    });
}

pub(crate) fn unpack(b: &[u8; 18]) -> CodeBlock<64> {
    let q = std::array::from_fn(|i| (b[2 + i / 4] >> (i % 4 * 2) & 3) as i8 - 1);
    CodeBlock { d: f16_at(b, 0), q }
}
