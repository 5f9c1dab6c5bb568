//! The plane codecs on registers of 128 bits: a quarter of 64 codes in each.

use super::Vec128;
use crate::codecs::planes::PlaneOps;
use crate::simd::LANES;

impl<S: Vec128> PlaneOps for S {
    type Bytes = S::B;
    type Ints = [S::I; 4];
    type Sums = S::I;
    const PARTS: usize = 4;

    #[inline(always)]
    fn bytes(self, from: &[u8; 64], part: usize) -> S::B {
        self.load_u8(&from.as_chunks::<16>().0[part])
    }

    #[inline(always)]
    fn bits(self, from: &[u8; 32], part: usize) -> S::B {
        let bits = self.load_u8(&from.as_chunks::<16>().0[part % 2]);
        if part < 2 { bits } else { self.shr::<4>(bits) }
    }

    #[inline(always)]
    fn up<const N: u32>(self, v: S::B) -> S::B {
        match N {
            1 => self.shl::<1>(v),
            2 => self.shl::<2>(v),
            4 => self.shl::<4>(v),
            _ => unreachable!(),
        }
    }

    #[inline(always)]
    fn down<const N: u32>(self, v: S::B) -> S::B {
        match N {
            1 => self.shr::<1>(v),
            2 => self.shr::<2>(v),
            3 => self.shr::<3>(v),
            4 => self.shr::<4>(v),
            6 => self.shr::<6>(v),
            _ => unreachable!(),
        }
    }

    #[inline(always)]
    fn and(self, v: S::B, mask: u8) -> S::B {
        Vec128::and(self, v, self.splat_u8(mask))
    }

    #[inline(always)]
    fn or(self, a: S::B, b: S::B) -> S::B {
        Vec128::or(self, a, b)
    }

    #[inline(always)]
    fn zero(self) -> S::I {
        self.splat_i32(0)
    }

    #[inline(always)]
    fn dot<const BITS: usize>(self, sums: S::I, codes: [S::B; 4], x: &[i8; 16]) -> S::I {
        let x = self.load_i8(x);
        if BITS < 8 {
            return self.quads::<BITS>(sums, codes, x);
        }
        // the products are of signed bytes: the top bit apart
        let low = four!(i => PlaneOps::and(self, codes[i], 127));
        let top = four!(i => self.shr::<7>(codes[i]));
        let top = self.quads::<1>(self.splat_i32(0), top, x);
        self.mul_add_i32(top, self.splat_i32(128), self.quads::<7>(sums, low, x))
    }

    #[inline(always)]
    fn put<const BITS: usize>(self, sums: S::I, out: &mut [i32]) {
        out.copy_from_slice(&self.ints(sums));
    }

    #[inline(always)]
    fn round(self, v: S::V) -> [S::I; 4] {
        self.nearest(v)
    }

    #[inline(always)]
    fn load_ints(self, x: &[i32; LANES]) -> [S::I; 4] {
        let x = x.as_chunks::<4>().0;
        four!(i => self.load_i32(&x[i]))
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> [S::I; 4] {
        [self.splat_i32(x); 4]
    }

    #[inline(always)]
    fn shift_add<const N: u32>(self, a: [S::I; 4], b: [S::I; 4]) -> [S::I; 4] {
        let factor = self.splat_i32(1 << N);
        four!(i => self.mul_add_i32(a[i], factor, b[i]))
    }

    #[inline(always)]
    fn float(self, v: [S::I; 4]) -> S::V {
        self.floats(v)
    }

    #[inline(always)]
    fn narrow(self, v: [S::I; 4], out: &mut [i8; 16]) {
        *out = Vec128::bytes(self, self.low_bytes(v));
    }

    #[inline(always)]
    fn split(self, v: [S::I; 4]) -> [[S::I; 4]; 2] {
        let parts = four!(i => self.split_seven(v[i]));
        [four!(i => parts[i][0]), four!(i => parts[i][1])]
    }

    #[inline(always)]
    fn prefetch(self, address: usize) {
        Vec128::prefetch(self, address);
    }
}
