//! TQ1_0: 256 ternary values in 54 bytes (1.6875 bits per value): five base-3 digits to a byte.
//!
//! ```text
//! bytes  0..32   digit n of byte m is value 32 n + m, n 0..5
//! bytes 32..48   digit n of byte 32 + m is value 160 + 16 n + m, n 0..5
//! bytes 48..52   digit n of byte 48 + m is value 240 + 4 n + m, n 0..4
//! bytes 52..54   d, f16
//! value = d * (digit - 1)
//! ```
//!
//! A byte is the fraction 0.digits (base 3) times 256, rounded up: multiplying by 3^n modulo 256 drops n digits,
//! and the next digit is what then carries over 256 when multiplied by 3.
//!
//! Source: ggml, `block_tq1_0`.

use super::blocks256::{Block256, fit_ternary, ternary_digits};
use super::quantize::each_block;
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};
use half::f16;

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::TQ1_0,
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

/// Values to blocks, as ggml's `quantize_row_tq1_0_ref`: d is the largest magnitude.
pub fn quantize(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<54>().0) {
        let (d, digits) = ternary_digits(x);
        pack(&digits, block);
        block[52..].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    }
}

/// Values to blocks: the scale by search.
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    each_block::<256, 54>(x, importance, out, |sample, block| {
        let (d, digits) = fit_ternary(sample);
        pack(&digits, block);
        block[52..].copy_from_slice(&d);
    });
}

/// Writes the digits of a block.
fn pack(values: &[u8; 256], block: &mut [u8; 54]) {
    for (first, bytes, value, digits) in RUNS {
        for (m, byte) in block[first..][..bytes].iter_mut().enumerate() {
            // The fifth digit of a byte with four is 0.
            let number = (0..5).fold(0, |n, digit| {
                n * 3 + if digit < digits { u32::from(values[value + digit * bytes + m]) } else { 0 }
            });
            *byte = (number * 256).div_ceil(243) as u8;
        }
    }
}

/// Runs of bytes that store their digits together: first byte, number of bytes, first value, digits of each.
const RUNS: [(usize, usize, usize, usize); 3] = [(0, 32, 0, 5), (32, 16, 160, 5), (48, 4, 240, 4)];

pub(crate) fn unpack(b: &[u8; 54]) -> Block256 {
    let mut w = Block256 { d: f16_at(b, 52), scales: [1; 16], q: [0; 256] };
    for (first, bytes, value, digits) in RUNS {
        let mut power = 1u8;
        for q in w.q[value..].chunks_exact_mut(bytes).take(digits) {
            for (q, byte) in q.iter_mut().zip(&b[first..]) {
                let fraction = byte.wrapping_mul(power);
                *q = ((u16::from(fraction) * 3) >> 8) as i8 - 1;
            }
            power = power.wrapping_mul(3);
        }
    }
    w
}
