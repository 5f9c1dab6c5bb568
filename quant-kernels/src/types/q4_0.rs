//! Q4_0: blocks of 32 values, 18 bytes: f16 scale, then 16 bytes whose low nibbles are values 0..16 and whose
//! high nibbles are values 16..32, each with an offset of 8.

use super::blocks32::{inverse, pack_nibbles};
use super::quantize::each_block;
use super::scale_search::{Integers, Levels, closer, scale_search, two_sided};
use super::{TypeKernels, f16_at, tile_by_dot};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

const LEN: usize = GgmlType::Q4_0.block_len();
const BYTES: usize = GgmlType::Q4_0.block_bytes();

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q4_0,
        acts: ActKind::Q32,
        dequantize,
        quantize: quantize_fitted,
        dot,
        tile: |tile| tile_by_dot(dot, tile),
    }
}

/// Code of value `i` of a block, -8..=7.
fn code(block: &[u8; BYTES], i: usize) -> i32 {
    i32::from(block[2 + i % 16] >> (4 * (i / 16)) & 15) - 8
}

/// Blocks to values: code times scale.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<LEN>().0) {
        let d = f16_at(block, 0);
        for (i, out) in out.iter_mut().enumerate() {
            *out = code(block, i) as f32 * d;
        }
    }
}

/// Values to blocks, as ggml's `quantize_row_q4_0_ref`: the value of largest magnitude becomes code -8.
pub fn quantize(values: &[f32], blocks: &mut [u8]) {
    for (x, block) in values.as_chunks::<LEN>().0.iter().zip(blocks.as_chunks_mut::<BYTES>().0) {
        let extreme = x.iter().fold(0f32, |m, &v| if v.abs() > m.abs() { v } else { m });
        let d = extreme / -8.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        block[..2].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
        let code = |x: f32| ((x * inverse + 8.5) as u8).min(15);
        for (i, byte) in block[2..].iter_mut().enumerate() {
            *byte = code(x[i]) | code(x[i + 16]) << 4;
        }
    }
}

/// Values to blocks: the scale by search.
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let levels = Integers::<-8, 7>;
    each_block::<LEN, BYTES>(x, importance, out, |sample, block| {
        let candidates = two_sided::<32>(&sample.x, 5.0, 8.8);
        let scale = scale_search(&levels, &sample.x, &sample.w, &candidates, &closer(0.04)).scale;
        let (bytes, d) = sample.f16(scale, 1.0);
        let over = inverse(d);
        block[..2].copy_from_slice(&bytes);
        pack_nibbles(&sample.x.map(|x| (levels.nearest(x * over) + 8.0) as u8), &mut block[2..]);
    });
}

/// One row with one token: an f32 step per block.
pub fn dot(row: &[u8], acts: &Acts, token: usize) -> f32 {
    let mut acc = 0f32;
    for (b, block) in row.as_chunks::<BYTES>().0.iter().enumerate() {
        let x = acts.block(b, token, LEN);
        let isum: i32 = x.iter().enumerate().map(|(i, &x)| code(block, i) * i32::from(x)).sum();
        acc += (f16_at(block, 0) * acts.d[acts.place(b, token, 32)]) * isum as f32;
    }
    acc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::goldens;

    #[test]
    fn dequantizes_as_ggml() {
        goldens::check_dequantize("q4_0", dequantize);
    }

    #[test]
    fn quantizes_as_ggml() {
        goldens::check_quantize("q4_0", quantize);
    }
}
