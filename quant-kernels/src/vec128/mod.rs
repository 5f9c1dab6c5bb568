//! Sixteen bytes in a register: one source for NEON and WASM's simd128.
//!
//! The tiers bring [`Vec128`] (and [`Simd`] for floats); the loops, the unpacking of the types and the list of
//! their matmuls are here. As in `simd.rs`, all of it is `inline(always)` and ends up in one function per tier that
//! has the tier's target features.

/// `[f(0), f(1)]` for `two!(i => f(i))`. `std::array::from_fn` and `map` need not be inlined, but what uses a tier's
/// instructions has to be.
macro_rules! two {
    ($i:ident => $value:expr) => {
        [
            {
                let $i = 0usize;
                $value
            },
            {
                let $i = 1usize;
                $value
            },
        ]
    };
}
pub(crate) use two;

/// As `two!`, four times.
macro_rules! four {
    ($i:ident => $value:expr) => {{
        let [a, b] = $crate::vec128::two!(half => { let $i = half; $value });
        let [c, d] = $crate::vec128::two!(half => { let $i = half + 2; $value });
        [a, b, c, d]
    }};
}
pub(crate) use four;

/// As `two!`, eight times.
macro_rules! eight {
    ($i:ident => $value:expr) => {{
        let [a, b, c, d] = $crate::vec128::four!(half => { let $i = half; $value });
        let [e, f, g, h] = $crate::vec128::four!(half => { let $i = half + 4; $value });
        [a, b, c, d, e, f, g, h]
    }};
}

mod blocks;
mod float;
mod formats;
mod planes;
mod super_blocks;
mod units;
mod unpack;

pub(crate) use formats::tile;

use crate::activations::{Acts, TINY};
use crate::matmul::Tile;
use crate::simd::{LANES, Simd};
use crate::types::TileFn;

/// Rows that share the loads of a token's codes: two groups of four.
const ROWS: usize = 8;

/// Registers of 128 bits as integers. A value of an implementing type is a proof that the CPU has the instructions.
pub(crate) trait Vec128: Simd {
    /// Sixteen bytes.
    type B: Copy;
    /// Four i32.
    type I: Copy;
    /// Sixteen codes of four rows, in the order that [`Vec128::products`] wants.
    type W: Copy;
    /// Sixteen codes of two tokens, in the order that [`Vec128::products`] wants.
    type X: Copy;
    /// Pairs of tokens whose sums with [`ROWS`] rows fit in the registers: 1 or 2.
    const PAIRS: usize;

    /// Bytes from memory.
    fn load_u8(self, x: &[u8; 16]) -> Self::B;
    /// Bytes from memory.
    fn load_i8(self, x: &[i8; 16]) -> Self::B;
    /// Bytes as an array.
    fn bytes(self, x: Self::B) -> [i8; 16];
    /// The same byte everywhere.
    fn splat_u8(self, x: u8) -> Self::B;
    /// Bits of both.
    fn and(self, a: Self::B, b: Self::B) -> Self::B;
    /// Bits of either.
    fn or(self, a: Self::B, b: Self::B) -> Self::B;
    /// a - b, wrapping.
    fn sub_bytes(self, a: Self::B, b: Self::B) -> Self::B;
    /// Each byte shifted up.
    fn shl<const N: i32>(self, x: Self::B) -> Self::B;
    /// Each unsigned byte shifted down.
    fn shr<const N: i32>(self, x: Self::B) -> Self::B;
    /// `table[index]`, byte by byte; indices are below 16.
    fn lookup(self, table: Self::B, index: Self::B) -> Self::B;
    /// An f16, exactly.
    fn widen_half(self, bits: u16) -> f32;

    /// The same integer everywhere.
    fn splat_i32(self, x: i32) -> Self::I;
    /// a * b + c, wrapping.
    fn mul_add_i32(self, a: Self::I, b: Self::I, c: Self::I) -> Self::I;
    /// Lane `i` is the sum of the lanes of `v[i]`.
    fn across(self, v: [Self::I; 4]) -> Self::I;
    /// Byte `j` of each of four rows, signed, for every `j`.
    fn columns(self, rows: [Self::B; 4]) -> [Self::I; 16];
    /// `acc = acc + (d * dx) * f32(isum)`, multiply, then add.
    fn fold(self, acc: &mut [f32; 4], d: &[f32; 4], dx: f32, isum: Self::I);

    /// Adds sixteen products of codes to the lanes of `acc`, each to some lane.
    fn dot16(self, acc: Self::I, w: Self::B, x: Self::B) -> Self::I;
    /// Products of a block's codes times the scale of their sixteen: lanes whose sum is the block's.
    fn dot256(self, q: &[i8; 256], scales: &[i8; 16], x: &[i8; 256]) -> Self::I;

    /// Sixteen codes of each of four rows.
    fn pack(self, rows: [Self::B; 4]) -> Self::W;
    /// Sixteen codes of each of two tokens.
    fn pair(self, tokens: [Self::B; 2]) -> Self::X;
    /// Adds the products of four rows with two tokens, in an order of the tier's own.
    fn products(self, acc: [Self::I; 2], w: &Self::W, x: &Self::X) -> [Self::I; 2];
    /// A factor for each row in the order of [`Vec128::products`].
    fn spread(self, rows: Self::I) -> [Self::I; 2];
    /// From the order of [`Vec128::products`] to a register per token, whose lanes are the rows.
    fn gather(self, acc: [Self::I; 2]) -> [Self::I; 2];

    /// The larger of `acc` and of the magnitudes' bits, in some lanes.
    fn magnitudes(self, acc: Self::I, x: &[f32; LANES]) -> Self::I;
    /// Lanes as an array.
    fn ints(self, x: Self::I) -> [i32; 4];
    /// Rounds `x * inverse`, at most 127.5 in magnitude, to nearest even; returns the sum of the codes.
    fn round(self, x: &[f32; LANES], inverse: f32, q: &mut [i8; LANES]) -> i16;

    /// Integers from memory.
    fn load_i32(self, x: &[i32; 4]) -> Self::I;
    /// Floats below 2^22 to the nearest integers, ties to even.
    fn nearest(self, v: Self::V) -> [Self::I; 4];
    /// Integers as floats.
    fn floats(self, v: [Self::I; 4]) -> Self::V;
    /// Integers that are bytes.
    fn low_bytes(self, v: [Self::I; 4]) -> Self::B;
    /// `v >> 7` and `v & 127`.
    fn split_seven(self, v: Self::I) -> [Self::I; 2];
    /// Adds, to each lane, the dots of its four bytes of each `codes[i]` with bytes `4 i..4 i + 4` of `x`. Codes have
    /// `BITS` bits, at most 7; `x` is never -128.
    fn quads<const BITS: usize>(self, acc: Self::I, codes: [Self::B; 4], x: Self::B) -> Self::I;
    /// Asks for a line of memory, of whatever address, to be in the cache soon.
    #[inline(always)]
    fn prefetch(self, _address: usize) {}
}

/// The matmul of one type, for every tier.
pub(crate) trait Matmul {
    /// Runs a tile; must be `inline(always)`.
    fn run<S: Vec128>(simd: S, tile: &mut Tile<'_>);
}

/// A tier: makes functions of its own out of matmuls.
pub(crate) trait Tier {
    /// `M` compiled for the tier.
    fn tile<M: Matmul>(&self) -> TileFn;
}

/// [`Acts::quantize_block`] of these tiers.
#[inline(always)]
pub(crate) fn quantize_block<S: Vec128>(simd: S, x: &[f32], q: &mut [i8], sums: &mut [i16]) -> f32 {
    // Magnitudes compare like their bits, and those that are not finite are the largest.
    let mut largest = simd.splat_i32(0);
    for x in x.as_chunks().0 {
        largest = simd.magnitudes(largest, x);
    }
    let bits = simd.ints(largest).into_iter().fold(0, i32::max);
    let amax = f32::from_bits(bits.cast_unsigned());
    if !amax.is_finite() || amax < TINY {
        return Acts::quantize_block(x, q, sums);
    }
    let inverse = 127.0 / amax;
    for ((x, q), sum) in x.as_chunks().0.iter().zip(q.as_chunks_mut().0).zip(sums) {
        *sum = simd.round(x, inverse, q);
    }
    amax / 127.0
}

/// The blocks of up to four or eight rows from `first`; a short group repeats its last row.
#[inline(always)]
fn rows<'a, const N: usize, const BYTES: usize>(
    tile: &Tile<'a>,
    first: usize,
    blocks: usize,
) -> [&'a [[u8; BYTES]]; N] {
    std::array::from_fn(|r| &tile.row((first + r).min(tile.rows - 1)).as_chunks().0[..blocks])
}

/// Block `b` of each row.
#[inline(always)]
fn blocks_at<'a, const N: usize, const BYTES: usize>(
    rows: &[&'a [[u8; BYTES]]; N],
    b: usize,
) -> [&'a [u8; BYTES]; N] {
    let mut blocks = [&rows[0][b]; N];
    for (block, row) in blocks.iter_mut().zip(rows) {
        *block = &row[b];
    }
    blocks
}

/// Sixteen codes of a block from `at`.
#[inline(always)]
fn sixteen<T>(codes: &[T], at: usize) -> &[T; 16] {
    &codes[at..][..16].as_chunks().0[0]
}
