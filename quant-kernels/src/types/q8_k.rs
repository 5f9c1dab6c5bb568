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

use super::blocks32;

/// Blocks to values.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    blocks32::dequantize(blocks, out, |b: &[u8; 292]| {
        (f32::from_le_bytes([b[0], b[1], b[2], b[3]]), std::array::from_fn::<_, 256, _>(|i| b[4 + i] as i8))
    });
}
