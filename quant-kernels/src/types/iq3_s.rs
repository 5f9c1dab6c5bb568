//! IQ3_S: 256 values in 110 bytes (3.4375 bits per value): 4 values at a time from a codebook of 512, with signs.
//!
//! ```text
//! bytes   0..2     d, f16
//! bytes   2..66    low 8 bits of the codebook index of values 4 k .. 4 k + 4
//! bytes  66..74    ninth bit of the index: bit k % 8 of byte k / 8
//! bytes  74..106   signs: bit j of byte k belongs to value 8 k + j
//! bytes 106..110   nibble k: scale of values 32 k .. 32 k + 32, low nibble first
//! value = d * (2 scale + 1) * (+-magnitude)
//! ```
//!
//! Source: ggml, `block_iq3_s`, `iq3s_grid`.

use super::blocks256::Block256;
use super::codebooks::{IQ3_S, signed};
use super::grid_search::{Coded, Iq3, Octets};
use super::quantize::each_block;
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::IQ3_S,
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
    let coder = Coded(Iq3::s());
    each_block::<256, 110>(x, importance, out, |sample, block| {
        let fit = coder.fit(sample, 1.0);
        block.fill(0);
        block[..2].copy_from_slice(&fit.bytes);
        for j in 0..8 {
            let (x, w) = sample.part(j, 32);
            let octets = coder.0.code(x, w, fit.d * fit.scales[j] as f32);
            for (k, octet) in (4 * j..4 * j + 4).zip(&octets) {
                block[2 + 2 * k] = octet.indices[0] as u8;
                block[3 + 2 * k] = octet.indices[1] as u8;
                let high = octet.indices[0] >> 8 | octet.indices[1] >> 8 << 1;
                block[66 + k / 4] |= (high as u8) << (k % 4 * 2);
                block[74 + k] = octet.signs;
            }
            block[106 + j / 2] |= (fit.scales[j] as u8 / 2) << (j % 2 * 4);
        }
    });
}

pub(crate) fn unpack(b: &[u8; 110]) -> Block256 {
    let mut w = Block256 {
        d: f16_at(b, 0),
        scales: std::array::from_fn(|k| 2 * (b[106 + k / 4] >> (k / 2 % 2 * 4) & 15) as i8 + 1),
        q: [0; 256],
    };
    for (k, q) in w.q.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let high = usize::from(b[66 + k / 8] >> (k % 8) & 1);
        signed(&IQ3_S[usize::from(b[2 + k]) | high << 8], b[74 + k / 2] >> (k % 2 * 4), q);
    }
    w
}
