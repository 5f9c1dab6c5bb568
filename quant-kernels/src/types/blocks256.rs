//! What K-quants, i-quants and ternary types share: 256 int8 codes, 16 integer scales, one float scale.
//!
//! Each such type only says how its bytes unpack to a [`Block256`]; the arithmetic is here, once:
//!
//! ```text
//! value[i] = (d * scales[i / 16]) * q[i]
//! isum     = sum over i of scales[i / 16] * (q[i] * x[i])          exact in i32
//! acc      = acc + (d * dx) * f32(isum)                            block after block
//! ```
//!
//! No sum overflows, whatever the bytes: scales, codes and activations are int8, so
//! |isum| <= 128 * 128 * 128 * 256 = 2^29.
//!
//! Scales with a fraction, as in d * (0.5 + s) / 4, become integers (2s + 1) with the power of two in `d` (d / 8).
//! That changes no bit of a value: an f16 has 11 significant bits, a scale at most 6, a code at most 7, so every
//! product is exact in f32 in any order.

use crate::activations::Acts;
use half::f16;

/// A block unpacked.
pub(crate) struct Block256 {
    /// Scale of the block, powers of two folded in.
    pub d: f32,
    /// Scale of each 16 codes.
    pub scales: [i8; 16],
    /// Codes.
    pub q: [i8; 256],
}

impl Block256 {
    /// The products with 256 activation codes, summed exactly.
    fn isum(&self, x: &[i8]) -> i32 {
        let groups = self.q.as_chunks::<16>().0.iter().zip(x.as_chunks::<16>().0);
        groups.zip(self.scales).map(|((q, x), scale)| i32::from(scale) * dot_i8(q, x)).sum()
    }
}

/// Values of whole blocks of a type without minima.
pub(crate) fn dequantize<const BYTES: usize>(
    blocks: &[u8],
    out: &mut [f32],
    unpack: impl Fn(&[u8; BYTES]) -> Block256,
) {
    for (block, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let w = unpack(block);
        for (i, out) in out.iter_mut().enumerate() {
            *out = (w.d * f32::from(w.scales[i / 16])) * f32::from(w.q[i]);
        }
    }
}

/// One row with one token for a type without minima.
pub(crate) fn dot<const BYTES: usize>(
    row: &[u8],
    acts: &Acts,
    token: usize,
    unpack: impl Fn(&[u8; BYTES]) -> Block256,
) -> f32 {
    let mut acc = 0.0;
    for (b, block) in row.as_chunks::<BYTES>().0.iter().enumerate() {
        let w = unpack(block);
        let dx = acts.d[b * acts.tokens + token];
        acc += (w.d * dx) * w.isum(acts.block(b, token, 256)) as f32;
    }
    acc
}

/// A block with minima unpacked: value = (d * scale) * q - dmin * min.
pub(crate) struct MinBlock256 {
    /// Scales and codes.
    pub scaled: Block256,
    /// Scale of the minima.
    pub dmin: f32,
    /// Minimum of each 16 codes.
    pub mins: [u8; 16],
}

/// Values of whole blocks of a type with minima.
pub(crate) fn dequantize_min<const BYTES: usize>(
    blocks: &[u8],
    out: &mut [f32],
    unpack: impl Fn(&[u8; BYTES]) -> MinBlock256,
) {
    for (block, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let MinBlock256 { scaled: w, dmin, mins } = unpack(block);
        for (i, out) in out.iter_mut().enumerate() {
            let value = (w.d * f32::from(w.scales[i / 16])) * f32::from(w.q[i]);
            *out = value - dmin * f32::from(mins[i / 16]);
        }
    }
}

/// One row with one token for a type with minima: `acc - accm`, where
/// `accm = accm + (dmin * dx) * f32(sum of min * activation codes)`. |sum| <= 255 * 127 * 256 < 2^23.
pub(crate) fn dot_min<const BYTES: usize>(
    row: &[u8],
    acts: &Acts,
    token: usize,
    unpack: impl Fn(&[u8; BYTES]) -> MinBlock256,
) -> f32 {
    let (mut acc, mut accm) = (0.0, 0.0);
    for (b, block) in row.as_chunks::<BYTES>().0.iter().enumerate() {
        let w = unpack(block);
        let at = b * acts.tokens + token;
        let dx = acts.d[at];
        acc += (w.scaled.d * dx) * w.scaled.isum(acts.block(b, token, 256)) as f32;
        let sums = &acts.sums[at * 16..][..16];
        let msum: i32 = w.mins.iter().zip(sums).map(|(&min, &sum)| i32::from(min) * i32::from(sum)).sum();
        accm += (w.dmin * dx) * msum as f32;
    }
    acc - accm
}

/// 256 two-bit codes in the order of Q2_K, Q3_K and TQ2_0: each 32 bytes hold 128 values, bit pair `j` of byte `l`
/// being value `32 j + l`.
pub(crate) fn two_bit_codes(bytes: &[u8]) -> [u8; 256] {
    let mut q = [0; 256];
    for (half, bytes) in q.as_chunks_mut::<128>().0.iter_mut().zip(bytes.as_chunks::<32>().0) {
        for (j, q) in half.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (q, byte) in q.iter_mut().zip(bytes) {
                *q = byte >> (2 * j) & 3;
            }
        }
    }
    q
}

/// Products of int8 codes, summed exactly.
pub(crate) fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}

/// A little-endian f16 as f32.
pub(crate) fn f16_to_f32(low: u8, high: u8) -> f32 {
    f16::from_le_bytes([low, high]).to_f32()
}
