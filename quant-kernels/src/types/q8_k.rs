//! Q8_K: 256 values in 292 bytes, ggml's activations for K- and i-quants. No weight has this type, so it has no
//! matmul; it is decoded for tools that meet it in files.
//!
//! ```text
//! bytes   0..4     d, f32
//! bytes   4..260   codes, int8
//! bytes 260..292   sums of 16 consecutive codes, i16: derived, not read here
//! value = d * code
//! ```
//!
//! Source: ggml, `block_q8_K`.

use super::blocks32::CodeBlock;
use super::unpacked;

/// Blocks to values.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    unpacked::dequantize(blocks, out, |b: &[u8; 292]| {
        let d = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        CodeBlock::<256> { d, q: std::array::from_fn(|i| b[4 + i] as i8) }
    });
}
