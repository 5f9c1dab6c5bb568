//! Q6_K: super-blocks of 256 values, 210 bytes: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed
//! sub-scales (one per 16 values), f16 scale. In each half of 128 values, value `32r + l` has its nibble in byte
//! `32(r % 2) + l` (low for r < 2, high above) and its upper bits in byte `l`, bits `2r..2r + 2`; the offset is 32.

use super::blocks32::inverse;
use super::quantize::each_block;
use super::scale_search::{Integers, Levels, NEIGHBOURS, Plan, Steps, closer, fit_scales, two_sided};
use super::{TypeKernels, f16_at, tile_by_dot};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

const LEN: usize = GgmlType::Q6_K.block_len();
const BYTES: usize = GgmlType::Q6_K.block_bytes();

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q6_K,
        acts: ActKind::Q256,
        dequantize,
        quantize: quantize_fitted,
        dot,
        tile: |tile| tile_by_dot(dot, tile),
    }
}

/// Code of value `i` of a block, -32..=31.
fn code(block: &[u8; BYTES], i: usize) -> i32 {
    let (half, r, l) = (i / 128, i % 128 / 32, i % 32);
    let low = block[64 * half + 32 * (r % 2) + l] >> (4 * (r / 2)) & 15;
    let high = block[128 + 32 * half + l] >> (2 * r) & 3;
    i32::from(low | high << 4) - 32
}

/// Sub-scale of values `16j..16j + 16`.
fn scale(block: &[u8; BYTES], j: usize) -> i32 {
    i32::from(block[192 + j] as i8)
}

/// Blocks to values: `d * scale * code`.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<LEN>().0) {
        let d = f16_at(block, 208);
        for (i, out) in out.iter_mut().enumerate() {
            *out = d * scale(block, i / 16) as f32 * code(block, i) as f32;
        }
    }
}

/// Values to blocks: the scale of each sub-block by search, rounded to 8 bits with what that does to its codes.
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let plan = Plan {
        steps: Steps { low: -128, high: 127, step: 1 },
        factor: 1.0,
        around: &NEIGHBOURS,
        closer: &closer(0.01),
    };
    let levels = Integers::<-32, 31>;
    each_block::<LEN, BYTES>(x, importance, out, |sample, block| {
        let fit = fit_scales::<16, 32>(sample, &levels, &plan, |x, _| two_sided(x, 28.0, 33.0));
        let codes: [u8; LEN] = std::array::from_fn(|i| {
            let over = inverse(fit.d * fit.scales[i / 16] as f32);
            (levels.nearest(sample.x[i] * over) + 32.0) as u8
        });
        for (half, codes) in codes.as_chunks::<128>().0.iter().enumerate() {
            for (i, byte) in block[64 * half..][..64].iter_mut().enumerate() {
                *byte = codes[i] & 15 | codes[64 + i] << 4;
            }
            for (l, byte) in block[128 + 32 * half..][..32].iter_mut().enumerate() {
                *byte = (0..4).fold(0, |byte, r| byte | codes[32 * r + l] >> 4 << (2 * r));
            }
        }
        for (byte, &scale) in block[192..208].iter_mut().zip(&fit.scales) {
            *byte = scale as i8 as u8;
        }
        block[208..].copy_from_slice(&fit.bytes);
    });
}

/// One row with one token: sub-block sums scaled in i32, one f32 step per super-block.
pub fn dot(row: &[u8], acts: &Acts, token: usize) -> f32 {
    let mut acc = 0f32;
    for (b, block) in row.as_chunks::<BYTES>().0.iter().enumerate() {
        let mut isum = 0i32;
        for (j, x) in acts.block(b, token, LEN).as_chunks::<16>().0.iter().enumerate() {
            let s: i32 = x.iter().enumerate().map(|(i, &x)| code(block, 16 * j + i) * i32::from(x)).sum();
            isum += scale(block, j) * s;
        }
        acc += (f16_at(block, 208) * acts.d[b * acts.tokens + token]) * isum as f32;
    }
    acc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::goldens;

    #[test]
    fn dequantizes_as_ggml() {
        goldens::check_dequantize("q6_K", dequantize);
    }
}
