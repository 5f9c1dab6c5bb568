//! Q8_0: blocks of 32 values, 34 bytes: f16 scale, then 32 signed codes.

use super::blocks32::inverse;
use super::quantize::each_block;
use super::scale_search::{Integers, Levels, closer, scale_search, two_sided};
use super::{TypeKernels, f16_at, tile_by_dot};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

const LEN: usize = GgmlType::Q8_0.block_len();
const BYTES: usize = GgmlType::Q8_0.block_bytes();

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q8_0,
        acts: ActKind::Q32,
        dequantize,
        quantize: quantize_fitted,
        dot,
        tile: |tile| tile_by_dot(dot, tile),
    }
}

/// Blocks to values: code times scale.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<LEN>().0) {
        let d = f16_at(block, 0);
        for (out, &code) in out.iter_mut().zip(&block[2..]) {
            *out = f32::from(code as i8) * d;
        }
    }
}

/// Values to blocks, as ggml's `quantize_row_q8_0_ref`: scale amax / 127, codes rounded half away from zero.
pub fn quantize(values: &[f32], blocks: &mut [u8]) {
    for (x, block) in values.as_chunks::<LEN>().0.iter().zip(blocks.as_chunks_mut::<BYTES>().0) {
        let amax = x.iter().fold(0f32, |m, v| m.max(v.abs()));
        let d = amax / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        block[..2].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
        for (code, x) in block[2..].iter_mut().zip(x) {
            *code = (x * inverse).round() as i8 as u8;
        }
    }
}

/// Values to blocks: the scale by search.
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let levels = Integers::<-128, 127>;
    each_block::<LEN, BYTES>(x, importance, out, |sample, block| {
        let candidates = two_sided::<24>(&sample.x, 124.0, 128.5);
        let scale = scale_search(&levels, &sample.x, &sample.w, &candidates, &closer(0.002)).scale;
        let (bytes, d) = sample.f16(scale, 1.0);
        let over = inverse(d);
        block[..2].copy_from_slice(&bytes);
        for (code, x) in block[2..].iter_mut().zip(&sample.x) {
            *code = levels.nearest(x * over) as i8 as u8;
        }
    });
}

/// One row with one token: an f32 step per block.
pub fn dot(row: &[u8], acts: &Acts, token: usize) -> f32 {
    let mut acc = 0f32;
    for (b, block) in row.as_chunks::<BYTES>().0.iter().enumerate() {
        let x = acts.block(b, token, LEN);
        let isum: i32 = block[2..].iter().zip(x).map(|(&w, &x)| i32::from(w as i8) * i32::from(x)).sum();
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
        goldens::check_dequantize("q8_0", dequantize);
    }

    #[test]
    fn quantizes_as_ggml() {
        goldens::check_quantize("q8_0", quantize);
    }
}
