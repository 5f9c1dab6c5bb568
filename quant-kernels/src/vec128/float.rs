//! Matmul of F32, F16 and BF16 weights: accumulators of the contract's 16 lanes stay in registers over a whole row.
//!
//! Up to three tokens, which the first-level cache holds, meet rows two at a time from a block of rows that the
//! second-level cache holds.

use super::{Matmul, Vec128};
use crate::matmul::Tile;
use crate::simd::{LANES, Simd, padded};
use crate::types::f32::tree;
use half::f16;

/// Rows that all tokens meet before the next rows.
const BLOCK: usize = 64;
/// Tokens that share the loads of a row.
const TOKENS: usize = 3;

/// F32 weights.
pub(super) struct F32;
/// F16 weights.
pub(super) struct F16;
/// BF16 weights.
pub(super) struct Bf16;

/// A weight format.
trait Load<const BYTES: usize> {
    /// Sixteen weights.
    fn load<S: Simd>(s: S, weights: &[[u8; BYTES]; LANES]) -> S::V;
}

impl Load<4> for F32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, weights: &[[u8; 4]; LANES]) -> S::V {
        s.load(&weights.map(f32::from_le_bytes))
    }
}

impl Load<2> for F16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, weights: &[[u8; 2]; LANES]) -> S::V {
        s.load_f16(&weights.map(f16::from_le_bytes))
    }
}

impl Load<2> for Bf16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, weights: &[[u8; 2]; LANES]) -> S::V {
        s.load(&weights.map(|bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)))
    }
}

impl Matmul for F32 {
    #[inline(always)]
    fn run<S: Vec128>(simd: S, tile: &mut Tile<'_>) {
        run::<S, 4, Self>(simd, tile);
    }
}

impl Matmul for F16 {
    #[inline(always)]
    fn run<S: Vec128>(simd: S, tile: &mut Tile<'_>) {
        run::<S, 2, Self>(simd, tile);
    }
}

impl Matmul for Bf16 {
    #[inline(always)]
    fn run<S: Vec128>(simd: S, tile: &mut Tile<'_>) {
        run::<S, 2, Self>(simd, tile);
    }
}

#[inline(always)]
fn run<S: Simd, const BYTES: usize, L: Load<BYTES>>(s: S, tile: &mut Tile<'_>) {
    for block in (0..tile.rows).step_by(BLOCK) {
        let rows = block..(block + BLOCK).min(tile.rows);
        for token in (0..tile.acts.tokens).step_by(TOKENS) {
            match tile.acts.tokens - token {
                1 => groups::<S, BYTES, L, 4, 1>(s, tile, rows.clone(), token),
                2 => groups::<S, BYTES, L, 2, 2>(s, tile, rows.clone(), token),
                _ => groups::<S, BYTES, L, 2, TOKENS>(s, tile, rows.clone(), token),
            }
        }
    }
}

/// Rows `R` at a time, then one at a time, with `T` tokens.
#[inline(always)]
fn groups<S: Simd, const BYTES: usize, L: Load<BYTES>, const R: usize, const T: usize>(
    s: S,
    tile: &mut Tile<'_>,
    rows: std::ops::Range<usize>,
    token: usize,
) {
    let mut row = rows.start;
    while row < rows.end {
        if rows.end - row >= R {
            dots::<S, BYTES, L, R, T>(s, tile, row, token);
            row += R;
        } else {
            dots::<S, BYTES, L, 1, T>(s, tile, row, token);
            row += 1;
        }
    }
}

/// `R` rows with `T` tokens.
#[inline(always)]
fn dots<S: Simd, const BYTES: usize, L: Load<BYTES>, const R: usize, const T: usize>(
    s: S,
    tile: &mut Tile<'_>,
    row: usize,
    token: usize,
) {
    let cols = tile.acts.cols;
    let weights: [_; R] = std::array::from_fn(|r| {
        let (whole, tail) = tile.row(row + r).as_chunks::<BYTES>().0[..cols].as_chunks::<LANES>();
        let mut last = [[0; BYTES]; LANES];
        last[..tail.len()].copy_from_slice(tail);
        (whole, last)
    });
    let tokens: [_; T] = std::array::from_fn(|t| {
        let (whole, tail) = tile.acts.x[(token + t) * cols..][..cols].as_chunks::<LANES>();
        (whole, padded(tail))
    });
    let mut acc = [[s.splat(0.0); T]; R];
    for i in 0..cols / LANES {
        let mut x = [s.splat(0.0); T];
        for (x, (whole, _)) in x.iter_mut().zip(&tokens) {
            *x = s.load(&whole[i]);
        }
        for (acc, (whole, _)) in acc.iter_mut().zip(&weights) {
            let w = L::load(s, &whole[i]);
            for (acc, x) in acc.iter_mut().zip(x) {
                *acc = s.mul_add(w, x, *acc);
            }
        }
    }
    if !cols.is_multiple_of(LANES) {
        for (acc, (_, last)) in acc.iter_mut().zip(&weights) {
            let w = L::load(s, last);
            for (acc, (_, last)) in acc.iter_mut().zip(&tokens) {
                *acc = s.mul_add(w, s.load(last), *acc);
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        for (t, acc) in acc.iter().enumerate() {
            tile.set(token + t, row + r, tree(s.lanes(*acc)));
        }
    }
}
