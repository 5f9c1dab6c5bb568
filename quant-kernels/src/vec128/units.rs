//! Matmul of types with a float scale for each contract block of 16 or 32 values: the legacy types, IQ4_NL, MXFP4,
//! NVFP4, Q1_0, Q2_0.
//!
//! One token: each row's codes meet the token in registers, and the sums of four rows leave them side by side.
//! More tokens: a stored block of eight rows is unpacked once, in the order of the products, for all tokens.

use super::blocks::Units;
use super::{ROWS, Vec128, blocks_at, rows, sixteen};
use crate::activations::Acts;
use crate::matmul::Tile;

/// Values in an activation block.
const LEN: usize = 32;
/// Accumulators of a token: the sums of eight rows, then those of their offsets.
const ACC: usize = 2 * ROWS;

/// Part of an activation block of one token.
#[derive(Clone, Copy)]
struct Token<'a> {
    x: &'a [i8],
    d: f32,
    /// The sum of the block's codes.
    sum: i32,
}

/// The `len` values of a token's activations from `at`, within a block.
#[inline(always)]
fn token(acts: &Acts, t: usize, at: usize, len: usize) -> Token<'_> {
    let block = acts.place(at / LEN, t, LEN);
    Token {
        x: &acts.q[block * LEN + at % LEN..][..len],
        d: acts.d[block],
        sum: acts.sums[2 * block..][..2].iter().map(|&sum| i32::from(sum)).sum(),
    }
}

/// Runs a tile.
#[inline(always)]
pub(super) fn run<S: Vec128, const BYTES: usize, B: Units>(
    s: S,
    tile: &mut Tile<'_>,
    unpack: impl Fn(&[u8; BYTES]) -> B,
) {
    let acts = tile.acts;
    let blocks = acts.cols / B::LEN;
    if acts.tokens == 1 {
        for first in (0..tile.rows).step_by(4) {
            let sums = one_token(s, rows(tile, first, blocks), acts, &unpack);
            tile.store(0, first, &sums[..4.min(tile.rows - first)]);
        }
        return;
    }
    let mut acc = std::mem::take(&mut tile.scratch.acc);
    for first in (0..tile.rows).step_by(ROWS) {
        acc.clear();
        acc.resize(ACC * acts.tokens, 0.0);
        many_tokens(s, rows(tile, first, blocks), acts, &unpack, &mut acc);
        for (t, acc) in acc.as_chunks::<ACC>().0.iter().enumerate() {
            let sums: [f32; ROWS] = std::array::from_fn(|r| acc[r] - acc[ROWS + r]);
            tile.store(t, first, &sums[..ROWS.min(tile.rows - first)]);
        }
    }
    tile.scratch.acc = acc;
}

/// Four rows with the only token.
#[inline(always)]
fn one_token<S: Vec128, const BYTES: usize, B: Units>(
    s: S,
    rows: [&[[u8; BYTES]]; 4],
    acts: &Acts,
    unpack: impl Fn(&[u8; BYTES]) -> B,
) -> [f32; 4] {
    let (mut acc, mut accm) = ([0f32; 4], [0f32; 4]);
    let count = rows[0].len();
    for b in 0..count {
        let bytes = blocks_at(&rows, b);
        let blocks = four!(r => unpack(bytes[r]));
        for unit in 0..B::LEN / B::UNIT {
            let at = unit * B::UNIT;
            let token = token(acts, 0, b * B::LEN + at, B::UNIT);
            let mut isums = [s.splat_i32(0); 4];
            for (isum, block) in isums.iter_mut().zip(&blocks) {
                for i in (0..B::UNIT).step_by(16) {
                    let (w, x) = (sixteen(block.codes(), at + i), sixteen(token.x, i));
                    *isum = s.dot16(*isum, s.load_i8(w), s.load_i8(x));
                }
            }
            s.fold(&mut acc, &four!(r => blocks[r].d(unit)), token.d, s.across(isums));
            if B::OFFSET {
                let min = four!(r => blocks[r].min());
                s.fold(&mut accm, &min, token.d, s.splat_i32(token.sum));
            }
        }
    }
    std::array::from_fn(|r| acc[r] - accm[r])
}

/// A contract block of eight rows.
struct Panel<S: Vec128> {
    /// For each 16 values; those of 16 have only the first.
    codes: [[S::W; 2]; 2],
    d: [[f32; 4]; 2],
    min: [[f32; 4]; 2],
}

/// Eight rows with every token; `acc` is `[token][ACC]`.
#[inline(always)]
fn many_tokens<S: Vec128, const BYTES: usize, B: Units>(
    s: S,
    rows: [&[[u8; BYTES]]; ROWS],
    acts: &Acts,
    unpack: impl Fn(&[u8; BYTES]) -> B,
    acc: &mut [f32],
) {
    let count = rows[0].len();
    for b in 0..count {
        let bytes = blocks_at(&rows, b);
        let blocks = eight!(r => unpack(bytes[r]));
        for unit in 0..B::LEN / B::UNIT {
            let panel = panel(s, &blocks, unit);
            let mut acc = acc.as_chunks_mut::<ACC>().0.iter_mut();
            let (at, count) = (b * B::LEN + unit * B::UNIT, acts.tokens);
            let mut t = 0;
            while t < count {
                // A last single token is its own partner.
                if S::PAIRS == 2 && count - t > 2 {
                    let tokens =
                        two!(p => two!(i => token(acts, (t + 2 * p + i).min(count - 1), at, B::UNIT)));
                    panel_sums::<S, 2, B>(s, &panel, tokens, &mut acc);
                    t += 4;
                } else {
                    let tokens = [two!(i => token(acts, (t + i).min(count - 1), at, B::UNIT))];
                    panel_sums::<S, 1, B>(s, &panel, tokens, &mut acc);
                    t += 2;
                }
            }
        }
    }
}

/// A contract block of eight rows' stored blocks in the order of the tier.
#[inline(always)]
fn panel<S: Vec128, B: Units>(s: S, blocks: &[B; ROWS], unit: usize) -> Panel<S> {
    Panel {
        codes: two!(i => two!(g => {
            let at = unit * B::UNIT + 16 * i % B::UNIT;
            s.pack(four!(r => s.load_i8(sixteen(blocks[4 * g + r].codes(), at))))
        })),
        d: two!(g => four!(r => blocks[4 * g + r].d(unit))),
        min: two!(g => four!(r => blocks[4 * g + r].min())),
    }
}

/// A panel with pairs of tokens: folds one block into as many of their accumulators as there are left.
#[inline(always)]
fn panel_sums<'a, S: Vec128, const PAIRS: usize, B: Units>(
    s: S,
    panel: &Panel<S>,
    tokens: [[Token<'_>; 2]; PAIRS],
    acc: &mut impl Iterator<Item = &'a mut [f32; ACC]>,
) {
    let mut isums = [[[s.splat_i32(0); 2]; 2]; PAIRS];
    for (i, codes) in panel.codes[..B::UNIT / 16].iter().enumerate() {
        for (isums, pair) in isums.iter_mut().zip(&tokens) {
            let x = s.pair(two!(t => s.load_i8(sixteen(pair[t].x, 16 * i))));
            for (isum, w) in isums.iter_mut().zip(codes) {
                *isum = s.products(*isum, w, &x);
            }
        }
    }
    for (pair, isums) in tokens.iter().zip(isums) {
        let isums = [s.gather(isums[0]), s.gather(isums[1])];
        for (i, token) in pair.iter().enumerate() {
            let Some(acc) = acc.next() else { return };
            let acc = acc.as_chunks_mut::<4>().0;
            for g in 0..2 {
                s.fold(&mut acc[g], &panel.d[g], token.d, isums[g][i]);
                if B::OFFSET {
                    s.fold(&mut acc[2 + g], &panel.min[g], token.d, s.splat_i32(token.sum));
                }
            }
        }
    }
}
