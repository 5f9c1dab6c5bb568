//! IQ1_M: 256 values in 56 bytes (1.75 bits per value): IQ1_S with a scale for each 16 and a shift for each 8.
//!
//! ```text
//! bytes  0..32   low 8 bits of the codebook index of values 8 k .. 8 k + 8
//! bytes 32..48   nibble k, low nibble first: bits 0..3 the high bits of that index, bit 3 the sign of the shift
//!                (set: -1/8, clear: +1/8)
//! bytes 48..56   4 u16 of 64 values each: bits 0..12 four 3-bit scales of 16 values each; the top nibbles of the
//!                four, lowest first, are d, f16
//! value = d * (2 scale + 1) * (ternary +- 1/8) = d / 8 * (2 scale + 1) * (8 ternary +- 1)
//! ```
//!
//! Source: ggml, `block_iq1_m`, `iq1s_grid`, `IQ1M_DELTA`.

use super::blocks256::Block256;
use super::codebooks::{IQ1, shifted_ternary};
use super::grid_search::{Coded, Iq1, Octets};
use super::quantize::each_block;
use super::{TypeKernels, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};
use half::f16;

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::IQ1_M,
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
    let coder = Coded(Iq1::OwnShift);
    each_block::<256, 56>(x, importance, out, |sample, block| {
        let fit = coder.fit::<16>(sample);
        let d = u16::from_le_bytes(fit.bytes);
        let mut words: [u16; 4] = std::array::from_fn(|i| (d >> (4 * i) & 15) << 12);
        block.fill(0);
        for j in 0..16 {
            words[j / 4] |= (fit.scales[j] as u16 / 2) << (j % 4 * 3);
            let (x, w) = sample.part(j, 16);
            let octets = coder.0.code(x, w, fit.d * fit.scales[j] as f32);
            for (k, octet) in (2 * j..2 * j + 2).zip(&octets) {
                block[k] = octet.indices[0] as u8;
                block[32 + k / 2] |= ((octet.indices[0] >> 8) as u8 | octet.signs << 3) << (k % 2 * 4);
            }
        }
        for (bytes, word) in block[48..].as_chunks_mut::<2>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
    });
}

pub(crate) fn unpack(b: &[u8; 56]) -> Block256 {
    let words: [u16; 4] = std::array::from_fn(|i| u16::from_le_bytes([b[48 + 2 * i], b[49 + 2 * i]]));
    let d = words.iter().enumerate().fold(0, |d, (i, word)| d | word >> 12 << (4 * i));
    let mut w = Block256 {
        d: f16::from_bits(d).to_f32() * 0.125,
        scales: std::array::from_fn(|k| 2 * (words[k / 4] >> (k % 4 * 3) & 7) as i8 + 1),
        q: [0; 256],
    };
    for (k, q) in w.q.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let high = b[32 + k / 2] >> (k % 2 * 4);
        let index = usize::from(b[k]) | usize::from(high & 7) << 8;
        *q = shifted_ternary(&IQ1[index], high & 8 != 0);
    }
    w
}
