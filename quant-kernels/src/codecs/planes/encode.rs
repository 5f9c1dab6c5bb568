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

use super::dots::{PlaneKernel, PlaneOps, dispatch, pack};
use super::fit::{PageFit, REFITS, TokenFit, choose_ranges};
use super::{HEADER, PAGE, PlaneScratch, Planes, Side, planes_at};
use crate::activations::TINY;
use crate::codecs::take;
use crate::simd::{self, Kernel, LANES, Simd};
use crate::types::f32::tree;
use crate::{Error, Isa};
use half::f16;

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
    let numbers = take(&mut scratch.page, 2 * PAGE * dim + 5 * dim);
    let (y, rest) = numbers.split_at_mut(PAGE * dim);
    let (u, columns) = rest.split_at_mut(PAGE * dim);
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
    dispatch(isa, Balance { bits: planes.bits, last, y, u, columns, codes, header });
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
    y: &'a mut [f32],
    /// As large.
    u: &'a mut [f32],
    /// `[5][dim]`.
    columns: &'a mut [f32],
    codes: &'a mut [u8],
    header: &'a mut [u8],
}

impl PlaneKernel for Balance<'_> {
    #[inline(always)]
    fn run<P: PlaneOps>(self, p: P) {
        let Self { bits, last, y, u, columns, codes, header } = self;
        let dim = columns.len() / 5;
        let (first, buffers) = columns.split_at_mut(dim);
        let (channels, rest) = header[HEADER..].split_at_mut(2 * dim);
        let (centres, tokens) = rest.split_at_mut(2 * dim);

        // the mean, as it will be decoded
        first.fill(0.0);
        for y in y.chunks_exact(dim) {
            add(first, y, |sum, y| sum + y);
        }
        store(first, centres, 1.0 / PAGE as f32);
        for y in y.chunks_exact_mut(dim) {
            add(y, first, |y, mean| y - mean);
        }

        // inverse mean squares of channels (first) and tokens
        let mut by_token = [1f32; PAGE];
        for _ in 0..ROUNDS {
            first.fill(0.0);
            for (y, weight) in y.chunks_exact(dim).zip(by_token) {
                add(first, y, |sum, y| sum + (y * y) * weight);
            }
            for x in first.iter_mut() {
                *x = inverse_above(*x * (1.0 / PAGE as f32));
            }
            for (y, weight) in y.chunks_exact(dim).zip(&mut by_token) {
                *weight = inverse_above(weighted_squares(p, y, first) / dim as f32);
            }
        }
        let mut scales = by_token.map(|weight| inverse(weight).sqrt());
        store(&mut scales, tokens, 1.0);
        for ((y, u), scale) in y.chunks_exact(dim).zip(u.chunks_exact_mut(dim)).zip(scales) {
            let inverse = inverse(scale);
            for (u, y) in u.iter_mut().zip(y) {
                *u = y * inverse;
            }
        }

        choose_ranges(bits, u, first, buffers);
        store(first, channels, 1.0);
        let mut page = PageFit { bits, y, z: u, half: first, scales: &mut scales, codes };
        page.code(buffers);
        for _ in 0..REFITS {
            page.fit_channels(centres, buffers);
            store(page.half, channels, 1.0);
            page.fit_tokens(p, TokenFit::LeastSquares);
            store(page.scales, tokens, 1.0);
            page.code(buffers);
        }
        page.fit_tokens(p, last);
        store(page.scales, tokens, 1.0);
    }
}

/// `x = f(x, y)`.
#[inline(always)]
pub(super) fn add(x: &mut [f32], y: &[f32], f: impl Fn(f32, f32) -> f32) {
    for (x, y) in x.iter_mut().zip(y) {
        *x = f(*x, *y);
    }
}

/// Multiplies, rounds to halves and stores those; the numbers become what was stored.
#[inline(always)]
fn store(x: &mut [f32], out: &mut [u8], factor: f32) {
    for (x, out) in x.iter_mut().zip(out.as_chunks_mut::<2>().0) {
        let half = f16::from_f32(*x * factor);
        *x = half.to_f32();
        *out = half.to_le_bytes();
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

/// The sum of `(x * x) * weight` by lanes and the tree.
#[inline(always)]
fn weighted_squares<S: Simd>(s: S, x: &[f32], weight: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for (x, w) in x.as_chunks::<LANES>().0.iter().zip(weight.as_chunks::<LANES>().0) {
        let v = s.load(x);
        sum = s.add(sum, s.mul(s.mul(v, v), s.load(w)));
    }
    tree(s.lanes(sum))
}
