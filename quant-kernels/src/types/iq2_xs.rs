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
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::IQ2_XS,
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
