//! F16 weights: IEEE half precision. Dots are those of F32 on the widened values.

use super::{TypeKernels, tile_by_dot, two_bytes};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};
use half::f16;

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::F16,
        acts: ActKind::F32,
        dequantize,
        quantize: quantize_fitted,
        dot,
        tile: |tile| tile_by_dot(dot, tile),
    }
}

/// One little-endian half as f32, exactly.
fn widen(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// Bytes to values.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    two_bytes::dequantize(blocks, out, widen);
}

/// Values to bytes, rounded to nearest even; magnitudes from 65520 become infinite.
pub fn quantize(values: &[f32], blocks: &mut [u8]) {
    two_bytes::quantize(values, blocks, |value| f16::from_f32(value).to_le_bytes());
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
    fn every_finite_half_survives_a_round_trip() {
        for bits in 0..=u16::MAX {
            let bytes = bits.to_le_bytes();
            let mut value = [0f32];
            dequantize(&bytes, &mut value);
            let mut back = [0u8; 2];
            quantize(&value, &mut back);
            if value[0].is_nan() {
                assert!(f16::from_le_bytes(back).is_nan());
            } else {
                assert_eq!(back, bytes);
            }
        }
    }

    #[test]
    fn ties_go_to_even_and_large_values_to_infinity() {
        // Between 2048 and 4096 halves are 2 apart.
        let values = [2049.0f32, 2051.0, -2049.0, 65519.0, 65520.0, -1e30];
        let mut bytes = [0u8; 12];
        quantize(&values, &mut bytes);
        let mut back = [0f32; 6];
        dequantize(&bytes, &mut back);
        assert_eq!(back, [2048.0, 2052.0, -2048.0, 65504.0, f32::INFINITY, f32::NEG_INFINITY]);
    }
}
