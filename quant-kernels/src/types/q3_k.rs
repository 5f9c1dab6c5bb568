//! Q3_K: 256 values in 110 bytes (3.4375 bits per value): 3-bit codes, a 6-bit scale for each 16.
//!
//! ```text
//! bytes   0..32    third bits: bit i / 32 of byte i % 32 belongs to value i
//! bytes  32..96    low two bits: each 32 bytes hold 128 values, bit pair j of byte l being value 32 j + l
//! bytes  96..108   scales 0..=63: low four bits of scale k in nibble k / 8 of byte k % 8,
//!                  high two bits in bit pair k / 4 of byte 8 + k % 4
//! bytes 108..110   d, f16
//! value = d * (scale - 32) * (code - 4), code 0..=7
//! ```
//!
//! Source: ggml, `block_q3_K`.

use super::blocks256::{Block256, two_bit_codes};
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q3_K,
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

pub(crate) fn unpack(b: &[u8; 110]) -> Block256 {
    let low = two_bit_codes(&b[32..96]);
    let packed = &b[96..108];
    Block256 {
        d: f16_at(b, 108),
        scales: std::array::from_fn(|k| {
            let low = packed[k % 8] >> (k / 8 * 4) & 15;
            let high = packed[8 + k % 4] >> (k / 4 * 2) & 3;
            (low | high << 4) as i8 - 32
        }),
        q: std::array::from_fn(|i| (low[i] | (b[i % 32] >> (i / 32) & 1) << 2) as i8 - 4),
    }
}
