//! IQ4_NL: 32 values in 18 bytes (4.5 bits per value): 4-bit indices into 16 unevenly spaced levels.
//!
//! ```text
//! bytes 0..2    d, f16
//! bytes 2..18   indices: byte j holds value j (low nibble) and value j + 16 (high nibble)
//! value = d * level[index]
//! ```
//!
//! Source: ggml, `block_iq4_nl`, `kvalues_iq4nl`.

use super::blocks32::nibbles;
use super::blocks256::f16_to_f32;
use super::codebooks::IQ4_LEVELS;
use super::{TypeKernels, blocks32, tile_by_dot};
use crate::activations::{ActKind, Acts};
use crate::{GgmlType, Isa};

/// The kernels of this type.
pub fn kernels(_isa: Isa) -> TypeKernels {
    TypeKernels {
        ty: GgmlType::IQ4_NL,
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

fn unpack(b: &[u8; 18]) -> (f32, [i8; 32]) {
    (f16_to_f32(b[0], b[1]), nibbles(&b[2..]).map(|index| IQ4_LEVELS[usize::from(index)]))
}
