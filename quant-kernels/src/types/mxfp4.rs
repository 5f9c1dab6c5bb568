//! MXFP4: 32 values in 17 bytes (4.25 bits per value): the OCP microscaling 4-bit float.
//!
//! ```text
//! byte  0       e, E8M0: the block's scale is 2^(e - 127)
//! bytes 1..17   E2M1 codes: byte j holds value j (low nibble) and value j + 16 (high nibble)
//! value = 2^(e - 128) * level[code], the levels being doubled to be integers: 0 1 2 3 4 6 8 12 and negatives
//! ```
//!
//! e = 0 and e = 1 give subnormal scales, 2^-128 and 2^-127; e = 255 is 2^127, not NaN, as in ggml.
//!
//! Source: OCP Microscaling Formats (MX) 1.0; ggml, `block_mxfp4`, `ggml_e8m0_to_fp32_half`.

use super::blocks32::nibbles;
use super::codebooks::FP4_LEVELS;
use super::{TypeKernels, blocks32, tile_by_dot};
use crate::activations::{ActKind, Acts};
use crate::{GgmlType, Isa};

/// The kernels of this type.
pub fn kernels(_isa: Isa) -> TypeKernels {
    TypeKernels {
        ty: GgmlType::MXFP4,
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

fn unpack(b: &[u8; 17]) -> (f32, [i8; 32]) {
    (half_scale(b[0]), nibbles(&b[1..]).map(|code| FP4_LEVELS[usize::from(code)]))
}

/// 2^(e - 128), subnormal below e = 2.
fn half_scale(e: u8) -> f32 {
    let e = u32::from(e);
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 })
}
