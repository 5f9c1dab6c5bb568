//! Q4_K: super-blocks of 256 values, 144 bytes: f16 scale, f16 scale of minima, 12 bytes of packed 6-bit
//! sub-scales and minima (one of each per 32 values), 128 bytes of nibbles. Sub-blocks 2g and 2g + 1 are the
//! low and high nibbles of bytes `32g..32g + 32`. A value is `d * scale * code - dmin * min`.

use super::affine_search::fit_scales_and_minima;
use super::blocks32::pack_nibbles;
use super::quantize::each_block;
use super::{TypeKernels, f16_at, tile_by_dot};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

const LEN: usize = GgmlType::Q4_K.block_len();
const BYTES: usize = GgmlType::Q4_K.block_bytes();

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q4_K,
        acts: ActKind::Q256,
        dequantize,
        quantize: quantize_fitted,
        dot,
        tile: |tile| tile_by_dot(dot, tile),
    }
}

/// The 6-bit scale and minimum of sub-block `j` (0..8) in the 12 packed bytes of Q4_K and Q5_K.
pub(crate) fn scale_min(packed: &[u8], j: usize) -> (i32, i32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    };
    (scale.into(), min.into())
}

/// Code of value `i` of sub-block `j`, 0..=15.
fn code(block: &[u8; BYTES], j: usize, i: usize) -> u8 {
    block[16 + j / 2 * 32 + i] >> (4 * (j % 2)) & 15
}

/// Blocks to values.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    dequantize_with(code, blocks, out);
}

/// Values to blocks: scale and minimum of each sub-block by the affine search, rounded to 6 bits together.
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    each_block::<LEN, BYTES>(x, importance, out, |sample, block| {
        let fit = fit_scales_and_minima::<8>(sample, 15, 63);
        block[..2].copy_from_slice(&fit.d);
        block[2..4].copy_from_slice(&fit.dmin);
        block[4..16].copy_from_slice(&pack_scales_and_minima(&fit.scales, &fit.minima));
        let codes: [u8; LEN] = std::array::from_fn(|i| fit.lines[i / 32].code(sample.x[i], 15));
        for (codes, bytes) in codes.as_chunks::<64>().0.iter().zip(block[16..].as_chunks_mut::<32>().0) {
            pack_nibbles(codes, bytes);
        }
    });
}

/// The inverse of [`scale_min`] for all sub-blocks.
pub(crate) fn pack_scales_and_minima(scales: &[u8; 8], minima: &[u8; 8]) -> [u8; 12] {
    std::array::from_fn(|i| match i {
        0..4 => scales[i] | scales[i + 4] >> 4 << 6,
        4..8 => minima[i - 4] | minima[i] >> 4 << 6,
        _ => scales[i - 4] & 15 | minima[i - 4] << 4,
    })
}

/// One row with one token: sub-block sums scaled in i32, one f32 step per super-block, minima apart.
pub fn dot(row: &[u8], acts: &Acts, token: usize) -> f32 {
    dot_with(code, row, acts, token)
}

/// [`dequantize`] of Q4_K and Q5_K: `code(block, j, i)` is the code of value `i` of sub-block `j`.
pub(crate) fn dequantize_with<const BYTES: usize>(
    code: impl Fn(&[u8; BYTES], usize, usize) -> u8,
    blocks: &[u8],
    out: &mut [f32],
) {
    for (block, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<LEN>().0) {
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_min(&block[4..16], j);
            let (scale, min) = (d * scale as f32, dmin * min as f32);
            for (i, out) in out.iter_mut().enumerate() {
                *out = scale * f32::from(code(block, j, i)) - min;
            }
        }
    }
}

/// [`dot`] of Q4_K and Q5_K.
pub(crate) fn dot_with<const BYTES: usize>(
    code: impl Fn(&[u8; BYTES], usize, usize) -> u8,
    row: &[u8],
    acts: &Acts,
    token: usize,
) -> f32 {
    let (mut acc, mut accm) = (0f32, 0f32);
    for (b, block) in row.as_chunks::<BYTES>().0.iter().enumerate() {
        let at = b * acts.tokens + token;
        let x = acts.block(b, token, LEN);
        let sums = &acts.sums[at * 16..][..16];
        let (mut isum, mut msum) = (0i32, 0i32);
        for (j, x) in x.as_chunks::<32>().0.iter().enumerate() {
            let (scale, min) = scale_min(&block[4..16], j);
            let s: i32 =
                x.iter().enumerate().map(|(i, &x)| i32::from(code(block, j, i)) * i32::from(x)).sum();
            isum += scale * s;
            msum += min * (i32::from(sums[2 * j]) + i32::from(sums[2 * j + 1]));
        }
        acc += (f16_at(block, 0) * acts.d[at]) * isum as f32;
        accm += (f16_at(block, 2) * acts.d[at]) * msum as f32;
    }
    acc - accm
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::goldens;

    #[test]
    fn dequantizes_as_ggml() {
        goldens::check_dequantize("q4_K", dequantize);
    }
}
