//! IQ4_XS: 256 values in 136 bytes (4.25 bits per value): the levels of IQ4_NL with a 6-bit scale for each 32.
//!
//! ```text
//! bytes 0..2     d, f16
//! bytes 2..4     u16: bit pair k is the high two bits of scale k
//! bytes 4..8     nibble k, low nibble first: the low four bits of scale k
//! bytes 8..136   indices, 16 bytes for 32 values: byte j holds value j (low nibble) and value j + 16 (high nibble)
//! value = d * (scale - 32) * level[index], scale 0..=63
//! ```
//!
//! Source: ggml, `block_iq4_xs`, `kvalues_iq4nl`.

use super::blocks32::{inverse, nibbles, pack_nibbles};
use super::blocks256::Block256;
use super::codebooks::IQ4_LEVELS;
use super::iq4_nl::SEARCH_LEVELS;
use super::quantize::each_block;
use super::scale_search::{NEIGHBOURS, Plan, Steps, closer, fit_scales, two_sided};
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::IQ4_XS,
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
        closer: &closer(0.03),
    };
    each_block::<256, 136>(x, importance, out, |sample, block| {
        let fit = fit_scales::<8, 24>(sample, &SEARCH_LEVELS, &plan, |x, _| two_sided(x, 80.0, 132.0));
        block[..2].copy_from_slice(&fit.bytes);
        let scales = fit.scales.map(|scale| (scale + 32) as u16);
        let high = scales.iter().enumerate().fold(0, |high, (k, scale)| high | scale >> 4 << (2 * k));
        block[2..4].copy_from_slice(&high.to_le_bytes());
        for (k, byte) in block[4..8].iter_mut().enumerate() {
            *byte = (scales[2 * k] & 15 | (scales[2 * k + 1] & 15) << 4) as u8;
        }
        let groups = sample.x.as_chunks::<32>().0.iter().zip(block[8..].as_chunks_mut::<16>().0);
        for ((x, bytes), &scale) in groups.zip(&fit.scales) {
            let over = inverse(fit.d * scale as f32);
            pack_nibbles(&x.map(|x| SEARCH_LEVELS.index(x * over)), bytes);
        }
    });
}

pub(crate) fn unpack(b: &[u8; 136]) -> Block256 {
    let high = u16::from_le_bytes([b[2], b[3]]);
    let mut w = Block256 {
        d: f16_at(b, 0),
        scales: std::array::from_fn(|i| {
            let k = i / 2;
            let low = b[4 + k / 2] >> (k % 2 * 4) & 15;
            let high = (high >> (2 * k) & 3) as u8;
            (low | high << 4) as i8 - 32
        }),
        q: [0; 256],
    };
    for (bytes, q) in b[8..].as_chunks::<16>().0.iter().zip(w.q.as_chunks_mut::<32>().0) {
        *q = nibbles(bytes).map(|index| IQ4_LEVELS[usize::from(index)]);
    }
    w
}
