//! IQ3_XXS: 256 values in 98 bytes (3.0625 bits per value): 4 values at a time from a codebook of 256, with signs.
//!
//! ```text
//! bytes  0..2    d, f16
//! bytes  2..66   codebook index of values 4 k .. 4 k + 4
//! bytes 66..98   8 u32 of 32 values each: bits 0..28 four times 7 signs (the eighth makes them even),
//!                bits 28..32 scale
//! value = d * (0.5 + scale) / 2 * (+-magnitude) = d / 4 * (2 scale + 1) * (+-magnitude)
//! ```
//!
//! Source: ggml, `block_iq3_xxs`, `iq3xxs_grid`.

use super::blocks256::Block256;
use super::codebooks::{IQ3_XXS, even_signs, signed};
use super::grid_search::{Coded, Iq3, Octets};
use super::quantize::each_block;
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::IQ3_XXS,
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
    let coder = Coded(Iq3::xxs());
    each_block::<256, 98>(x, importance, out, |sample, block| {
        let fit = coder.fit(sample, 4.0);
        block[..2].copy_from_slice(&fit.bytes);
        let (indices, words) = block[2..].split_at_mut(64);
        let groups = indices.as_chunks_mut::<8>().0.iter_mut().zip(words.as_chunks_mut::<4>().0);
        for (j, (indices, word)) in groups.enumerate() {
            let (x, w) = sample.part(j, 32);
            let octets = coder.0.code(x, w, fit.d * fit.scales[j] as f32);
            let scale = (fit.scales[j] as u32 / 2) << 28;
            let signs = (octets.iter().enumerate())
                .fold(scale, |signs, (l, octet)| signs | u32::from(octet.signs & 127) << (7 * l));
            for (bytes, octet) in indices.as_chunks_mut::<2>().0.iter_mut().zip(&octets) {
                *bytes = octet.indices.map(|index| index as u8);
            }
            *word = signs.to_le_bytes();
        }
    });
}

pub(crate) fn unpack(b: &[u8; 98]) -> Block256 {
    let mut w = Block256 { d: f16_at(b, 0) * 0.25, scales: [0; 16], q: [0; 256] };
    let words = b[66..].as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
    for ((word, scales), (indices, q)) in words
        .zip(w.scales.as_chunks_mut::<2>().0)
        .zip(b[2..66].as_chunks::<8>().0.iter().zip(w.q.as_chunks_mut::<32>().0))
    {
        *scales = [2 * (word >> 28) as i8 + 1; 2];
        for (k, q) in q.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let signs = even_signs(word >> (k / 2 * 7)) >> (k % 2 * 4);
            signed(&IQ3_XXS[usize::from(indices[k])], signs, q);
        }
    }
    w
}
