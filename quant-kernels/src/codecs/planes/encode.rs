//! Encoding a page into planes.
//!
//! 1. Scale by a power of two so that the largest magnitude lies in [1, 2); a page below 2^-100 is all zeros.
//! 2. Balance (keys), rotate.
//! 3. `centre[c]`: the mean over the tokens, as a half; taken away.
//! 4. Balance rows and columns in turn, [`ROUNDS`] times: each channel's, then each token's root mean square to 1.
//!    `token[t]` is what the tokens' rounds amount to, as a half.
//! 5. `channel[c]`: of a few ranges, from the largest magnitude of the channel inwards, that with the least squared
//!    error of its codes, as a half of half a step. Codes: the nearest cell centre.
//! 6. Fit all of it to the page in turn ([`fit`](super::fit)): centre and scale of every channel to its codes, the scale
//!    of every token to its codes, the codes to the scales. Each makes the squared error smaller.
//! 7. Each token's scale is fitted once more to its codes: keys to the same length (their dot products keep their size),
//!    values and 2-bit keys to the least squared error.
//!
//! Sums over tokens go token after token, sums over channels by lanes and the tree; multiply, then add.

use super::fit::{PageFit, REFITS, TokenFit, choose_ranges};
use super::layout::pack;
use super::ops::{PlaneKernel, PlaneOps, dispatch};
use super::quantize::trees;
use super::{HEADER, PAGE, PlaneScratch, Planes, Side, planes_at};
use crate::activations::TINY;
use crate::codecs::take;
use crate::simd::{self, Kernel, LANES, Simd};
use crate::{Error, Isa};
use half::f16;

/// Sixteen channels of a token.
pub(super) type Lanes = [f32; LANES];

/// Rounds of balancing: a start for the fit.
const ROUNDS: usize = 2;
/// A mean square below this is a constant row or column (numbers are of order 1).
const FLAT: f32 = 1e-20;

pub(super) fn encode(
    planes: &Planes,
    side: Side,
    isa: Isa,
    x: &[f32],
    scratch: &mut PlaneScratch,
    page: &mut [u8],
) -> Result<(), Error> {
    let dim = planes.dim;
    assert!(x.len() == PAGE * dim, "plane codec: wrong lengths");
    let max = f32::from_bits(simd::dispatch(isa, Largest { x }));
    if !max.is_finite() {
        let token = x.iter().position(|x| !x.is_finite()).unwrap_or_default() / dim;
        return Err(Error::NotFinite { token });
    }
    page[..planes_at(dim)].fill(0);
    if max < TINY {
        page.fill(0);
        return Ok(());
    }
    let scale = f32::from_bits(max.to_bits() & 0x7F80_0000);
    page[..4].copy_from_slice(&scale.to_le_bytes());
    let numbers = take(&mut scratch.page, 2 * PAGE * dim + 2 * dim);
    let (y, rest) = numbers.split_at_mut(PAGE * dim);
    let (z, columns) = rest.split_at_mut(PAGE * dim);
    let inverse = 1.0 / scale; // exact: both are powers of two
    let input = &mut columns[..dim];
    for (x, y) in x.chunks_exact(dim).zip(y.chunks_exact_mut(dim)) {
        for (input, x) in input.iter_mut().zip(x) {
            *input = x * inverse;
        }
        for (input, balance) in input.iter_mut().zip(&planes.balance) {
            *input *= balance;
        }
        planes.rotation.apply(isa, input, y);
    }
    let codes = take(&mut scratch.codes, PAGE * dim);
    let (header, bytes) = page.split_at_mut(planes_at(dim));
    let last = match side {
        Side::Keys if planes.bits > 2 => TokenFit::Length,
        _ => TokenFit::LeastSquares,
    };
    let page = Balance {
        bits: planes.bits,
        last,
        y: y.as_chunks_mut().0,
        z: z.as_chunks_mut().0,
        columns: columns.as_chunks_mut().0,
        codes: codes.as_chunks_mut().0,
        header,
    };
    dispatch(isa, page);
    let (words, shape) = match side {
        Side::Keys => (codes.as_chunks::<4>().0, [PAGE, dim]),
        Side::Values => {
            let transposed = take(&mut scratch.transposed, PAGE * dim);
            for (t, codes) in codes.chunks_exact(dim).enumerate() {
                for (out, code) in transposed.chunks_exact_mut(PAGE).zip(codes) {
                    out[t] = *code;
                }
            }
            (transposed.as_chunks::<4>().0, [dim, PAGE])
        }
    };
    pack(words, shape, planes.bits, bytes);
    Ok(())
}

/// Bits of the largest magnitude; those of a NaN or infinity are larger than those of any number.
struct Largest<'a> {
    x: &'a [f32],
}

impl Kernel for Largest<'_> {
    type Output = u32;

    #[inline(always)]
    fn run<S: Simd>(self, _s: S) -> u32 {
        let mut max = [0u32; LANES];
        for x in self.x.as_chunks::<LANES>().0 {
            for (max, x) in max.iter_mut().zip(x) {
                *max = (*max).max(x.to_bits() & 0x7FFF_FFFF);
            }
        }
        max.into_iter().fold(0, u32::max)
    }
}

/// Steps 3 to 7.
struct Balance<'a> {
    bits: usize,
    /// How tokens are fitted in the end.
    last: TokenFit,
    /// `[PAGE][dim]`, rotated.
    y: &'a mut [Lanes],
    /// As large.
    z: &'a mut [Lanes],
    /// `[2][dim]`.
    columns: &'a mut [Lanes],
    codes: &'a mut [[u8; LANES]],
    header: &'a mut [u8],
}

impl PlaneKernel for Balance<'_> {
    #[inline(always)]
    fn run<P: PlaneOps>(self, p: P) {
        let Self { bits, last, y, z, columns, codes, header } = self;
        let width = columns.len() / 2;
        let (half, other) = columns.split_at_mut(width);
        let (channels, rest) = header[HEADER..].split_at_mut(2 * width * LANES);
        let (centres, tokens) = rest.split_at_mut(2 * width * LANES);
        let (channels, centres) = (channels.as_chunks_mut().0, centres.as_chunks_mut().0);
        let tokens = tokens.as_chunks_mut().0;

        // the mean, as it will be decoded, taken away
        let part = p.splat(1.0 / PAGE as f32);
        for (i, centre) in centres.iter_mut().enumerate() {
            let mut sum = p.splat(0.0);
            for y in y.chunks_exact(width) {
                sum = p.add(sum, p.load(&y[i]));
            }
            let mean = round_halves(p, p.mul(sum, part), centre);
            for y in y.chunks_exact_mut(width) {
                p.store(p.sub(p.load(&y[i]), mean), &mut y[i]);
            }
        }

        // inverse mean squares of channels (other) and tokens
        let mut by_token = [1f32; PAGE];
        for _ in 0..ROUNDS {
            for (i, inverse) in other.iter_mut().enumerate() {
                let mut sum = p.splat(0.0);
                for (y, weight) in y.chunks_exact(width).zip(&by_token) {
                    let y = p.load(&y[i]);
                    sum = p.add(sum, p.mul(p.mul(y, y), p.splat(*weight)));
                }
                p.store(p.mul(sum, part), inverse);
                for inverse in inverse {
                    *inverse = inverse_above(*inverse);
                }
            }
            let tokens = y.chunks_exact(4 * width).zip(by_token.as_chunks_mut::<4>().0);
            for (y, weights) in tokens {
                let mut sums = [p.splat(0.0); 4];
                for (i, inverse) in other.iter().enumerate() {
                    let inverse = p.load(inverse);
                    for t in 0..4 {
                        let y = p.load(&y[t * width + i]);
                        sums[t] = p.add(sums[t], p.mul(p.mul(y, y), inverse));
                    }
                }
                *weights = trees(p, sums);
                for weight in weights {
                    *weight = inverse_above(*weight / (width * LANES) as f32);
                }
            }
        }
        let mut scales = by_token;
        for scale in &mut scales {
            *scale = inverse(*scale).sqrt();
        }
        store(p, &mut scales, tokens);
        for ((y, z), scale) in y.chunks_exact(width).zip(z.chunks_exact_mut(width)).zip(&scales) {
            let inverse = p.splat(inverse(*scale));
            for (y, z) in y.iter().zip(z) {
                p.store(p.mul(p.load(y), inverse), z);
            }
        }

        choose_ranges(p, bits, z, half);
        let mut page = PageFit { bits, y, z, half, inverse_steps: other, scales: &mut scales, codes };
        page.round_steps(p, channels);
        page.code(p);
        for _ in 0..REFITS {
            page.fit_channels(p, centres);
            page.round_steps(p, channels);
            page.fit_tokens(p, TokenFit::LeastSquares);
            store(p, page.scales, tokens);
            page.code(p);
        }
        page.fit_tokens(p, last);
        store(p, page.scales, tokens);
    }
}

/// Rounds lanes to halves and stores those; returns what was stored.
#[inline(always)]
pub(super) fn round_halves<S: Simd>(s: S, v: S::V, out: &mut [u8; 2 * LANES]) -> S::V {
    let mut halves = [f16::ZERO; LANES];
    s.store_f16(v, &mut halves);
    for (out, half) in out.as_chunks_mut::<2>().0.iter_mut().zip(&halves) {
        *out = half.to_le_bytes();
    }
    s.load_f16(&halves)
}

/// Rounds the tokens' scales to halves and stores those; the scales become what was stored.
#[inline(always)]
fn store<S: Simd>(s: S, x: &mut [f32; PAGE], out: &mut [[u8; 2 * LANES]]) {
    for (x, out) in x.as_chunks_mut::<LANES>().0.iter_mut().zip(out) {
        s.store(round_halves(s, s.load(x), out), x);
    }
}

/// 1 / x, or 0 for a constant.
#[inline(always)]
fn inverse_above(x: f32) -> f32 {
    if x > FLAT { 1.0 / x } else { 0.0 }
}

/// 1 / x, or 0 for what has none.
#[inline(always)]
pub(super) fn inverse(x: f32) -> f32 {
    if x > 0.0 { 1.0 / x } else { 0.0 }
}
