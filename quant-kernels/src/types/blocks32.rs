//! What the legacy 4- and 5-bit types, IQ4_NL, MXFP4, Q1_0 and Q2_0 share: int8 codes with one float scale for
//! each contract block of 32.
//!
//! ```text
//! value[i] = q[i] * d   (+ m, for the types with an offset)
//! isum     = sum over 32 values of q[i] * x[i]                     exact in i32
//! acc      = acc + (d * dx) * f32(isum)                            32 values after 32 values
//! accm     = accm + (-m * dx) * f32(sum of x[i])                   the offset is a minimum of -m
//! out      = acc - accm
//! ```
//!
//! No sum overflows, whatever the bytes: |isum| <= 128 * 128 * 32 = 2^19, and so it is exact in f32 as well.

use super::blocks256::dot_i8;
use super::unpacked::{Block, Sums};
use crate::activations::Acts;

/// A block unpacked; `LEN` is a multiple of 32, each 32 values being a contract block.
pub(crate) struct CodeBlock<const LEN: usize> {
    /// Scale.
    pub d: f32,
    /// Codes.
    pub q: [i8; LEN],
}

impl<const LEN: usize> Block for CodeBlock<LEN> {
    const LEN: usize = LEN;

    fn values(&self, out: &mut [f32]) {
        for (out, &q) in out.iter_mut().zip(&self.q) {
            *out = f32::from(q) * self.d;
        }
    }

    fn add_products(&self, b: usize, acts: &Acts, token: usize, sums: &mut Sums) {
        for (i, q) in self.q.as_chunks::<32>().0.iter().enumerate() {
            let b = b * (LEN / 32) + i;
            let isum = dot_i8(q, acts.block(b, token, 32));
            sums.acc += (self.d * acts.d[acts.place(b, token, 32)]) * isum as f32;
        }
    }
}

/// A block with an offset unpacked.
pub(crate) struct OffsetBlock {
    /// Scale.
    pub d: f32,
    /// Added to every value.
    pub m: f32,
    /// Codes.
    pub q: [i8; 32],
}

impl Block for OffsetBlock {
    const LEN: usize = 32;

    fn values(&self, out: &mut [f32]) {
        for (out, &q) in out.iter_mut().zip(&self.q) {
            *out = f32::from(q) * self.d + self.m;
        }
    }

    fn add_products(&self, b: usize, acts: &Acts, token: usize, sums: &mut Sums) {
        let at = acts.place(b, token, 32);
        let dx = acts.d[at];
        sums.acc += (self.d * dx) * dot_i8(&self.q, acts.block(b, token, 32)) as f32;
        let sum: i32 = acts.sums[at * 2..][..2].iter().map(|&sum| i32::from(sum)).sum();
        sums.accm += (-self.m * dx) * sum as f32;
    }
}

/// The 4-bit codes of a block: low nibbles are its first half, high nibbles its second half.
pub(crate) fn nibbles<const LEN: usize>(bytes: &[u8]) -> [u8; LEN] {
    let mut q = [0; LEN];
    let (low, high) = q.split_at_mut(LEN / 2);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = byte & 15;
        *high = byte >> 4;
    }
    q
}

/// The inverse of [`nibbles`]; a fifth bit of a code is dropped.
pub(crate) fn pack_nibbles(codes: &[u8], bytes: &mut [u8]) {
    let (low, high) = codes.split_at(codes.len() / 2);
    for ((low, high), byte) in low.iter().zip(high).zip(bytes) {
        *byte = low & 15 | high << 4;
    }
}

/// The 5-bit codes of 32 values: 4 bytes of fifth bits, value 0 the lowest, then [`nibbles`].
pub(crate) fn five_bit_codes(bytes: &[u8; 20]) -> [u8; 32] {
    let [h0, h1, h2, h3, low @ ..] = bytes;
    let high = u32::from_le_bytes([*h0, *h1, *h2, *h3]);
    let mut q = nibbles::<32>(low);
    for (i, q) in q.iter_mut().enumerate() {
        *q |= ((high >> i & 1) as u8) << 4;
    }
    q
}

/// The inverse of [`five_bit_codes`].
pub(crate) fn pack_five_bit_codes(codes: &[u8; 32], bytes: &mut [u8]) {
    let high = codes.iter().enumerate().fold(0, |high, (i, &q)| high | u32::from(q >> 4) << i);
    bytes[..4].copy_from_slice(&high.to_le_bytes());
    pack_nibbles(codes, &mut bytes[4..]);
}

/// The largest magnitude.
pub(crate) fn amax(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |m, v| m.max(v.abs()))
}

/// The first value of largest magnitude, with its sign.
pub(crate) fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |m: f32, &v| if v.abs() > m.abs() { v } else { m })
}

/// 1 / d, or 0 for d = 0.
pub(crate) fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Scale, offset and codes 0..=top of 32 values spread evenly from their minimum to their maximum.
pub(crate) fn offset_codes(x: &[f32; 32], top: u8) -> (f32, f32, [u8; 32]) {
    let min = x.iter().fold(f32::MAX, |m, &v| if v < m { v } else { m });
    let max = x.iter().fold(f32::MIN, |m, &v| if v > m { v } else { m });
    let d = (max - min) / f32::from(top);
    let inverse = inverse(d);
    (d, min, x.map(|x| (((x - min) * inverse + 0.5) as u8).min(top)))
}
