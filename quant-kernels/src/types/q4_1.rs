//! Q4_1: 32 values in 20 bytes (5 bits per value): 4-bit codes with a scale and an offset.
//!
//! ```text
//! bytes 0..2    d, f16
//! bytes 2..4    m, f16
//! bytes 4..20   codes 0..=15: byte j holds value j (low nibble) and value j + 16 (high nibble)
//! value = d * code + m
//! ```
//!
//! Source: ggml, `block_q4_1`.

use super::blocks32::{OffsetBlock, nibbles};
use super::blocks256::f16_to_f32;
use super::{TypeKernels, blocks32, tile_by_dot};
use crate::activations::{ActKind, Acts};
use crate::{GgmlType, Isa};

/// The kernels of this type.
pub fn kernels(_isa: Isa) -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q4_1,
        acts: ActKind::Q32,
        dequantize,
        dot,
        tile: |tile| tile_by_dot(dot, tile),
    }
}

/// Blocks to values.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    blocks32::dequantize_offset(blocks, out, unpack);
}

/// One row with one token.
pub fn dot(row: &[u8], acts: &Acts, token: usize) -> f32 {
    blocks32::dot_offset(row, acts, token, unpack)
}

fn unpack(b: &[u8; 20]) -> OffsetBlock {
    OffsetBlock {
        d: f16_to_f32(b[0], b[1]),
        m: f16_to_f32(b[2], b[3]),
        q: nibbles::<32>(&b[4..]).map(|q| q as i8),
    }
}
