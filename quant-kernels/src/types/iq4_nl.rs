//! IQ4_NL: 32 values in 18 bytes (4.5 bits per value): 4-bit indices into 16 unevenly spaced levels.
//!
//! ```text
//! bytes 0..2    d, f16
//! bytes 2..18   indices: byte j holds value j (low nibble) and value j + 16 (high nibble)
//! value = d * level[index]
//! ```
//!
//! Source: ggml, `block_iq4_nl`, `kvalues_iq4nl`.

use super::blocks32::{CodeBlock, extreme, inverse, nibbles, pack_nibbles};
use super::codebooks::IQ4_LEVELS;
use super::quantize::each_block;
use super::scale_search::{Uneven, closer, scale_search, two_sided};
use super::{TypeKernels, f16_at, unpacked};
use crate::GgmlType;
use crate::activations::{ActKind, Acts};
use half::f16;

/// The kernels of this type.
pub fn kernels() -> TypeKernels {
    TypeKernels {
        ty: GgmlType::IQ4_NL,
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

/// Values to blocks, as ggml's `quantize_iq4_nl` without an importance matrix: of 16 scales around that which maps
/// the value of largest magnitude to the lowest level, the one with the least error weighted by squared value.
pub fn quantize(x: &[f32], out: &mut [u8]) {
    for (x, block) in x.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<18>().0) {
        let d = best_scale(x);
        let inverse = inverse(d);
        block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        pack_nibbles(&x.map(|x| nearest_level(x * inverse)), &mut block[2..]);
    }
}

/// [`IQ4_LEVELS`] for the search.
pub(super) const SEARCH_LEVELS: Uneven<15> = Uneven::new(&IQ4_LEVELS);

/// Values to blocks: the scale by search, of either sign (the levels are not symmetric).
pub fn quantize_fitted(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    each_block::<32, 18>(x, importance, out, |sample, block| {
        let candidates = two_sided::<32>(&sample.x, 80.0, 132.0);
        let scale = scale_search(&SEARCH_LEVELS, &sample.x, &sample.w, &candidates, &closer(0.03)).scale;
        let (bytes, d) = sample.f16(scale, 1.0);
        let over = inverse(d);
        block[..2].copy_from_slice(&bytes);
        pack_nibbles(&sample.x.map(|x| SEARCH_LEVELS.index(x * over)), &mut block[2..]);
    });
}

/// Below this a block is stored as zero.
const TINY: f32 = 1e-15;

/// The scale that [`quantize`] chooses, before it is rounded to f16.
fn best_scale(x: &[f32; 32]) -> f32 {
    let extreme = extreme(x);
    if extreme.abs() < TINY {
        return 0.0;
    }
    // Weighted sums of level * x and level^2 if values are multiplied by `inverse`.
    let sums = |inverse: f32| {
        x.iter().fold((0.0, 0.0), |(qx, qq): (f32, f32), &x| {
            let level = f32::from(IQ4_LEVELS[usize::from(nearest_level(inverse * x))]);
            let weight = x * x;
            (qx + weight * level * x, qq + weight * level * level)
        })
    };
    let lowest = f32::from(IQ4_LEVELS[0]);
    let (qx, qq) = sums(1.0 / (-extreme / lowest));
    let mut d = if qq > 0.0 { qx / qq } else { 0.0 };
    let mut best = d * qx;
    for step in -7i8..=7 {
        let (qx, qq) = sums((f32::from(step) + lowest) / extreme);
        if qq > 0.0 && qx * qx > best * qq {
            d = qx / qq;
            best = d * qx;
        }
    }
    d
}

/// Index of the level nearest to `x`, the upper one on a tie.
fn nearest_level(x: f32) -> u8 {
    let above = IQ4_LEVELS.partition_point(|&level| f32::from(level) <= x);
    if above == 0 {
        return 0;
    }
    if above == 16 {
        return 15;
    }
    let (low, high) = (f32::from(IQ4_LEVELS[above - 1]), f32::from(IQ4_LEVELS[above]));
    if x - low < high - x { above as u8 - 1 } else { above as u8 }
}

pub(crate) fn unpack(b: &[u8; 18]) -> CodeBlock<32> {
    let q = nibbles(&b[2..]).map(|index| IQ4_LEVELS[usize::from(index)]);
    CodeBlock { d: f16_at(b, 0), q }
}
