//! Q3_K: 256 values in 110 bytes (3.4375 bits per value): 3-bit codes, a 6-bit scale for each 16.
//!
//! ```text
//! bytes   0..32    third bits: bit i / 32 of byte i % 32 belongs to value i
//! bytes  32..96    low two bits: each 32 bytes hold 128 values, bit pair j of byte l being value 32 j + l
//! bytes  96..108   scales 0..=63: low four bits of scale k in nibble k / 8 of byte k % 8,
//!                  high two bits in bit pair k / 4 of byte 8 + k % 4
//! bytes 108..110   d, f16
//! value = d * (scale - 32) * (code - 4), code 0..=7
//! ```
//!
//! Source: ggml, `block_q3_K`.

use super::blocks32::inverse;
use super::blocks256::{Block256, pack_two_bit_codes, two_bit_codes};
use super::quantize::each_block;
use super::scale_search::{Integers, Levels, NEIGHBOURS, Plan, Steps, closer, fit_scales, two_sided};
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q3_K,
        acts: ActKind::Q256,
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

/// Values to blocks: the scale of each sub-block by search, rounded to 6 bits with what that does to its codes.
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let plan = Plan {
        steps: Steps { low: -32, high: 31, step: 1 },
        factor: 1.0,
        around: &NEIGHBOURS,
        closer: &closer(0.1),
    };
    let levels = Integers::<-4, 3>;
    each_block::<256, 110>(x, importance, out, |sample, block| {
        let fit = fit_scales::<16, 24>(sample, &levels, &plan, |x, _| two_sided(x, 2.0, 4.6));
        let codes: [u8; 256] = std::array::from_fn(|i| {
            let over = inverse(fit.d * fit.scales[i / 16] as f32);
            (levels.nearest(sample.x[i] * over) + 4.0) as u8
        });
        for (l, byte) in block[..32].iter_mut().enumerate() {
            *byte = (0..8).fold(0, |byte, j| byte | codes[32 * j + l] >> 2 << j);
        }
        pack_two_bit_codes(&codes, &mut block[32..96]);
        let packed = &mut block[96..108];
        packed.fill(0);
        for (k, scale) in fit.scales.iter().enumerate() {
            let scale = (scale + 32) as u8;
            packed[k % 8] |= (scale & 15) << (k / 8 * 4);
            packed[8 + k % 4] |= scale >> 4 << (k / 4 * 2);
        }
        block[108..].copy_from_slice(&fit.bytes);
    });
}

pub(crate) fn unpack(b: &[u8; 110]) -> Block256 {
    let low = two_bit_codes(&b[32..96]);
    let packed = &b[96..108];
    Block256 {
        d: f16_at(b, 108),
        scales: std::array::from_fn(|k| {
            let low = packed[k % 8] >> (k / 8 * 4) & 15;
            let high = packed[8 + k % 4] >> (k / 4 * 2) & 3;
            (low | high << 4) as i8 - 32
        }),
        q: std::array::from_fn(|i| (low[i] | (b[i % 32] >> (i / 32) & 1) << 2) as i8 - 4),
    }
}
