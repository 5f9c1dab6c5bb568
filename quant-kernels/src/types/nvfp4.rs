//! NVFP4: 64 values in 36 bytes (4.5 bits per value): E2M1 floats with an E4M3 scale for each 16.
//!
//! ```text
//! bytes 0..4    scale of values 16 s .. 16 s + 16: unsigned E4M3 (bias 7); 0 and 0x7F mean 0, bit 7 is ignored
//! bytes 4..36   codes, 8 bytes for 16 values: byte j holds value j (low nibble) and value j + 8 (high nibble)
//! value = scale / 2 * level[code], the levels being doubled to be integers: 0 1 2 3 4 6 8 12 and negatives
//! ```
//!
//! The contract's block is the weight's 16 values; two of them share an activation block of 32:
//! `acc = acc + (scale / 2 * dx) * f32(isum)` for each 16. |isum| <= 12 * 127 * 16 < 2^15.
//!
//! Source: ggml, `block_nvfp4`, `ggml_ue4m3_to_fp32`.

use super::blocks32::nibbles;
use super::blocks256::dot_i8;
use super::codebooks::FP4_LEVELS;
use super::{TypeKernels, tile_by_dot};
use crate::activations::{ActKind, Acts};
use crate::{GgmlType, Isa};

/// The kernels of this type.
pub fn kernels(_isa: Isa) -> TypeKernels {
    TypeKernels {
        ty: GgmlType::NVFP4,
        acts: ActKind::Q32,
        dequantize,
        dot,
        tile: |tile| tile_by_dot(dot, tile),
    }
}

/// Blocks to values.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<36>().0.iter().zip(out.as_chunks_mut::<64>().0) {
        for ((d, q), out) in sub_blocks(block).zip(out.as_chunks_mut::<16>().0) {
            *out = q.map(|q| f32::from(q) * d);
        }
    }
}

/// One row with one token.
pub fn dot(row: &[u8], acts: &Acts, token: usize) -> f32 {
    let mut acc = 0.0;
    for (b, (d, q)) in row.as_chunks::<36>().0.iter().flat_map(sub_blocks).enumerate() {
        let dx = acts.d[b / 2 * acts.tokens + token];
        let x = &acts.block(b / 2, token, 32)[b % 2 * 16..][..16];
        acc += (d * dx) * dot_i8(&q, x) as f32;
    }
    acc
}

/// Half the scale and the codes of each 16 values.
fn sub_blocks(block: &[u8; 36]) -> impl Iterator<Item = (f32, [i8; 16])> {
    let (scales, codes) = block.split_at(4);
    scales
        .iter()
        .zip(codes.as_chunks::<8>().0)
        .map(|(&scale, codes)| (half_scale(scale), nibbles(codes).map(|code| FP4_LEVELS[usize::from(code)])))
}

/// Half of an unsigned E4M3 value. Every product here is exact.
fn half_scale(scale: u8) -> f32 {
    if scale == 0 || scale == 0x7F {
        return 0.0;
    }
    let (exponent, mantissa) = (scale >> 3 & 15, f32::from(scale & 7));
    if exponent == 0 {
        return mantissa * (1.0 / 1024.0);
    }
    // 2^(exponent - 7) / 2
    let power = f32::from_bits((u32::from(exponent) + 127 - 8) << 23);
    (1.0 + mantissa / 8.0) * power
}
