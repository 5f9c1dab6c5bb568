//! What the legacy 4- and 5-bit types, IQ4_NL, MXFP4, Q1_0 and Q2_0 share: int8 codes with one float scale for
//! each contract block of 32.
//!
//! ```text
//! value[i] = q[i] * d   (+ m, for the types with an offset)
//! isum     = sum over 32 values of q[i] * x[i]                     exact in i32
//! acc      = acc + (d * dx) * f32(isum)                            32 values after 32 values
//! accm     = accm + (-m * dx) * f32(sum of x[i])                   the same for the offset
//! out      = acc - accm
//! ```
//!
//! No sum overflows, whatever the bytes: |isum| <= 128 * 128 * 32 = 2^19, and so it is exact in f32 as well.

use super::blocks256::dot_i8;
use crate::activations::Acts;

/// Values of whole blocks of a type without offset: `unpack` gives the scale and the codes of a block.
pub(crate) fn dequantize<const BYTES: usize, const LEN: usize>(
    blocks: &[u8],
    out: &mut [f32],
    unpack: impl Fn(&[u8; BYTES]) -> (f32, [i8; LEN]),
) {
    for (block, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<LEN>().0) {
        let (d, q) = unpack(block);
        for (out, q) in out.iter_mut().zip(q) {
            *out = f32::from(q) * d;
        }
    }
}

/// One row with one token for a type without offset. A block of more than 32 values is several contract blocks.
pub(crate) fn dot<const BYTES: usize, const LEN: usize>(
    row: &[u8],
    acts: &Acts,
    token: usize,
    unpack: impl Fn(&[u8; BYTES]) -> (f32, [i8; LEN]),
) -> f32 {
    let mut acc = 0.0;
    for (block, bytes) in row.as_chunks::<BYTES>().0.iter().enumerate() {
        let (d, q) = unpack(bytes);
        for (i, q) in q.as_chunks::<32>().0.iter().enumerate() {
            let b = block * (LEN / 32) + i;
            let dx = acts.d[b * acts.tokens + token];
            acc += (d * dx) * dot_i8(q, acts.block(b, token, 32)) as f32;
        }
    }
    acc
}

/// A block with an offset unpacked: value = q * d + m.
pub(crate) struct OffsetBlock {
    /// Scale.
    pub d: f32,
    /// Added to every value.
    pub m: f32,
    /// Codes.
    pub q: [i8; 32],
}

/// Values of whole blocks of a type with an offset.
pub(crate) fn dequantize_offset<const BYTES: usize>(
    blocks: &[u8],
    out: &mut [f32],
    unpack: impl Fn(&[u8; BYTES]) -> OffsetBlock,
) {
    for (block, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let w = unpack(block);
        for (out, q) in out.iter_mut().zip(w.q) {
            *out = f32::from(q) * w.d + w.m;
        }
    }
}

/// One row with one token for a type with an offset. The offset is a minimum of -m: accm sums -m, out subtracts it.
pub(crate) fn dot_offset<const BYTES: usize>(
    row: &[u8],
    acts: &Acts,
    token: usize,
    unpack: impl Fn(&[u8; BYTES]) -> OffsetBlock,
) -> f32 {
    let (mut acc, mut accm) = (0.0, 0.0);
    for (b, block) in row.as_chunks::<BYTES>().0.iter().enumerate() {
        let w = unpack(block);
        let at = b * acts.tokens + token;
        let dx = acts.d[at];
        acc += (w.d * dx) * dot_i8(&w.q, acts.block(b, token, 32)) as f32;
        let sum: i32 = acts.sums[at * 2..][..2].iter().map(|&sum| i32::from(sum)).sum();
        accm += (-w.m * dx) * sum as f32;
    }
    acc - accm
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

/// The 5-bit codes of 32 values: [`nibbles`] plus a fifth bit from `high`, value 0 the lowest.
pub(crate) fn five_bit_codes(bytes: &[u8], high: [u8; 4]) -> [u8; 32] {
    let high = u32::from_le_bytes(high);
    let mut q = nibbles::<32>(bytes);
    for (i, q) in q.iter_mut().enumerate() {
        *q |= ((high >> i & 1) as u8) << 4;
    }
    q
}
