//! The integer heart of the plane codecs: codes times int8, summed exactly.
//!
//! `sums[r][o] = sum over i of code[o][i] * x[r][i]`, for keys with tokens as `o` and channels as `i`, for values the
//! other way round. Written once over [`PlaneOps`]; a tier brings its byte vectors and one dot product.
#![allow(clippy::needless_range_loop, reason = "register tiles: one index walks several arrays")]

use crate::Isa;
use crate::simd::{LANES, Portable, Simd};

/// Byte vectors of a tier: `64 / PARTS` bytes, that is `16 / PARTS` outputs of 4 codes.
pub(crate) trait PlaneOps: Simd {
    /// Codes, or bits of them.
    type Bytes: Copy;
    /// Sixteen i32.
    type Ints: Copy;
    /// Integer sums of `16 / PARTS` outputs.
    type Sums: Copy;
    /// Vectors that 64 bytes make.
    const PARTS: usize;
    /// Whether codes of 4 bits come to [`PlaneOps::dot`] as they lie: the third and fourth of the quads times 16, which
    /// [`PlaneOps::put`] takes back.
    const HIGH_NIBBLES: bool = false;

    /// Part `part` of 64 bytes.
    fn bytes(self, from: &[u8; 64], part: usize) -> Self::Bytes;
    /// Part `part` of a 1-bit vector: byte `l` of 64 has, in its low four bits, its half of byte `l % 32`. The other bits
    /// may hold anything.
    fn bits(self, from: &[u8; 32], part: usize) -> Self::Bytes;
    /// Every byte shifted up by `N`, with anything in the low `N` bits.
    fn up<const N: u32>(self, v: Self::Bytes) -> Self::Bytes;
    /// Every byte shifted down by `N`, with anything in the high `N` bits.
    fn down<const N: u32>(self, v: Self::Bytes) -> Self::Bytes;
    /// Every byte and `mask`.
    fn and(self, v: Self::Bytes, mask: u8) -> Self::Bytes;
    /// Both together.
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Zero sums.
    fn zero(self) -> Self::Sums;
    /// Adds, to every output, the dot of its 4 bytes of each `codes[i]` with `x[4 i..][..4]`. Codes have `BITS` bits; `x` is
    /// never -128.
    fn dot<const BITS: usize>(self, sums: Self::Sums, codes: [Self::Bytes; 4], x: &[i8; 16]) -> Self::Sums;
    /// Sums to memory.
    fn put<const BITS: usize>(self, sums: Self::Sums, out: &mut [i32]);

    /// Floats below 2^22 to the nearest integers, ties to even.
    fn round(self, v: Self::V) -> Self::Ints;
    /// Integers from memory.
    fn load_ints(self, x: &[i32; LANES]) -> Self::Ints;
    /// The same integer in all lanes.
    fn splat_int(self, x: i32) -> Self::Ints;
    /// `(a << N) + b`.
    fn shift_add<const N: u32>(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Integers as floats.
    fn float(self, v: Self::Ints) -> Self::V;
    /// The low bytes.
    fn narrow(self, v: Self::Ints, out: &mut [i8; 16]);
    /// Integers from 0 to 255 as bytes.
    #[inline(always)]
    fn narrow_codes(self, v: Self::Ints, out: &mut [u8; 16]) {
        let mut signed = [0; 16];
        self.narrow(self.shift_add::<0>(v, self.splat_int(-128)), &mut signed);
        for i in 0..16 {
            out[i] = signed[i].cast_unsigned() ^ 0x80;
        }
    }
    /// [`PlaneOps::narrow`] of four.
    #[inline(always)]
    fn narrow_four(self, v: [Self::Ints; 4], out: &mut [i8; 64]) {
        let out = out.as_chunks_mut().0;
        for i in 0..4 {
            self.narrow(v[i], &mut out[i]);
        }
    }
    /// [`PlaneOps::split`] of four, then both parts narrowed. No magnitude is above 16256.
    #[inline(always)]
    fn split_four(self, v: [Self::Ints; 4], high: &mut [i8; 64], low: &mut [i8; 64]) {
        let (high, low) = (high.as_chunks_mut().0, low.as_chunks_mut().0);
        for i in 0..4 {
            let parts = self.split(v[i]);
            self.narrow(parts[0], &mut high[i]);
            self.narrow(parts[1], &mut low[i]);
        }
    }
    /// `v >> 7` and `v & 127`.
    fn split(self, v: Self::Ints) -> [Self::Ints; 2];

    /// The largest lane of each of four vectors, none of them NaN.
    #[inline(always)]
    fn largest(self, v: [Self::V; 4]) -> [f32; 4] {
        v.map(|v| {
            let mut lanes = self.lanes(v);
            for step in [8, 4, 2, 1] {
                for i in 0..step {
                    lanes[i] = if lanes[i + step] > lanes[i] { lanes[i + step] } else { lanes[i] };
                }
            }
            lanes[0]
        })
    }

    /// Asks for a line of memory, of whatever address, to be in the cache soon.
    #[inline(always)]
    fn prefetch(self, _address: usize) {}
}

/// Memory that will be read soon.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Memory {
    start: usize,
    lines: usize,
}

impl From<&[u8]> for Memory {
    fn from(bytes: &[u8]) -> Self {
        Self { start: bytes.as_ptr().addr(), lines: bytes.len().div_ceil(64) }
    }
}

impl Memory {
    /// The first lines, and the others.
    pub fn split(self, lines: usize) -> [Self; 2] {
        let lines = lines.min(self.lines);
        let after = Self { start: self.start.wrapping_add(64 * lines), lines: self.lines - lines };
        [Self { lines, ..self }, after]
    }

    /// Asks for the next `lines`.
    #[inline(always)]
    fn fetch<P: PlaneOps>(&mut self, p: P, lines: usize) -> usize {
        let lines = lines.min(self.lines);
        for _ in 0..lines {
            p.prefetch(self.start);
            self.start = self.start.wrapping_add(64);
        }
        self.lines -= lines;
        lines
    }
}

/// What a row of integers means.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Quantized {
    /// Value of one step.
    pub step: f32,
    /// Sum of the integers.
    pub sum: i32,
    /// Sum of the numbers themselves, weighted.
    pub side: f32,
}

/// Work of the plane codecs that runs on any tier.
pub(crate) trait PlaneKernel {
    /// The work; must be `inline(always)`.
    fn run<P: PlaneOps>(self, tier: P);
}

/// Runs a kernel compiled for the tier.
pub(super) fn dispatch<K: PlaneKernel>(isa: Isa, kernel: K) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(proof) => crate::x86::avx2::planes::run(proof, kernel),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni(proof) => crate::x86::avx2::planes::run_vnni(proof, kernel),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(proof) => crate::x86::avx512::planes::run(proof, kernel),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(proof) => crate::arm::neon::planes(proof, kernel),
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Isa::Simd128(proof) => kernel.run(proof),
        _ => kernel.run(Portable),
    }
}

/// Takes the sums of a row with sixteen outputs.
pub(super) trait Fold: Copy {
    /// Rows of integers that make a row of it.
    const PARTS: usize;
    /// The bits of the planes that it is for.
    const MIN_BITS: usize;
    const MAX_BITS: usize;
    /// What belongs to sixteen outputs, whatever the row.
    type Scales<P: PlaneOps>: Copy;

    /// The scales of outputs `16 group` and on.
    fn scales<P: PlaneOps>(self, p: P, group: usize) -> Self::Scales<P>;
    /// `sums` are those of the row's parts with the outputs; must be `inline(always)`.
    fn fold<P: PlaneOps>(
        self,
        p: P,
        row: &Quantized,
        scales: Self::Scales<P>,
        sums: &[[i32; LANES]],
        out: &mut [f32; LANES],
    );
}

/// The planes of a page times rows of integers: codes as they lie.
pub(super) struct Dots<'a, F> {
    /// All planes, one after the other.
    pub planes: &'a [u8],
    /// Outputs, a multiple of 16.
    pub outs: usize,
    /// Inputs, a multiple of 16.
    pub ins: usize,
    /// Bits kept.
    pub bits: usize,
    /// `[row][part][ins]`.
    pub x: &'a [i8],
    /// What the integers of a row mean.
    pub rows: &'a [Quantized],
    /// Fetched meanwhile.
    pub ahead: [Memory; 2],
    pub fold: F,
    /// `[row]`, `stride` apart, of `outs` each.
    pub out: &'a mut [f32],
    pub stride: usize,
}

impl<F: Fold> Dots<'_, F> {
    #[inline(always)]
    pub fn run<P: PlaneOps>(self, p: P) {
        macro_rules! of {
            ($($bits:literal)*) => {
                match self.bits {
                    $($bits if F::MIN_BITS <= $bits && $bits <= F::MAX_BITS => self.blocks::<P, $bits>(p),)*
                    bits => unreachable!("planes of {bits} bits"),
                }
            };
        }
        of!(2 3 4 5 6 7 8);
    }

    /// Rows in blocks of 8, 4, 2, 1 of integers: codes are unpacked once per block.
    #[inline(always)]
    fn blocks<P: PlaneOps, const BITS: usize>(mut self, p: P) {
        let mut first = 0;
        macro_rules! blocks {
            ($($rows:literal)*) => {$(
                while $rows % F::PARTS == 0 && (self.rows.len() - first) * F::PARTS >= $rows {
                    self.block::<P, BITS, $rows>(p, first);
                    first += $rows / F::PARTS;
                }
            )*};
        }
        blocks!(8 4 2 1);
    }

    #[inline(always)]
    fn block<P: PlaneOps, const BITS: usize, const R: usize>(&mut self, p: P, first: usize) {
        let (vectors, groups, count) = (self.ins / 16, self.outs / 16, R / F::PARTS);
        let lanes = 16 / P::PARTS;
        let lines = (self.ahead[0].lines + self.ahead[1].lines).div_ceil(groups);
        let x = &self.x.as_chunks::<16>().0[first * F::PARTS * vectors..];
        let mut parts = [&x[..0]; R];
        for (r, part) in parts.iter_mut().enumerate() {
            *part = &x[r * vectors..][..vectors];
        }
        let rows = &self.rows[first..first + count];
        let planes = Unpack::<BITS>::new(self.planes, self.outs * self.ins);
        for group in 0..groups {
            let left = lines - self.ahead[0].fetch(p, lines);
            self.ahead[1].fetch(p, left);
            let planes = planes.of(group * vectors, vectors);
            let mut sums = [[0; LANES]; R];
            for part in 0..P::PARTS {
                let mut acc = [p.zero(); R];
                for j in 0..vectors {
                    let codes = planes.unpack(p, j, part);
                    for r in 0..R {
                        acc[r] = p.dot::<BITS>(acc[r], codes, &parts[r][j]);
                    }
                }
                for r in 0..R {
                    p.put::<BITS>(acc[r], &mut sums[r][part * lanes..][..lanes]);
                }
            }
            let scales = self.fold.scales(p, group);
            for r in 0..count {
                let sums = &sums[r * F::PARTS..][..F::PARTS];
                let out = &mut self.out[(first + r) * self.stride + group * LANES..];
                self.fold.fold(p, &rows[r], scales, sums, &mut out.as_chunks_mut().0[0]);
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

    /// `len` vectors from `at` on.
    #[inline(always)]
    fn of(&self, at: usize, len: usize) -> Self {
        let mut pairs = [&self.pairs[0][..0]; 4];
        for (pair, all) in pairs.iter_mut().zip(self.pairs).take(BITS / 2) {
            *pair = &all[at..][..len];
        }
        let singles = if BITS.is_multiple_of(2) { self.singles } else { &self.singles[at..][..len] };
        Self { pairs, singles }
    }

    /// Four quads of codes of one vector.
    #[inline(always)]
    fn unpack<P: PlaneOps>(&self, p: P, at: usize, part: usize) -> [P::Bytes; 4] {
        let first = p.bytes(&self.pairs[0][at], part);
        let codes = match BITS {
            2 | 3 => [first, p.down::<2>(first), p.down::<4>(first), p.down::<6>(first)],
            4 | 5 => {
                let [a, b] = nibbles(p, first, p.bytes(&self.pairs[1][at], part));
                if BITS == 4 && P::HIGH_NIBBLES {
                    return [p.and(a, 15), p.and(b, 15), p.and(a, 0xF0), p.and(b, 0xF0)];
                }
                [a, b, p.down::<4>(a), p.down::<4>(b)]
            }
            6 | 7 => {
                let [a, b] = nibbles(p, first, p.bytes(&self.pairs[1][at], part));
                let low = p.bytes(&self.pairs[2][at], part);
                [
                    join(p, 3, p.up::<2>(a), low),
                    join(p, 3, p.up::<2>(b), p.down::<2>(low)),
                    join(p, 3, p.down::<2>(a), p.down::<4>(low)),
                    join(p, 3, p.down::<2>(b), p.down::<6>(low)),
                ]
            }
            _ => {
                let [a, b] = nibbles(p, first, p.bytes(&self.pairs[1][at], part));
                let [c, d] = nibbles(p, p.bytes(&self.pairs[2][at], part), p.bytes(&self.pairs[3][at], part));
                return [
                    join(p, 15, p.up::<4>(a), c),
                    join(p, 15, p.up::<4>(b), d),
                    join(p, 15, a, p.down::<4>(c)),
                    join(p, 15, b, p.down::<4>(d)),
                ];
            }
        };
        let mask = ((1u16 << BITS) - 1) as u8;
        if BITS.is_multiple_of(2) {
            let [a, b, c, d] = codes;
            return [p.and(a, mask), p.and(b, mask), p.and(c, mask), p.and(d, mask)];
        }
        let single = p.bits(&self.singles[at], part);
        let [a, b, c, d] = codes;
        [
            p.and(join(p, 1, p.up::<1>(a), single), mask),
            p.and(join(p, 1, p.up::<1>(b), p.down::<1>(single)), mask),
            p.and(join(p, 1, p.up::<1>(c), p.down::<2>(single)), mask),
            p.and(join(p, 1, p.up::<1>(d), p.down::<3>(single)), mask),
        ]
    }
}

/// The bits of `low` in `mask`, the others of `high`.
#[inline(always)]
fn join<P: PlaneOps>(p: P, mask: u8, high: P::Bytes, low: P::Bytes) -> P::Bytes {
    p.or(p.and(high, !mask), p.and(low, mask))
}

/// Two planes as nibbles: quads 0 and 2 in the low and high half of the first result, 1 and 3 of the second.
#[inline(always)]
fn nibbles<P: PlaneOps>(p: P, high: P::Bytes, low: P::Bytes) -> [P::Bytes; 2] {
    [join(p, 0x33, p.up::<2>(high), low), join(p, 0x33, high, p.down::<2>(low))]
}

/// Packs codes of `bits` bits, `[out][in]` in words of four, into the planes that fit.
pub(super) fn pack(words: &[[u8; 4]], [outs, ins]: [usize; 2], bits: usize, planes: &mut [u8]) {
    let (vectors, quads) = (ins / 16, ins / 4);
    let codes = |out: usize, quad: usize| u32::from_le_bytes(words[out * quads + quad]);
    for (plane, bytes) in planes.chunks_mut(outs * ins / 4).enumerate() {
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
    type Bytes = [u64; 8];
    type Ints = [i32; 16];
    type Sums = [i32; 16];
    const PARTS: usize = 1;

    #[inline(always)]
    fn bytes(self, from: &[u8; 64], _part: usize) -> Self::Bytes {
        std::array::from_fn(|i| u64::from_le_bytes(from.as_chunks::<8>().0[i]))
    }

    #[inline(always)]
    fn bits(self, from: &[u8; 32], _part: usize) -> Self::Bytes {
        std::array::from_fn(|i| u64::from_le_bytes(from.as_chunks::<8>().0[i % 4]) >> (i / 4 * 4))
    }

    #[inline(always)]
    fn up<const N: u32>(self, v: Self::Bytes) -> Self::Bytes {
        v.map(|v| v << N)
    }

    #[inline(always)]
    fn down<const N: u32>(self, v: Self::Bytes) -> Self::Bytes {
        v.map(|v| v >> N)
    }

    #[inline(always)]
    fn and(self, v: Self::Bytes, mask: u8) -> Self::Bytes {
        v.map(|v| v & u64::from_le_bytes([mask; 8]))
    }

    #[inline(always)]
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        [0; 16]
    }

    #[inline(always)]
    fn dot<const BITS: usize>(
        self,
        mut sums: Self::Sums,
        codes: [Self::Bytes; 4],
        x: &[i8; 16],
    ) -> Self::Sums {
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
    fn put<const BITS: usize>(self, sums: Self::Sums, out: &mut [i32]) {
        out.copy_from_slice(&sums);
    }

    #[inline(always)]
    fn round(self, v: <Self as Simd>::V) -> [i32; 16] {
        // 1.5 * 2^23: adding it rounds to an integer and leaves that integer in the low bits
        const ROUND: f32 = 12_582_912.0;
        v.map(|x| ((x + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32))
    }

    #[inline(always)]
    fn load_ints(self, x: &[i32; LANES]) -> [i32; 16] {
        *x
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> [i32; 16] {
        [x; LANES]
    }

    #[inline(always)]
    fn shift_add<const N: u32>(self, a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|i| (a[i] << N).wrapping_add(b[i]))
    }

    #[inline(always)]
    fn float(self, v: [i32; 16]) -> [f32; 16] {
        v.map(|v| v as f32)
    }

    #[inline(always)]
    fn narrow(self, v: [i32; 16], out: &mut [i8; 16]) {
        *out = v.map(|v| v as i8);
    }

    #[inline(always)]
    fn split(self, v: [i32; 16]) -> [[i32; 16]; 2] {
        [v.map(|v| v >> 7), v.map(|v| v & 127)]
    }
}
