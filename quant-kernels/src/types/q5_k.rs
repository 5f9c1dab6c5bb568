//! Q5_K: super-blocks of 256 values, 176 bytes: as Q4_K, with 32 bytes of fifth bits between the packed scales and
//! the nibbles: bit `j` of byte `i` belongs to value `i` of sub-block `j`.

use super::affine_search::fit_scales_and_minima;
use super::blocks32::pack_nibbles;
use super::quantize::each_block;
use super::{TypeKernels, q4_k, tile_by_dot};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

const LEN: usize = GgmlType::Q5_K.block_len();
const BYTES: usize = GgmlType::Q5_K.block_bytes();

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q5_K,
        acts: ActKind::Q256,
        dequantize,
        quantize: quantize_fitted,
        dot,
        tile: |tile| tile_by_dot(dot, tile),
    }
}

/// Code of value `i` of sub-block `j`, 0..=31.
fn code(block: &[u8; BYTES], j: usize, i: usize) -> u8 {
    (block[48 + j / 2 * 32 + i] >> (4 * (j % 2)) & 15) | (block[16 + i] >> j & 1) << 4
}

/// Blocks to values.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    q4_k::dequantize_with(code, blocks, out);
}

/// Values to blocks: scale and minimum of each sub-block by the affine search, rounded to 6 bits together.
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    each_block::<LEN, BYTES>(x, importance, out, |sample, block| {
        let fit = fit_scales_and_minima::<8>(sample, 31, 63);
        block[..2].copy_from_slice(&fit.d);
        block[2..4].copy_from_slice(&fit.dmin);
        block[4..16].copy_from_slice(&q4_k::pack_scales_and_minima(&fit.scales, &fit.minima));
        let codes: [u8; LEN] = std::array::from_fn(|i| fit.lines[i / 32].code(sample.x[i], 31));
        for (i, byte) in block[16..48].iter_mut().enumerate() {
            *byte = (0..8).fold(0, |byte, j| byte | codes[32 * j + i] >> 4 << j);
        }
        for (codes, bytes) in codes.as_chunks::<64>().0.iter().zip(block[48..].as_chunks_mut::<32>().0) {
            pack_nibbles(codes, bytes);
        }
    });
}

/// One row with one token: sub-block sums scaled in i32, one f32 step per super-block, minima apart.
pub fn dot(row: &[u8], acts: &Acts, token: usize) -> f32 {
    q4_k::dot_with(code, row, acts, token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::goldens;

    #[test]
    fn dequantizes_as_ggml() {
        goldens::check_dequantize("q5_K", dequantize);
    }
}
