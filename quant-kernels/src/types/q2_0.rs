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

use super::blocks256::f16_to_f32;
use super::{TypeKernels, blocks32, tile_by_dot};
use crate::activations::{ActKind, Acts};
use crate::{GgmlType, Isa};

/// The kernels of this type.
pub fn kernels(_isa: Isa) -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q2_0,
        acts: ActKind::Q32,
        dequantize,
        dot,
        tile: |tile| tile_by_dot(dot, tile),
    }
}

/// Blocks to values.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    blocks32::dequantize(blocks, out, unpack);
}

/// One row with one token.
pub fn dot(row: &[u8], acts: &Acts, token: usize) -> f32 {
    blocks32::dot(row, acts, token, unpack)
}

fn unpack(b: &[u8; 18]) -> (f32, [i8; 64]) {
    (f16_to_f32(b[0], b[1]), std::array::from_fn(|i| (b[2 + i / 4] >> (i % 4 * 2) & 3) as i8 - 1))
}
