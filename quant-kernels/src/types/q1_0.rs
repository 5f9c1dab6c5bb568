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

use super::blocks256::f16_to_f32;
use super::{TypeKernels, blocks32, tile_by_dot};
use crate::activations::{ActKind, Acts};
use crate::{GgmlType, Isa};

/// The kernels of this type.
pub fn kernels(_isa: Isa) -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q1_0,
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

fn unpack(b: &[u8; 18]) -> (f32, [i8; 128]) {
    (f16_to_f32(b[0], b[1]), std::array::from_fn(|i| if b[2 + i / 8] >> (i % 8) & 1 != 0 { 1 } else { -1 }))
}
