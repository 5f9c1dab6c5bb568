//! How codes lie in planes, and the way out of them: see the module above for the layout.

use super::ops::PlaneOps;

/// The planes of a page of `BITS` bits.
#[derive(Clone, Copy)]
pub(super) struct Unpack<'a, const BITS: usize> {
    pairs: [&'a [[u8; 64]]; 4],
    singles: &'a [[u8; 32]],
}

impl<'a, const BITS: usize> Unpack<'a, BITS> {
    #[inline(always)]
    pub fn new(planes: &'a [u8], codes: usize) -> Self {
        let (size, mut pairs) = (codes / 4, [&planes.as_chunks::<64>().0[..0]; 4]);
        for (i, pair) in pairs.iter_mut().take(BITS / 2).enumerate() {
            *pair = planes[i * size..][..size].as_chunks().0;
        }
        let singles = planes[BITS / 2 * size..][..BITS % 2 * size / 2].as_chunks().0;
        Self { pairs, singles }
    }

    /// `len` vectors from `at` on.
    #[inline(always)]
    pub fn of(&self, at: usize, len: usize) -> Self {
        let mut pairs = [&self.pairs[0][..0]; 4];
        for (pair, all) in pairs.iter_mut().zip(self.pairs).take(BITS / 2) {
            *pair = &all[at..][..len];
        }
        let singles = if BITS.is_multiple_of(2) { self.singles } else { &self.singles[at..][..len] };
        Self { pairs, singles }
    }

    /// Four quads of codes of one vector.
    #[inline(always)]
    pub fn unpack<P: PlaneOps>(&self, p: P, at: usize, part: usize) -> [P::Bytes; 4] {
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
