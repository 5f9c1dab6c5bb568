//! F32 weights: plain little-endian floats. Dots are fused multiply-adds in 16 lanes, then one tree.

use super::{TypeKernels, tile_by_dot};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::F32,
        acts: ActKind::F32,
        dequantize,
        quantize: quantize_fitted,
        dot,
        tile: |tile| tile_by_dot(dot, tile),
    }
}

/// Bytes to values.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    for (out, bytes) in out.iter_mut().zip(blocks.as_chunks::<4>().0) {
        *out = f32::from_le_bytes(*bytes);
    }
}

/// Values to bytes.
pub fn quantize_fitted(x: &[f32], _importance: Option<&[f32]>, out: &mut [u8]) {
    for (bytes, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(x) {
        *bytes = value.to_le_bytes();
    }
}

/// One row with one token.
pub fn dot(row: &[u8], acts: &Acts, token: usize) -> f32 {
    let x = &acts.x[token * acts.cols..][..acts.cols];
    let row = row.as_chunks::<4>().0;
    dot_lanes(acts.cols, |i| f32::from_le_bytes(row[i]), x)
}

/// The contract's float dot: lane = index mod 16, fused multiply-add, tails padded with +0.0, tree +8 +4 +2 +1.
pub fn dot_lanes(len: usize, weight: impl Fn(usize) -> f32, x: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    for i in 0..len {
        lanes[i % 16] = weight(i).mul_add(x[i], lanes[i % 16]);
    }
    if !len.is_multiple_of(16) {
        for lane in &mut lanes[len % 16..] {
            // Not idle: it turns the -0.0 of an underflown product into +0.0, as the padded SIMD step does.
            *lane = 0f32.mul_add(0.0, *lane);
        }
    }
    tree(lanes)
}

/// Sums 16 lanes: +8, +4, +2, +1.
#[inline(always)]
pub fn tree(mut lanes: [f32; 16]) -> f32 {
    for step in [8, 4, 2, 1] {
        for i in 0..step {
            lanes[i] += lanes[i + step];
        }
    }
    lanes[0]
}
