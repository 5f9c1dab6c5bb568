//! IQ2_XXS: 256 values in 66 bytes (2.0625 bits per value): 8 values at a time from a codebook of 256, with signs.
//!
//! ```text
//! bytes 0..2     d, f16
//! bytes 2..66    8 groups of 32 values, 8 bytes each:
//!                4 bytes   codebook indices, 8 values each
//!                u32       bits 0..28: four times 7 signs (the eighth makes them even), bits 28..32: scale
//! value = d * (0.5 + scale) / 4 * (+-magnitude) = d / 8 * (2 scale + 1) * (+-magnitude)
//! ```
//!
//! Source: ggml, `block_iq2_xxs`, `iq2xxs_grid`.

use super::blocks256::Block256;
use super::codebooks::{IQ2_XXS, even_signs, signed};
use super::grid_search::{Coded, Iq2, Octets};
use super::quantize::each_block;
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::IQ2_XXS,
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
    let coder = Coded(Iq2::xxs());
    each_block::<256, 66>(x, importance, out, |sample, block| {
        let fit = coder.fit::<8>(sample);
        block[..2].copy_from_slice(&fit.bytes);
        for (j, group) in block[2..].as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let (x, w) = sample.part(j, 32);
            let octets = coder.0.code(x, w, fit.d * fit.scales[j] as f32);
            let scale = (fit.scales[j] as u32 / 2) << 28;
            let signs = (octets.iter().enumerate())
                .fold(scale, |signs, (l, octet)| signs | u32::from(octet.signs & 127) << (7 * l));
            for (byte, octet) in group.iter_mut().zip(&octets) {
                *byte = octet.indices[0] as u8;
            }
            group[4..].copy_from_slice(&signs.to_le_bytes());
        }
    });
}

pub(crate) fn unpack(b: &[u8; 66]) -> Block256 {
    let mut w = Block256 { d: f16_at(b, 0) * 0.125, scales: [0; 16], q: [0; 256] };
    let groups = b[2..].as_chunks::<8>().0.iter().zip(w.q.as_chunks_mut::<32>().0);
    for ((group, q), scales) in groups.zip(w.scales.as_chunks_mut::<2>().0) {
        let [indices @ .., s0, s1, s2, s3] = *group;
        let signs = u32::from_le_bytes([s0, s1, s2, s3]);
        *scales = [2 * (signs >> 28) as i8 + 1; 2];
        for (l, q) in q.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let index: u8 = indices[l];
            signed(&IQ2_XXS[usize::from(index)], even_signs(signs >> (7 * l)), q);
        }
    }
    w
}
