//! The integer heart of the plane codecs: codes times int8, summed exactly.
//!
//! `sums[r][o] = sum over i of code[o][i] * x[r][i]`, for keys with tokens as `o` and channels as `i`, for values the
//! other way round. Written once over [`PlaneOps`]; a tier brings its byte vectors and one dot product.
#![allow(clippy::needless_range_loop, reason = "register tiles: one index walks several arrays")]

use crate::Isa;
use crate::simd::{Portable, Simd};

/// Byte vectors of a tier: `64 / PARTS` bytes, that is `16 / PARTS` outputs of 4 codes.
pub(crate) trait PlaneOps: Copy {
    /// Codes, or bits of them.
    type V: Copy;
    /// Integer sums of `16 / PARTS` outputs.
    type Sums: Copy;
    /// Vectors that 64 bytes make.
    const PARTS: usize;

    /// Part `part` of 64 bytes.
    fn bytes(self, from: &[u8; 64], part: usize) -> Self::V;
    /// Part `part` of a 1-bit vector: byte `l` of 64 has, in its low four bits, its half of byte `l % 32`. The other bits
    /// may hold anything.
    fn bits(self, from: &[u8; 32], part: usize) -> Self::V;
    /// Every byte shifted up by `N`, with anything in the low `N` bits.
    fn up<const N: u32>(self, v: Self::V) -> Self::V;
    /// Every byte shifted down by `N`, with anything in the high `N` bits.
    fn down<const N: u32>(self, v: Self::V) -> Self::V;
    /// Every byte and `mask`.
    fn and(self, v: Self::V, mask: u8) -> Self::V;
    /// Both together.
    fn or(self, a: Self::V, b: Self::V) -> Self::V;
    /// Zero sums.
    fn zero(self) -> Self::Sums;
    /// Adds, to every output, the dot of its 4 bytes of each `codes[i]` with `x[4 i..][..4]`. Codes have `BITS` bits; `x` is
    /// never -128.
    fn dot<const BITS: usize>(self, sums: Self::Sums, codes: [Self::V; 4], x: &[i8; 16]) -> Self::Sums;
    /// Sums to memory.
    fn put(self, sums: Self::Sums, out: &mut [i32]);
}

/// A tier that has floats and planes.
pub(crate) trait PlaneTier: Simd + PlaneOps {}
impl<P: Simd + PlaneOps> PlaneTier for P {}

/// Work of the plane codecs that runs on any tier.
pub(crate) trait PlaneKernel {
    /// The work; must be `inline(always)`.
    fn run<P: PlaneTier>(self, tier: P);
}

/// Runs a kernel compiled for the tier.
pub(super) fn dispatch<K: PlaneKernel>(isa: Isa, kernel: K) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(proof) => crate::x86::avx2::planes::run(proof, kernel),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(proof) => crate::x86::avx512::planes::run(proof, kernel),
        _ => kernel.run(Portable),
    }
}

/// The planes of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlaneMatrix<'a> {
    /// All planes, one after the other.
    pub planes: &'a [u8],
    /// Outputs, a multiple of 16.
    pub outs: usize,
    /// Inputs, a multiple of 16.
    pub ins: usize,
    /// Bits kept.
    pub bits: usize,
}

impl PlaneMatrix<'_> {
    /// `sums[r][outs]` from `x[r][ins]`.
    #[inline(always)]
    pub fn dots<P: PlaneOps>(&self, p: P, x: &[i8], sums: &mut [i32]) {
        match self.bits {
            2 => self.rows::<P, 2>(p, x, sums),
            3 => self.rows::<P, 3>(p, x, sums),
            4 => self.rows::<P, 4>(p, x, sums),
            5 => self.rows::<P, 5>(p, x, sums),
            6 => self.rows::<P, 6>(p, x, sums),
            7 => self.rows::<P, 7>(p, x, sums),
            _ => self.rows::<P, 8>(p, x, sums),
        }
    }

    /// Rows in blocks of 8, 4, 2, 1: codes are unpacked once per block.
    #[inline(always)]
    fn rows<P: PlaneOps, const BITS: usize>(&self, p: P, x: &[i8], sums: &mut [i32]) {
        let (mut x, mut sums) = (x, sums);
        macro_rules! blocks {
            ($($rows:literal)*) => {$(
                while x.len() >= $rows * self.ins {
                    let (these, rest) = x.split_at($rows * self.ins);
                    let (out, rest_out) = sums.split_at_mut($rows * self.outs);
                    self.block::<P, BITS, $rows>(p, these, out);
                    (x, sums) = (rest, rest_out);
                }
            )*};
        }
        blocks!(8 4 2 1);
    }

    #[inline(always)]
    fn block<P: PlaneOps, const BITS: usize, const R: usize>(&self, p: P, x: &[i8], sums: &mut [i32]) {
        let vectors = self.ins / 16;
        let lanes = 16 / P::PARTS;
        let mut rows = [&x.as_chunks::<16>().0[..0]; R];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = &x.as_chunks::<16>().0[r * vectors..][..vectors];
        }
        let planes = Unpack::<BITS>::new(self.planes, self.outs * self.ins);
        for group in 0..self.outs / 16 {
            for part in 0..P::PARTS {
                let mut acc = [p.zero(); R];
                for j in 0..vectors {
                    let codes = planes.unpack(p, group * vectors + j, part);
                    for r in 0..R {
                        acc[r] = p.dot::<BITS>(acc[r], codes, &rows[r][j]);
                    }
                }
                for r in 0..R {
                    p.put(acc[r], &mut sums[r * self.outs + group * 16 + part * lanes..][..lanes]);
                }
            }
        }
    }
}

/// The planes of a page of `BITS` bits.
struct Unpack<'a, const BITS: usize> {
    pairs: [&'a [[u8; 64]]; 4],
    singles: &'a [[u8; 32]],
}

impl<'a, const BITS: usize> Unpack<'a, BITS> {
    #[inline(always)]
    fn new(planes: &'a [u8], codes: usize) -> Self {
        let (size, mut pairs) = (codes / 4, [&planes.as_chunks::<64>().0[..0]; 4]);
        for (i, pair) in pairs.iter_mut().take(BITS / 2).enumerate() {
            *pair = planes[i * size..][..size].as_chunks().0;
        }
        let singles = planes[BITS / 2 * size..][..BITS % 2 * size / 2].as_chunks().0;
        Self { pairs, singles }
    }

    /// Four quads of codes of one vector.
    #[inline(always)]
    fn unpack<P: PlaneOps>(&self, p: P, at: usize, part: usize) -> [P::V; 4] {
        let pair = |i: usize| p.bytes(&self.pairs[i][at], part);
        // two pairs as nibbles: quads 0 and 2 in the low and high half of the first, 1 and 3 of the second
        let nibbles = |high: P::V, low: P::V| {
            [
                p.or(p.and(p.up::<2>(high), 0xCC), p.and(low, 0x33)),
                p.or(p.and(high, 0xCC), p.and(p.down::<2>(low), 0x33)),
            ]
        };
        let codes = match BITS {
            2 | 3 => {
                let v = pair(0);
                [p.and(v, 3), p.and(p.down::<2>(v), 3), p.and(p.down::<4>(v), 3), p.and(p.down::<6>(v), 3)]
            }
            4 | 5 => {
                let [a, b] = nibbles(pair(0), pair(1));
                [p.and(a, 15), p.and(b, 15), p.and(p.down::<4>(a), 15), p.and(p.down::<4>(b), 15)]
            }
            6 | 7 => {
                let [a, b] = nibbles(pair(0), pair(1));
                let low = pair(2);
                [
                    p.or(p.and(p.up::<2>(a), 0x3C), p.and(low, 3)),
                    p.or(p.and(p.up::<2>(b), 0x3C), p.and(p.down::<2>(low), 3)),
                    p.or(p.and(p.down::<2>(a), 0x3C), p.and(p.down::<4>(low), 3)),
                    p.or(p.and(p.down::<2>(b), 0x3C), p.and(p.down::<6>(low), 3)),
                ]
            }
            _ => {
                let [a, b] = nibbles(pair(0), pair(1));
                let [c, d] = nibbles(pair(2), pair(3));
                [
                    p.or(p.and(p.up::<4>(a), 0xF0), p.and(c, 15)),
                    p.or(p.and(p.up::<4>(b), 0xF0), p.and(d, 15)),
                    p.or(p.and(a, 0xF0), p.and(p.down::<4>(c), 15)),
                    p.or(p.and(b, 0xF0), p.and(p.down::<4>(d), 15)),
                ]
            }
        };
        if BITS.is_multiple_of(2) {
            return codes;
        }
        let single = p.bits(&self.singles[at], part);
        let mask = (1u8 << (BITS - 1)).wrapping_mul(2).wrapping_sub(2);
        [
            p.or(p.and(p.up::<1>(codes[0]), mask), p.and(single, 1)),
            p.or(p.and(p.up::<1>(codes[1]), mask), p.and(p.down::<1>(single), 1)),
            p.or(p.and(p.up::<1>(codes[2]), mask), p.and(p.down::<2>(single), 1)),
            p.or(p.and(p.up::<1>(codes[3]), mask), p.and(p.down::<3>(single), 1)),
        ]
    }
}

/// Packs `code(out, quad)`, four codes of successive inputs from `4 * quad` on as bytes of a word, into the planes that
/// fit; codes have `bits` bits.
#[inline(always)]
pub(super) fn pack(
    codes: impl Fn(usize, usize) -> u32,
    [outs, ins]: [usize; 2],
    bits: usize,
    planes: &mut [u8],
) {
    let vectors = ins / 16;
    let size = outs * ins / 4;
    for (plane, bytes) in planes.chunks_mut(size).enumerate() {
        if 2 * plane + 1 < bits {
            let shift = bits - 2 * (plane + 1);
            for (v, vector) in bytes.as_chunks_mut::<64>().0.iter_mut().enumerate() {
                let (out, quad) = (v / vectors * 16, v % vectors * 4);
                for (o, word) in vector.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    let field = |i: usize| (codes(out + o, quad + i) >> shift & 0x0303_0303) << (2 * i);
                    *word = (field(0) | field(1) | field(2) | field(3)).to_le_bytes();
                }
            }
        } else {
            for (v, vector) in bytes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let (out, quad) = (v / vectors * 16, v % vectors * 4);
                for (o, word) in vector.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    let field = |i: usize| {
                        let low = codes(out + o, quad + i) & 0x0101_0101;
                        let high = codes(out + o + 8, quad + i) & 0x0101_0101;
                        low << i | high << (i + 4)
                    };
                    *word = (field(0) | field(1) | field(2) | field(3)).to_le_bytes();
                }
            }
        }
    }
}

/// One code: the layout in one expression.
pub(super) fn code(planes: &[u8], [outs, ins]: [usize; 2], bits: usize, out: usize, input: usize) -> u8 {
    let (size, vector) = (outs * ins / 4, out / 16 * (ins / 16) + input / 16);
    let (lane, quad) = (out % 16 * 4 + input % 4, input % 16 / 4);
    let mut code = 0;
    for pair in 0..bits / 2 {
        code = code << 2 | planes[pair * size + vector * 64 + lane] >> (2 * quad) & 3;
    }
    if !bits.is_multiple_of(2) {
        let byte = planes[bits / 2 * size + vector * 32 + lane % 32];
        code = code << 1 | byte >> (quad + lane / 32 * 4) & 1;
    }
    code
}

impl PlaneOps for Portable {
    type V = [u64; 8];
    type Sums = [i32; 16];
    const PARTS: usize = 1;

    #[inline(always)]
    fn bytes(self, from: &[u8; 64], _part: usize) -> Self::V {
        std::array::from_fn(|i| u64::from_le_bytes(from.as_chunks::<8>().0[i]))
    }

    #[inline(always)]
    fn bits(self, from: &[u8; 32], _part: usize) -> Self::V {
        std::array::from_fn(|i| u64::from_le_bytes(from.as_chunks::<8>().0[i % 4]) >> (i / 4 * 4))
    }

    #[inline(always)]
    fn up<const N: u32>(self, v: Self::V) -> Self::V {
        v.map(|v| v << N)
    }

    #[inline(always)]
    fn down<const N: u32>(self, v: Self::V) -> Self::V {
        v.map(|v| v >> N)
    }

    #[inline(always)]
    fn and(self, v: Self::V, mask: u8) -> Self::V {
        v.map(|v| v & u64::from_le_bytes([mask; 8]))
    }

    #[inline(always)]
    fn or(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        [0; 16]
    }

    #[inline(always)]
    fn dot<const BITS: usize>(self, mut sums: Self::Sums, codes: [Self::V; 4], x: &[i8; 16]) -> Self::Sums {
        for (codes, x) in codes.iter().zip(x.as_chunks::<4>().0) {
            for (i, word) in codes.iter().enumerate() {
                let bytes = word.to_le_bytes();
                for (l, byte) in bytes.iter().enumerate() {
                    sums[2 * i + l / 4] += i32::from(*byte) * i32::from(x[l % 4]);
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn put(self, sums: Self::Sums, out: &mut [i32]) {
        out.copy_from_slice(&sums);
    }
}
