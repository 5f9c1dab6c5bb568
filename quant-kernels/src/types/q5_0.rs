//! Q5_0: 32 values in 22 bytes (5.5 bits per value): 5-bit codes with a scale.
//!
//! ```text
//! bytes 0..2    d, f16
//! bytes 2..6    fifth bits, little-endian u32: bit j belongs to value j
//! bytes 6..22   low four bits: byte j holds value j (low nibble) and value j + 16 (high nibble)
//! value = d * (code - 16), code 0..=31
//! ```
//!
//! Source: ggml, `block_q5_0`.

use super::blocks32::five_bit_codes;
use super::blocks256::f16_to_f32;
use super::{TypeKernels, blocks32, tile_by_dot};
use crate::activations::{ActKind, Acts};
use crate::{GgmlType, Isa};

/// The kernels of this type.
pub fn kernels(_isa: Isa) -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q5_0,
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

fn unpack(b: &[u8; 22]) -> (f32, [i8; 32]) {
    let q = five_bit_codes(&b[6..], [b[2], b[3], b[4], b[5]]);
    (f16_to_f32(b[0], b[1]), q.map(|q| q as i8 - 16))
}
