//! What K-quants, i-quants and ternary types share: 256 int8 codes, 16 integer scales, one float scale.
//!
//! ```text
//! value[i] = (d * scales[i / 16]) * q[i]     (- dmin * mins[i / 16], for the types with minima)
//! isum     = sum over i of scales[i / 16] * (q[i] * x[i])          exact in i32
//! acc      = acc + (d * dx) * f32(isum)                            block after block
//! msum     = sum over i of mins[i / 16] * x[i]                     exact in i32
//! accm     = accm + (dmin * dx) * f32(msum)                        the same for the minima
//! out      = acc - accm
//! ```
//!
//! No sum overflows, whatever the bytes: scales, codes and activations are int8 and minima are bytes, so
//! |isum| <= 128 * 128 * 128 * 256 = 2^29 and |msum| <= 255 * 128 * 256 < 2^23.
//!
//! Scales with a fraction, as in d * (0.5 + s) / 4, become integers (2s + 1) with the power of two in `d` (d / 8).
//! That changes no bit of a value: an f16 has 11 significant bits, a scale at most 6, a code at most 7, so every
//! product is exact in f32 in any order.

use super::blocks32::{amax, inverse};
use super::quantize::Sample;
use super::scale_search::{Integers, Levels, closer, one_sided, scale_search};
use super::unpacked::{Block, Sums};
use crate::activations::Acts;

/// A block unpacked.
pub(crate) struct Block256 {
    /// Scale of the block, powers of two folded in.
    pub d: f32,
    /// Scale of each 16 codes.
    pub scales: [i8; 16],
    /// Codes.
    pub q: [i8; 256],
}

impl Block for Block256 {
    const LEN: usize = 256;

    fn values(&self, out: &mut [f32]) {
        let groups = out.as_chunks_mut::<16>().0.iter_mut().zip(self.q.as_chunks::<16>().0);
        for ((out, q), &scale) in groups.zip(&self.scales) {
            let scale = self.d * f32::from(scale);
            *out = q.map(|q| scale * f32::from(q));
        }
    }

    fn add_products(&self, b: usize, acts: &Acts, token: usize, sums: &mut Sums) {
        let groups = self.q.as_chunks::<16>().0.iter().zip(acts.block(b, token, 256).as_chunks::<16>().0);
        let isum: i32 =
            groups.zip(&self.scales).map(|((q, x), &scale)| i32::from(scale) * dot_i8(q, x)).sum();
        sums.acc += (self.d * acts.d[b * acts.tokens + token]) * isum as f32;
    }
}

/// A block with minima unpacked.
pub(crate) struct MinBlock256 {
    /// Scales and codes.
    pub scaled: Block256,
    /// Scale of the minima.
    pub dmin: f32,
    /// Minimum of each 16 codes.
    pub mins: [u8; 16],
}

impl Block for MinBlock256 {
    const LEN: usize = 256;

    fn values(&self, out: &mut [f32]) {
        self.scaled.values(out);
        for (out, &min) in out.as_chunks_mut::<16>().0.iter_mut().zip(&self.mins) {
            let min = self.dmin * f32::from(min);
            *out = out.map(|value| value - min);
        }
    }

    fn add_products(&self, b: usize, acts: &Acts, token: usize, sums: &mut Sums) {
        self.scaled.add_products(b, acts, token, sums);
        let at = b * acts.tokens + token;
        let x = &acts.sums[at * 16..][..16];
        let msum: i32 = self.mins.iter().zip(x).map(|(&min, &x)| i32::from(min) * i32::from(x)).sum();
        sums.accm += (self.dmin * acts.d[at]) * msum as f32;
    }
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

/// The inverse of [`two_bit_codes`]; higher bits of a code are dropped.
pub(crate) fn pack_two_bit_codes(codes: &[u8; 256], bytes: &mut [u8]) {
    for (half, bytes) in codes.as_chunks::<128>().0.iter().zip(bytes.as_chunks_mut::<32>().0) {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = (0..4).fold(0, |byte, j| byte | (half[32 * j + l] & 3) << (2 * j));
        }
    }
}

/// The largest magnitude of a block and its values over that, rounded, plus one: 0, 1 or 2.
pub(crate) fn ternary_digits(x: &[f32; 256]) -> (f32, [u8; 256]) {
    let d = amax(x);
    let inverse = inverse(d);
    (d, x.map(|x| ((x * inverse).round() + 1.0) as u8))
}

/// The scale of least error for codes -1, 0 and 1: its f16, and the codes plus one.
pub(super) fn fit_ternary(sample: &Sample<256>) -> ([u8; 2], [u8; 256]) {
    let ternary = Integers::<-1, 1>;
    let candidates = one_sided::<32>(&sample.x, 0.95, 8.0);
    let scale = scale_search(&ternary, &sample.x, &sample.w, &candidates, &closer(0.1)).scale;
    let (bytes, d) = sample.f16(scale, 1.0);
    let over = inverse(d);
    (bytes, sample.x.map(|x| (ternary.nearest(x * over) + 1.0) as u8))
}

/// Products of int8 codes, summed exactly.
pub(crate) fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}
