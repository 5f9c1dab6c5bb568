//! MXFP4: 32 values in 17 bytes (4.25 bits per value): the OCP microscaling 4-bit float.
//!
//! ```text
//! byte  0       e, E8M0: the block's scale is 2^(e - 127)
//! bytes 1..17   E2M1 codes: byte j holds value j (low nibble) and value j + 16 (high nibble)
//! value = 2^(e - 128) * level[code], the levels being doubled to be integers: 0 1 2 3 4 6 8 12 and negatives
//! ```
//!
//! e = 0 and e = 1 give subnormal scales, 2^-128 and 2^-127; e = 255 is 2^127, not NaN, as in ggml.
//!
//! Source: OCP Microscaling Formats (MX) 1.0; ggml, `block_mxfp4`, `ggml_e8m0_to_fp32_half`.

use super::blocks32::{CodeBlock, amax, inverse, nibbles, pack_nibbles};
use super::codebooks::{FP4_LEVELS, FP4_SEARCH, fp4_code, nearest_fp4};
use super::quantize::each_block;
use super::scale_search::least_error;
use super::{TypeKernels, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::MXFP4,
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

/// Values to blocks, as ggml's `quantize_row_mxfp4_ref`: the exponent puts the largest magnitude between 4 and 8.
pub fn quantize(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<17>().0) {
        let amax = amax(x);
        // The logarithm is rounded to f32 before it is rounded down, as in ggml; the cast clamps to 0..=255.
        let log = libm::log2(f64::from(amax)) as f32;
        let e = if amax > 0.0 { (log.floor() - 2.0 + 127.0) as u8 } else { 0 };
        let d = half_scale(e);
        block[0] = e;
        pack_nibbles(&x.map(|x| nearest_fp4(x, d)), &mut block[1..]);
    }
}

/// Values to blocks: the exponent of least error among those that map the largest magnitude to less than 16.
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    each_block::<32, 17>(x, importance, out, |sample, block| {
        // The largest level, 12, between 3 and 3/8 of the power of two below the largest magnitude.
        let unit = power_of_two_exponent(sample.unit());
        let exponents: [u8; 4] = std::array::from_fn(|i| (unit + 126 - i as i32).clamp(0, 252) as u8);
        let scales = exponents.map(|e| half_scale(e) / sample.unit());
        let best = least_error(&FP4_SEARCH, &sample.x, &sample.w, &scales);
        let zero = sample.x.iter().all(|&x| x == 0.0);
        block[0] = if zero { 0 } else { exponents[best] };
        let over = inverse(scales[best]);
        pack_nibbles(&sample.x.map(|x| fp4_code(x, over)), &mut block[1..]);
    });
}

pub(crate) fn unpack(b: &[u8; 17]) -> CodeBlock<32> {
    CodeBlock { d: half_scale(b[0]), q: nibbles(&b[1..]).map(|code| FP4_LEVELS[usize::from(code)]) }
}

/// The exponent of a power of two.
fn power_of_two_exponent(power: f32) -> i32 {
    let bits = power.to_bits();
    if bits >> 23 == 0 { bits.ilog2() as i32 - 149 } else { (bits >> 23) as i32 - 127 }
}

/// 2^(e - 128), subnormal below e = 2.
pub(crate) fn half_scale(e: u8) -> f32 {
    let e = u32::from(e);
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 })
}
