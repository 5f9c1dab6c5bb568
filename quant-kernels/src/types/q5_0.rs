//! Q5_0: 32 values in 22 bytes (5.5 bits per value): 5-bit codes with a scale.
//!
//! ```text
//! bytes 0..2    d, f16
//! bytes 2..6    fifth bits, little-endian u32: bit j belongs to value j
//! bytes 6..22   low four bits: byte j holds value j (low nibble) and value j + 16 (high nibble)
//! value = d * (code - 16), code 0..=31
//! ```
//!
//! Source: ggml, `block_q5_0`.

use super::blocks32::{CodeBlock, extreme, five_bit_codes, inverse, pack_five_bit_codes};
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};
use half::f16;

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::Q5_0,
        acts: ActKind::Q32,
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

/// Values to blocks, as ggml's `quantize_row_q5_0_ref`: the value of largest magnitude becomes code 0.
pub fn quantize(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<22>().0) {
        let d = extreme(x) / -16.0;
        let inverse = inverse(d);
        let codes = x.map(|x| ((x * inverse + 16.5) as u8).min(31));
        block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        pack_five_bit_codes(&codes, &mut block[2..]);
    }
}

pub(crate) fn unpack(b: &[u8; 22]) -> CodeBlock<32> {
    let [_, _, codes @ ..] = b;
    CodeBlock { d: f16_at(b, 0), q: five_bit_codes(codes).map(|q| q as i8 - 16) }
}
