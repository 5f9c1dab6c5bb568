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
use super::quantize::each_block;
use super::scale_search::{Integers, Levels, closer, scale_search, two_sided};
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

/// Values to blocks: the scale by search.
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let levels = Integers::<-16, 15>;
    each_block::<32, 22>(x, importance, out, |sample, block| {
        let candidates = two_sided::<32>(&sample.x, 12.5, 16.8);
        let scale = scale_search(&levels, &sample.x, &sample.w, &candidates, &closer(0.02)).scale;
        let (bytes, d) = sample.f16(scale, 1.0);
        let over = inverse(d);
        block[..2].copy_from_slice(&bytes);
        pack_five_bit_codes(&sample.x.map(|x| (levels.nearest(x * over) + 16.0) as u8), &mut block[2..]);
    });
}

pub(crate) fn unpack(b: &[u8; 22]) -> CodeBlock<32> {
    let [_, _, codes @ ..] = b;
    CodeBlock { d: f16_at(b, 0), q: five_bit_codes(codes).map(|q| q as i8 - 16) }
}
