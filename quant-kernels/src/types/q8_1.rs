//! Q8_1: 32 values in 36 bytes, ggml's activations for the types with an offset. No weight has this type, so it has
//! no matmul; it is decoded for tools that meet it in files.
//!
//! ```text
//! bytes 0..2    d, f16
//! bytes 2..4    s = d * sum of codes, f16: derived, not read here
//! bytes 4..36   codes, int8
//! value = d * code
//! ```
//!
//! Source: ggml, `block_q8_1`.

use super::blocks32::CodeBlock;
use super::{f16_at, unpacked};

/// Blocks to values.
pub fn dequantize(blocks: &[u8], out: &mut [f32]) {
    unpacked::dequantize(blocks, out, |b: &[u8; 36]| CodeBlock::<32> {
        d: f16_at(b, 0),
        q: std::array::from_fn(|i| b[4 + i] as i8),
    });
}
