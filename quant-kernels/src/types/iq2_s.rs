//! IQ2_S: 256 values in 82 bytes (2.5625 bits per value): 8 values at a time from a codebook of 1024, with signs.
//!
//! ```text
//! bytes  0..2    d, f16
//! bytes  2..34   low 8 bits of the codebook index of values 8 k .. 8 k + 8
//! bytes 34..66   their signs: bit j of byte k belongs to value 8 k + j
//! bytes 66..74   high bits of the index: bit pair k % 4 of byte k / 4
//! bytes 74..82   nibble k: scale of values 16 k .. 16 k + 16, low nibble first
//! value = d * (0.5 + scale) / 4 * (+-magnitude) = d / 8 * (2 scale + 1) * (+-magnitude)
//! ```
//!
//! Source: ggml, `block_iq2_s`, `iq2s_grid`.

use super::blocks256::Block256;
use super::codebooks::{IQ2_S, signed};
use super::grid_search::{Coded, Iq2, Octets};
use super::quantize::each_block;
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::IQ2_S,
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

/// Values to blocks: scales and codebook entries by the grid search.
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let coder = Coded(Iq2::s());
    each_block::<256, 82>(x, importance, out, |sample, block| {
        let fit = coder.fit::<16>(sample);
        block.fill(0);
        block[..2].copy_from_slice(&fit.bytes);
        for j in 0..16 {
            let (x, w) = sample.part(j, 16);
            let octets = coder.0.code(x, w, fit.d * fit.scales[j] as f32);
            for (k, octet) in (2 * j..2 * j + 2).zip(&octets) {
                block[2 + k] = octet.indices[0] as u8;
                block[34 + k] = octet.signs;
                block[66 + k / 4] |= ((octet.indices[0] >> 8) as u8) << (k % 4 * 2);
            }
        }
        for (byte, scales) in block[74..].iter_mut().zip(fit.scales.as_chunks::<2>().0) {
            *byte = ((scales[0] / 2) | ((scales[1] / 2) << 4)) as u8;
        }
    });
}

pub(crate) fn unpack(b: &[u8; 82]) -> Block256 {
    let mut w = Block256 {
        d: f16_at(b, 0) * 0.125,
        scales: std::array::from_fn(|k| 2 * (b[74 + k / 2] >> (k % 2 * 4) & 15) as i8 + 1),
        q: [0; 256],
    };
    for (k, q) in w.q.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let high = usize::from(b[66 + k / 4] >> (k % 4 * 2) & 3);
        signed(&IQ2_S[usize::from(b[2 + k]) | high << 8], b[34 + k], q);
    }
    w
}
