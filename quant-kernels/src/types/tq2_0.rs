//! TQ2_0: 256 ternary values in 66 bytes (2.0625 bits per value): 2-bit codes with a scale.
//!
//! ```text
//! bytes  0..64   codes 0..=2 (3 decodes too): each 32 bytes hold 128 values, bit pair j of byte l being value 32 j + l
//! bytes 64..66   d, f16
//! value = d * (code - 1)
//! ```
//!
//! Source: ggml, `block_tq2_0`.

use super::blocks256::{Block256, f16_to_f32, two_bit_codes};
use super::{TypeKernels, blocks256, tile_by_dot};
use crate::activations::{ActKind, Acts};
use crate::{GgmlType, Isa};

/// The kernels of this type.
pub fn kernels(_isa: Isa) -> TypeKernels {
    TypeKernels {
        ty: GgmlType::TQ2_0,
        acts: ActKind::Q256,
        dequantize,
        dot,
        tile: |tile| tile_by_dot(dot, tile),
    }
}

/// Blocks to values.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    blocks256::dequantize(blocks, out, unpack);
}

/// One row with one token.
pub fn dot(row: &[u8], acts: &Acts, token: usize) -> f32 {
    blocks256::dot(row, acts, token, unpack)
}

fn unpack(b: &[u8; 66]) -> Block256 {
    Block256 { d: f16_to_f32(b[64], b[65]), scales: [1; 16], q: two_bit_codes(&b[..64]).map(|q| q as i8 - 1) }
}
