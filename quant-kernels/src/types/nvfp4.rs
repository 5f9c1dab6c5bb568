//! NVFP4: 64 values in 36 bytes (4.5 bits per value): E2M1 floats with an E4M3 scale for each 16.
//!
//! ```text
//! bytes 0..4    scale of values 16 s .. 16 s + 16: unsigned E4M3 (bias 7); 0x7F means 0; bit 7 is ignored
//! bytes 4..36   codes, 8 bytes for 16 values: byte j holds value j (low nibble) and value j + 8 (high nibble)
//! value = scale / 2 * level[code], the levels being doubled to be integers: 0 1 2 3 4 6 8 12 and negatives
//! ```
//!
//! The contract's block is the weight's 16 values; two of them share an activation block of 32:
//! `acc = acc + (scale / 2 * dx) * f32(isum)` for each 16. |isum| <= 12 * 127 * 16 < 2^15.
//!
//! Source: ggml, `block_nvfp4`, `ggml_ue4m3_to_fp32`.

use super::blocks32::{amax, inverse, nibbles, pack_nibbles};
use super::blocks256::dot_i8;
use super::codebooks::{FP4_LEVELS, FP4_SEARCH, fp4_code, nearest_fp4};
use super::quantize::each_block;
use super::scale_search::least_error;
use super::unpacked::{Block, Sums};
use super::{TypeKernels, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::NVFP4,
        acts: ActKind::Q32,
        dequantize,
        quantize: quantize_fitted,
        dot,
        tile: |tile| unpacked::tile(tile, unpack),
    }
}

/// Blocks to values.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    unpacked::dequantize(blocks, out, unpack);
}

/// One row with one token.
pub fn dot(row: &[u8], acts: &Acts, token: usize) -> f32 {
    unpacked::dot(row, acts, token, unpack)
}

/// Values to blocks, as ggml's `quantize_row_nvfp4_ref`: the scale maps the largest magnitude of 16 to 6.
pub fn quantize(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<64>().0.iter().zip(out.as_chunks_mut::<36>().0) {
        let (scales, codes) = block.split_at_mut(4);
        let codes = codes.as_chunks_mut::<8>().0;
        for ((x, scale), codes) in x.as_chunks::<16>().0.iter().zip(scales).zip(codes) {
            *scale = nearest_scale(amax(x) / 6.0);
            let d = half_scale(*scale);
            pack_nibbles(&x.map(|x| nearest_fp4(x, d)), codes);
        }
    }
}

/// Values to blocks: of the scales around the one that maps the largest magnitude of 16 to 6 and down to the one that
/// maps it to about 2, that of least error.
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    each_block::<64, 36>(x, importance, out, |sample, block| {
        let (scales, codes) = block.split_at_mut(4);
        let codes = codes.as_chunks_mut::<8>().0;
        for (s, (scale, codes)) in scales.iter_mut().zip(codes).enumerate() {
            let (x, w) = sample.part(s, 16);
            let middle = nearest_scale(amax(x) * sample.unit() / 6.0);
            let tried: [u8; 16] = std::array::from_fn(|i| (middle + i as u8).saturating_sub(4).min(0x7E));
            let values = tried.map(|scale| half_scale(scale) / sample.unit());
            let best = least_error(&FP4_SEARCH, x, w, &values);
            *scale = tried[best];
            let (over, mut nearest) = (inverse(values[best]), [0; 16]);
            for (code, x) in nearest.iter_mut().zip(x) {
                *code = fp4_code(*x, over);
            }
            pack_nibbles(&nearest, codes);
        }
    });
}

/// A block unpacked.
pub(crate) struct Nvfp4Block {
    /// Half the scale of each 16 codes.
    pub d: [f32; 4],
    /// Codes.
    pub q: [[i8; 16]; 4],
}

pub(crate) fn unpack(b: &[u8; 36]) -> Nvfp4Block {
    let code = |code| FP4_LEVELS[usize::from(code)];
    Nvfp4Block { d: half_scales(b), q: std::array::from_fn(|s| nibbles(&b[4 + 8 * s..][..8]).map(code)) }
}

impl Block for Nvfp4Block {
    const LEN: usize = 64;

    fn values(&self, out: &mut [f32]) {
        for ((out, q), d) in out.as_chunks_mut::<16>().0.iter_mut().zip(&self.q).zip(self.d) {
            *out = q.map(|q| f32::from(q) * d);
        }
    }

    fn add_products(&self, b: usize, acts: &Acts, token: usize, sums: &mut Sums) {
        for (s, (q, d)) in self.q.iter().zip(self.d).enumerate() {
            let block = 2 * b + s / 2;
            let x = &acts.block(block, token, 32)[s % 2 * 16..][..16];
            sums.acc += (d * acts.d[acts.place(block, token, 32)]) * dot_i8(q, x) as f32;
        }
    }
}

/// Half the scales of a block.
pub(crate) fn half_scales(b: &[u8; 36]) -> [f32; 4] {
    std::array::from_fn(|s| half_scale(b[s]))
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

/// The unsigned E4M3 code of `x`, ties rounded up, as ggml's `ggml_fp32_to_ue4m3`: whatever would have the highest
/// exponent (248 and more) becomes 448.
fn nearest_scale(x: f32) -> u8 {
    if x.is_nan() || x <= 0.0 {
        return 0;
    }
    if x < 1.0 / 64.0 {
        // Subnormal: multiples of 2^-9.
        return ((x * 512.0 + 0.5) as u8).min(7);
    }
    // Exponent and three mantissa bits; the fourth rounds, and a carry moves on into the exponent.
    let code = (x.to_bits() >> 19).div_ceil(2) - ((127 - 7) << 3);
    if code >= 15 << 3 { 0x7E } else { code as u8 }
}
