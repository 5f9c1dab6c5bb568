//! What a tier brings to the plane codecs: byte vectors, one dot product, rounding; and the way to code compiled for it.
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
