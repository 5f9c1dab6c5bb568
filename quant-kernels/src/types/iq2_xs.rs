//! IQ2_XS: 256 values in 74 bytes (2.3125 bits per value): 8 values at a time from a codebook of 512, with signs.
//!
//! ```text
//! bytes  0..2    d, f16
//! bytes  2..66   32 u16 of 8 values each: bits 0..9 codebook index, bits 9..16 seven signs (the eighth makes
//!                them even)
//! bytes 66..74   nibble k: scale of values 16 k .. 16 k + 16, low nibble first
//! value = d * (0.5 + scale) / 4 * (+-magnitude) = d / 8 * (2 scale + 1) * (+-magnitude)
//! ```
//!
//! Source: ggml, `block_iq2_xs`, `iq2xs_grid`.

use super::blocks256::Block256;
use super::codebooks::{IQ2_XS, even_signs, signed};
use super::grid_search::{Coded, Iq2, Octets};
use super::quantize::each_block;
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::IQ2_XS,
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
    let coder = Coded(Iq2::xs());
    each_block::<256, 74>(x, importance, out, |sample, block| {
        let fit = coder.fit::<16>(sample);
        block[..2].copy_from_slice(&fit.bytes);
        for (j, entries) in block[2..66].as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let (x, w) = sample.part(j, 16);
            let octets = coder.0.code(x, w, fit.d * fit.scales[j] as f32);
            for (entry, octet) in entries.as_chunks_mut::<2>().0.iter_mut().zip(&octets) {
                *entry = (octet.indices[0] | u16::from(octet.signs & 127) << 9).to_le_bytes();
            }
        }
        for (byte, scales) in block[66..].iter_mut().zip(fit.scales.as_chunks::<2>().0) {
            *byte = ((scales[0] / 2) | ((scales[1] / 2) << 4)) as u8;
        }
    });
}

pub(crate) fn unpack(b: &[u8; 74]) -> Block256 {
    let mut w = Block256 {
        d: f16_at(b, 0) * 0.125,
        scales: std::array::from_fn(|k| 2 * (b[66 + k / 2] >> (k % 2 * 4) & 15) as i8 + 1),
        q: [0; 256],
    };
    for (entry, q) in b[2..66].as_chunks::<2>().0.iter().zip(w.q.as_chunks_mut::<8>().0) {
        let entry = u16::from_le_bytes(*entry);
        signed(&IQ2_XS[usize::from(entry & 511)], even_signs(u32::from(entry >> 9)), q);
    }
    w
}
