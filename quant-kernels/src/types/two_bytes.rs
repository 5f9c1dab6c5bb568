//! What F16 and BF16 weights share: values of two little-endian bytes, widened to f32 exactly.

use super::f32::dot_lanes;
use crate::activations::Acts;

/// Bytes to values.
pub(super) fn dequantize(blocks: &[u8], out: &mut [f32], widen: impl Fn([u8; 2]) -> f32) {
    for (out, bytes) in out.iter_mut().zip(blocks.as_chunks::<2>().0) {
        *out = widen(*bytes);
    }
}

/// Values to bytes.
pub(super) fn quantize(values: &[f32], blocks: &mut [u8], narrow: impl Fn(f32) -> [u8; 2]) {
    for (bytes, value) in blocks.as_chunks_mut::<2>().0.iter_mut().zip(values) {
        *bytes = narrow(*value);
    }
}

/// One row with one token: the dot of F32 on the widened values.
pub(super) fn dot(row: &[u8], acts: &Acts, token: usize, widen: impl Fn([u8; 2]) -> f32) -> f32 {
    let x = &acts.x[token * acts.cols..][..acts.cols];
    let row = row.as_chunks::<2>().0;
    dot_lanes(acts.cols, |i| widen(row[i]), x)
}
