//! Arithmetic over unpacked blocks: what a type without its own SIMD code needs beyond its `unpack` function.

use crate::activations::Acts;
use crate::matmul::Tile;

/// A block of weights as integers and float scales.
pub(crate) trait Block {
    /// Values in a block.
    const LEN: usize;

    /// Writes the `LEN` values.
    fn values(&self, out: &mut [f32]);

    /// Takes block `b` of a row on in the sums of one token.
    fn add_products(&self, b: usize, acts: &Acts, token: usize, sums: &mut Sums);
}

/// The two accumulators of the contract; both start at +0.0.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Sums {
    /// Scales times products.
    pub acc: f32,
    /// Minima times sums of activations; stays +0.0 for types that have none, and subtracting it changes no bit.
    pub accm: f32,
}

/// Values of whole blocks.
pub(crate) fn dequantize<const BYTES: usize, B: Block>(
    blocks: &[u8],
    out: &mut [f32],
    unpack: impl Fn(&[u8; BYTES]) -> B,
) {
    for (block, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out.chunks_exact_mut(B::LEN)) {
        unpack(block).values(out);
    }
}

/// One row with one token.
pub(crate) fn dot<const BYTES: usize, B: Block>(
    row: &[u8],
    acts: &Acts,
    token: usize,
    unpack: impl Fn(&[u8; BYTES]) -> B,
) -> f32 {
    let mut sums = Sums::default();
    for (b, block) in row.as_chunks::<BYTES>().0.iter().enumerate() {
        unpack(block).add_products(b, acts, token, &mut sums);
    }
    sums.acc - sums.accm
}

/// All rows of a tile with all its tokens: [`dot`], but each block is unpacked once for all tokens.
pub(crate) fn tile<const BYTES: usize, B: Block>(tile: &mut Tile<'_>, unpack: impl Fn(&[u8; BYTES]) -> B) {
    let (acts, mut sums) = (tile.acts, [Sums::default(); TOKENS]);
    for row in 0..tile.rows {
        let blocks = tile.row(row).as_chunks::<BYTES>().0;
        for first in (0..acts.tokens).step_by(TOKENS) {
            let sums = &mut sums[..TOKENS.min(acts.tokens - first)];
            sums.fill(Sums::default());
            for (b, block) in blocks.iter().enumerate() {
                let block = unpack(block);
                for (t, sums) in sums.iter_mut().enumerate() {
                    block.add_products(b, acts, first + t, sums);
                }
            }
            for (t, sums) in sums.iter().enumerate() {
                tile.set(first + t, row, sums.acc - sums.accm);
            }
        }
    }
}

/// Tokens that share one unpacking of a row.
const TOKENS: usize = 64;
