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
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::IQ3_XXS,
        acts: ActKind::Q256,
        dequantize,
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
