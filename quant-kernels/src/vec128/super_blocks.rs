//! Matmul of types with super-blocks of 256 values: K-quants, i-quants, ternary types.
//!
//! One token: each row's codes meet the token in registers, and the sums of four rows leave them side by side.
//! More tokens: a block of eight rows is unpacked once into a [`Panel`] that all tokens use.
//!
//! Minima are at most 63 and sums of sixteen activations at most 2032 in magnitude, so a sum is taken apart into
//! 64 * high + low, and both parts are multiplied with the minima as codes are.

use super::blocks::SuperBlock;
use super::{ROWS, Vec128, blocks_at, rows, sixteen};
use crate::activations::Acts;
use crate::matmul::Tile;

/// Values in a block.
const LEN: usize = 256;
/// Accumulators of a token: the sums of eight rows, then those of their minima.
const ACC: usize = 2 * ROWS;

/// A block of eight rows, for products with any number of tokens.
struct Panel<S: Vec128> {
    codes: [[S::W; 2]; 16],
    scales: [[[S::I; 2]; 2]; 16],
    mins: [S::W; 2],
    d: [[f32; 4]; 2],
    dmin: [[f32; 4]; 2],
}

/// One block of one token.
#[derive(Clone, Copy)]
struct Token<'a> {
    x: &'a [i8; LEN],
    /// The sums of sixteen codes: high parts, low parts.
    sums: [&'a [u8; 16]; 2],
    d: f32,
}

/// The activations, with their sums taken apart if there are minima.
#[derive(Clone, Copy)]
struct Tokens<'a> {
    acts: &'a Acts,
    /// `[block][token][high parts, low parts]`.
    parts: &'a [u8],
}

impl<'a> Tokens<'a> {
    #[inline(always)]
    fn block<B: SuperBlock>(self, b: usize, t: usize) -> Token<'a> {
        let at = b * self.acts.tokens + t;
        let parts: &[u8] = if B::MINS { &self.parts[32 * at..] } else { &[0; 32] };
        Token {
            x: &self.acts.q[LEN * at..][..LEN].as_chunks().0[0],
            sums: [sixteen(parts, 0), sixteen(parts, 16)],
            d: self.acts.d[at],
        }
    }
}

/// Runs a tile; each scale is that of `16 * PER` codes.
#[inline(always)]
pub(super) fn run<S: Vec128, const PER: usize, const BYTES: usize, B: SuperBlock>(
    s: S,
    tile: &mut Tile<'_>,
    unpack: impl Fn(&[u8; BYTES]) -> B,
) {
    let acts = tile.acts;
    let blocks = acts.cols / LEN;
    let mut parts = std::mem::take(&mut tile.scratch.panel);
    parts.clear();
    if B::MINS {
        for sums in acts.sums.as_chunks::<16>().0 {
            parts.extend(sums.map(|sum| (sum >> 6) as u8));
            parts.extend(sums.map(|sum| (sum & 63) as u8));
        }
    }
    let tokens = Tokens { acts, parts: &parts };
    let mut acc = std::mem::take(&mut tile.scratch.acc);
    if acts.tokens == 1 {
        for first in (0..tile.rows).step_by(4) {
            let sums = one_token(s, rows(tile, first, blocks), tokens, &unpack);
            tile.store(0, first, &sums[..4.min(tile.rows - first)]);
        }
    } else {
        for first in (0..tile.rows).step_by(ROWS) {
            acc.clear();
            acc.resize(ACC * acts.tokens, 0.0);
            many_tokens::<S, PER, BYTES, B>(s, rows(tile, first, blocks), tokens, &unpack, &mut acc);
            for (t, acc) in acc.as_chunks::<ACC>().0.iter().enumerate() {
                let sums: [f32; ROWS] = std::array::from_fn(|r| acc[r] - acc[ROWS + r]);
                tile.store(t, first, &sums[..ROWS.min(tile.rows - first)]);
            }
        }
    }
    tile.scratch.acc = acc;
    tile.scratch.panel = parts;
}

/// Four rows with the only token.
#[inline(always)]
fn one_token<S: Vec128, const BYTES: usize, B: SuperBlock>(
    s: S,
    rows: [&[[u8; BYTES]]; 4],
    tokens: Tokens<'_>,
    unpack: impl Fn(&[u8; BYTES]) -> B,
) -> [f32; 4] {
    let (mut acc, mut accm) = ([0f32; 4], [0f32; 4]);
    let blocks = rows[0].len();
    for b in 0..blocks {
        let token = tokens.block::<B>(b, 0);
        let (mut isums, mut msums) = ([s.splat_i32(0); 4], [s.splat_i32(0); 4]);
        let (mut d, mut dmin) = ([0f32; 4], [0f32; 4]);
        for (r, row) in rows.into_iter().enumerate() {
            let block = unpack(&row[b]);
            let scaled = block.scaled();
            d[r] = scaled.d;
            isums[r] = s.dot256(&scaled.q, &scaled.scales, token.x);
            if B::MINS {
                let mins;
                (mins, dmin[r]) = block.mins();
                let mins = s.load_u8(mins);
                let high = s.dot16(s.splat_i32(0), mins, s.load_u8(token.sums[0]));
                let low = s.dot16(s.splat_i32(0), mins, s.load_u8(token.sums[1]));
                msums[r] = s.mul_add_i32(high, s.splat_i32(64), low);
            }
        }
        s.fold(&mut acc, &d, token.d, s.across(isums));
        if B::MINS {
            s.fold(&mut accm, &dmin, token.d, s.across(msums));
        }
    }
    std::array::from_fn(|r| acc[r] - accm[r])
}

/// Eight rows with every token; `acc` is `[token][ACC]`.
#[inline(always)]
fn many_tokens<S: Vec128, const PER: usize, const BYTES: usize, B: SuperBlock>(
    s: S,
    rows: [&[[u8; BYTES]]; ROWS],
    tokens: Tokens<'_>,
    unpack: impl Fn(&[u8; BYTES]) -> B,
    acc: &mut [f32],
) {
    let (blocks, count) = (rows[0].len(), tokens.acts.tokens);
    for b in 0..blocks {
        let bytes = blocks_at(&rows, b);
        let panel = panel(s, &eight!(r => unpack(bytes[r])));
        let mut acc = acc.as_chunks_mut::<ACC>().0.iter_mut();
        let mut t = 0;
        while t < count {
            // A last single token is its own partner.
            if S::PAIRS == 2 && count - t > 2 {
                let tokens = two!(p => two!(i => tokens.block::<B>(b, (t + 2 * p + i).min(count - 1))));
                panel_sums::<S, PER, 2, B>(s, &panel, tokens, &mut acc);
                t += 4;
            } else {
                let tokens = [two!(i => tokens.block::<B>(b, (t + i).min(count - 1)))];
                panel_sums::<S, PER, 1, B>(s, &panel, tokens, &mut acc);
                t += 2;
            }
        }
    }
}

/// Eight rows' blocks in the order of the tier.
#[inline(always)]
fn panel<S: Vec128, B: SuperBlock>(s: S, blocks: &[B; ROWS]) -> Panel<S> {
    let scales = two!(g => s.columns(four!(r => s.load_i8(&blocks[4 * g + r].scaled().scales))));
    let mut panel = Panel {
        codes: [codes(s, blocks, 0); 16],
        scales: [[[s.splat_i32(0); 2]; 2]; 16],
        mins: two!(g => s.pack(four!(r => s.load_u8(blocks[4 * g + r].mins().0)))),
        d: two!(g => four!(r => blocks[4 * g + r].scaled().d)),
        dmin: two!(g => four!(r => blocks[4 * g + r].mins().1)),
    };
    for (j, of) in panel.codes.iter_mut().enumerate().skip(1) {
        *of = codes(s, blocks, j);
    }
    for (j, of) in panel.scales.iter_mut().enumerate() {
        *of = two!(g => s.spread(scales[g][j]));
    }
    panel
}

/// Sixteen codes of eight rows.
#[inline(always)]
fn codes<S: Vec128, B: SuperBlock>(s: S, blocks: &[B; ROWS], j: usize) -> [S::W; 2] {
    two!(g => s.pack(four!(r => s.load_i8(sixteen(&blocks[4 * g + r].scaled().q, 16 * j)))))
}

/// A panel with pairs of tokens: folds one block into as many of their accumulators as there are left.
#[inline(always)]
fn panel_sums<'a, S: Vec128, const PER: usize, const PAIRS: usize, B: SuperBlock>(
    s: S,
    panel: &Panel<S>,
    tokens: [[Token<'_>; 2]; PAIRS],
    acc: &mut impl Iterator<Item = &'a mut [f32; ACC]>,
) {
    let zero = [[[s.splat_i32(0); 2]; 2]; PAIRS];
    let mut isums = zero;
    for first in (0..16).step_by(PER) {
        let mut sums = zero;
        for j in first..first + PER {
            for (sums, pair) in sums.iter_mut().zip(&tokens) {
                let x = s.pair(two!(t => s.load_i8(sixteen(pair[t].x, 16 * j))));
                for (sum, w) in sums.iter_mut().zip(&panel.codes[j]) {
                    *sum = s.products(*sum, w, &x);
                }
            }
        }
        for (isums, sums) in isums.iter_mut().zip(&sums) {
            for ((isum, sum), scale) in isums.iter_mut().zip(sums).zip(&panel.scales[first]) {
                *isum = two!(i => s.mul_add_i32(sum[i], scale[i], isum[i]));
            }
        }
    }
    let mut msums = zero;
    if B::MINS {
        for (msums, pair) in msums.iter_mut().zip(&tokens) {
            let high = s.pair([s.load_u8(pair[0].sums[0]), s.load_u8(pair[1].sums[0])]);
            let low = s.pair([s.load_u8(pair[0].sums[1]), s.load_u8(pair[1].sums[1])]);
            for (msum, mins) in msums.iter_mut().zip(&panel.mins) {
                let high = s.products([s.splat_i32(0); 2], mins, &high);
                let high = two!(i => s.mul_add_i32(high[i], s.splat_i32(64), s.splat_i32(0)));
                *msum = s.products(high, mins, &low);
            }
        }
    }
    for ((pair, isums), msums) in tokens.iter().zip(isums).zip(msums) {
        let isums = [s.gather(isums[0]), s.gather(isums[1])];
        let msums = [s.gather(msums[0]), s.gather(msums[1])];
        for (i, token) in pair.iter().enumerate() {
            let Some(acc) = acc.next() else { return };
            let acc = acc.as_chunks_mut::<4>().0;
            for g in 0..2 {
                s.fold(&mut acc[g], &panel.d[g], token.d, isums[g][i]);
                if B::MINS {
                    s.fold(&mut acc[2 + g], &panel.dmin[g], token.d, msums[g][i]);
                }
            }
        }
    }
}
