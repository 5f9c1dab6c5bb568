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
//! A byte is the fraction 0.digits (base 3) times 256, rounded up: multiplying by 3^n modulo 256 drops n digits, and the
//! next digit is what then carries over 256 when multiplied by 3.
//!
//! Source: ggml, `block_tq1_0`.

use super::blocks256::{Block256, f16_to_f32};
use super::{TypeKernels, blocks256, tile_by_dot};
use crate::activations::{ActKind, Acts};
use crate::{GgmlType, Isa};

/// The kernels of this type.
pub fn kernels(_isa: Isa) -> TypeKernels {
    TypeKernels {
        ty: GgmlType::TQ1_0,
        acts: ActKind::Q256,
        dequantize,
        dot,
        tile: |tile| tile_by_dot(dot, tile),
    }
}

/// Blocks to values.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    blocks256::dequantize(blocks, out, unpack);
}

/// One row with one token.
pub fn dot(row: &[u8], acts: &Acts, token: usize) -> f32 {
    blocks256::dot(row, acts, token, unpack)
}

/// Runs of bytes that store their digits together: first byte, number of bytes, first value, digits of each.
const RUNS: [(usize, usize, usize, usize); 3] = [(0, 32, 0, 5), (32, 16, 160, 5), (48, 4, 240, 4)];

fn unpack(b: &[u8; 54]) -> Block256 {
    let mut w = Block256 { d: f16_to_f32(b[52], b[53]), scales: [1; 16], q: [0; 256] };
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
