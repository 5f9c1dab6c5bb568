//! Q5_K: super-blocks of 256 values, 176 bytes: as Q4_K, with 32 bytes of fifth bits between the packed scales and
//! the nibbles: bit `j` of byte `i` belongs to value `i` of sub-block `j`.

use super::{TypeKernels, q4_k, tile_by_dot};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

const BYTES: usize = GgmlType::Q5_K.block_bytes();

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q5_K,
        acts: ActKind::Q256,
        dequantize,
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
