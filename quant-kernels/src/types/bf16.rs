//! BF16 weights: the upper half of an f32. Dots are those of F32 on the widened values.

use super::{TypeKernels, tile_by_dot, two_bytes};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};
use half::bf16;

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::BF16,
        acts: ActKind::F32,
        dequantize,
        quantize: quantize_fitted,
        dot,
        tile: |tile| tile_by_dot(dot, tile),
    }
}

/// One little-endian bf16 as f32, exactly (subnormals too).
fn widen(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// Bytes to values.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    two_bytes::dequantize(blocks, out, widen);
}

/// Values to bytes, rounded to nearest even.
pub fn quantize(values: &[f32], blocks: &mut [u8]) {
    two_bytes::quantize(values, blocks, |value| bf16::from_f32(value).to_le_bytes());
}

/// Values to bytes; nothing to search, importances change nothing.
pub fn quantize_fitted(x: &[f32], _importance: Option<&[f32]>, out: &mut [u8]) {
    quantize(x, out);
}

/// One row with one token.
pub fn dot(row: &[u8], acts: &Acts, token: usize) -> f32 {
    two_bytes::dot(row, acts, token, widen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bf16_survives_a_round_trip() {
        for bits in 0..=u16::MAX {
            let bytes = bits.to_le_bytes();
            let mut value = [0f32];
            dequantize(&bytes, &mut value);
            let mut back = [0u8; 2];
            quantize(&value, &mut back);
            if value[0].is_nan() {
                assert!(bf16::from_le_bytes(back).is_nan());
            } else {
                assert_eq!(back, bytes);
            }
        }
    }

    #[test]
    fn ties_go_to_even() {
        // 1 + 2^-8 lies between 1 and 1 + 2^-7, 1 + 3 * 2^-8 between the next two.
        let step = f32::powi(2.0, -8);
        let mut bytes = [0u8; 4];
        quantize(&[1.0 + step, 1.0 + 3.0 * step], &mut bytes);
        let mut back = [0f32; 2];
        dequantize(&bytes, &mut back);
        assert_eq!(back, [1.0, 1.0 + 4.0 * step]);
    }
}
