//! IQ1_S: 256 values in 50 bytes (1.5625 bits per value): 8 ternary values at a time from a codebook of 2048,
//! shifted.
//!
//! ```text
//! bytes  0..2    d, f16
//! bytes  2..34   low 8 bits of the codebook index of values 8 k .. 8 k + 8
//! bytes 34..50   8 u16 of 32 values each: bits 0..12 four times the high 3 bits of the index, bits 12..15 scale,
//!                bit 15 the sign of the shift (set: -1/8, clear: +1/8)
//! value = d * (2 scale + 1) * (ternary +- 1/8) = d / 8 * (2 scale + 1) * (8 ternary +- 1)
//! ```
//!
//! The second form keeps the shift in the integer codes: one exact sum, no second accumulator.
//!
//! Source: ggml, `block_iq1_s`, `iq1s_grid`, `IQ1S_DELTA`.

use super::blocks256::Block256;
use super::codebooks::{IQ1, shifted_ternary};
use super::grid_search::{Coded, Iq1, Octets};
use super::quantize::each_block;
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::IQ1_S,
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
    let coder = Coded(Iq1::SharedShift);
    each_block::<256, 50>(x, importance, out, |sample, block| {
        let fit = coder.fit::<8>(sample);
        block[..2].copy_from_slice(&fit.bytes);
        let (indices, words) = block[2..].split_at_mut(32);
        let groups = indices.as_chunks_mut::<4>().0.iter_mut().zip(words.as_chunks_mut::<2>().0);
        for (j, (indices, word)) in groups.enumerate() {
            let (x, w) = sample.part(j, 32);
            let octets = coder.0.code(x, w, fit.d * fit.scales[j] as f32);
            let scale_and_shift = (fit.scales[j] as u16 / 2) << 12 | u16::from(octets[0].signs) << 15;
            let high = (octets.iter().enumerate())
                .fold(scale_and_shift, |word, (l, octet)| word | octet.indices[0] >> 8 << (3 * l));
            for (byte, octet) in indices.iter_mut().zip(&octets) {
                *byte = octet.indices[0] as u8;
            }
            *word = high.to_le_bytes();
        }
    });
}

pub(crate) fn unpack(b: &[u8; 50]) -> Block256 {
    let mut w = Block256 { d: f16_at(b, 0) * 0.125, scales: [0; 16], q: [0; 256] };
    let words = b[34..].as_chunks::<2>().0.iter().map(|word| u16::from_le_bytes(*word));
    for ((word, scales), (indices, q)) in words
        .zip(w.scales.as_chunks_mut::<2>().0)
        .zip(b[2..34].as_chunks::<4>().0.iter().zip(w.q.as_chunks_mut::<32>().0))
    {
        *scales = [2 * (word >> 12 & 7) as i8 + 1; 2];
        for (l, q) in q.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let index = usize::from(indices[l]) | usize::from(word >> (3 * l) & 7) << 8;
            *q = shifted_ternary(&IQ1[index], word >> 15 != 0);
        }
    }
    w
}
