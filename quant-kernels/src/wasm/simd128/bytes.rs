//! Integers in registers of 128 bits.

use super::simd::widen;
use crate::isa::Simd128;
use crate::simd::LANES;
use crate::vec128::{Vec128, four, two};
use std::arch::wasm32::*;

impl Vec128 for Simd128 {
    type B = v128;
    type I = v128;
    /// Register `k`: values 2 k and 2 k + 1 of each row, in i16.
    type W = [v128; 8];
    /// In i16: the halves of each token.
    type X = [[v128; 2]; 2];
    const PAIRS: usize = 1;

    #[inline(always)]
    fn load_u8(self, x: &[u8; 16]) -> v128 {
        // SAFETY: sixteen bytes.
        unsafe { v128_load(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; 16]) -> v128 {
        // SAFETY: sixteen bytes.
        unsafe { v128_load(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn bytes(self, x: v128) -> [i8; 16] {
        let mut out = [0; 16];
        // SAFETY: sixteen bytes.
        unsafe { v128_store(out.as_mut_ptr().cast(), x) };
        out
    }

    #[inline(always)]
    fn splat_u8(self, x: u8) -> v128 {
        u8x16_splat(x)
    }

    #[inline(always)]
    fn and(self, a: v128, b: v128) -> v128 {
        v128_and(a, b)
    }

    #[inline(always)]
    fn or(self, a: v128, b: v128) -> v128 {
        v128_or(a, b)
    }

    #[inline(always)]
    fn sub_bytes(self, a: v128, b: v128) -> v128 {
        i8x16_sub(a, b)
    }

    #[inline(always)]
    fn shl<const N: i32>(self, x: v128) -> v128 {
        u8x16_shl(x, N.cast_unsigned())
    }

    #[inline(always)]
    fn shr<const N: i32>(self, x: v128) -> v128 {
        u8x16_shr(x, N.cast_unsigned())
    }

    #[inline(always)]
    fn lookup(self, table: v128, index: v128) -> v128 {
        i8x16_swizzle(table, index)
    }

    #[inline(always)]
    fn widen_half(self, bits: u16) -> f32 {
        f32x4_extract_lane::<0>(widen(u32x4_splat(u32::from(bits))))
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> v128 {
        i32x4_splat(x)
    }

    #[inline(always)]
    fn mul_add_i32(self, a: v128, b: v128, c: v128) -> v128 {
        i32x4_add(i32x4_mul(a, b), c)
    }

    #[inline(always)]
    fn across(self, v: [v128; 4]) -> v128 {
        let halves = |a, b| i32x4_add(i32x4_shuffle::<0, 1, 4, 5>(a, b), i32x4_shuffle::<2, 3, 6, 7>(a, b));
        let (first, second) = (halves(v[0], v[1]), halves(v[2], v[3]));
        i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(first, second), i32x4_shuffle::<1, 3, 5, 7>(first, second))
    }

    #[inline(always)]
    fn columns(self, rows: [v128; 4]) -> [v128; 16] {
        let bytes = four!(r => self.bytes(rows[r]));
        let mut columns = [i32x4_splat(0); 16];
        for (j, column) in columns.iter_mut().enumerate() {
            let [a, b, c, d] = four!(r => i32::from(bytes[r][j]));
            *column = i32x4(a, b, c, d);
        }
        columns
    }

    #[inline(always)]
    fn fold(self, acc: &mut [f32; 4], d: &[f32; 4], dx: f32, isum: v128) {
        // SAFETY: four values each.
        unsafe {
            let scale = f32x4_mul(v128_load(d.as_ptr().cast()), f32x4_splat(dx));
            let product = f32x4_mul(scale, f32x4_convert_i32x4(isum));
            let sum = f32x4_add(v128_load(acc.as_ptr().cast()), product);
            v128_store(acc.as_mut_ptr().cast(), sum);
        }
    }

    #[inline(always)]
    fn dot16(self, acc: v128, w: v128, x: v128) -> v128 {
        let low = i32x4_dot_i16x8(i16x8_extend_low_i8x16(w), i16x8_extend_low_i8x16(x));
        let high = i32x4_dot_i16x8(i16x8_extend_high_i8x16(w), i16x8_extend_high_i8x16(x));
        i32x4_add(acc, i32x4_add(low, high))
    }

    #[inline(always)]
    fn dot256(self, q: &[i8; 256], scales: &[i8; 16], x: &[i8; 256]) -> v128 {
        let mut isum = i32x4_splat(0);
        for ((q, x), &scale) in q.as_chunks().0.iter().zip(x.as_chunks().0).zip(scales) {
            let (q, x) = (self.load_i8(q), self.load_i8(x));
            // Two products fit in i16: |q| is at most 128 and |x| at most 127.
            let sums = i16x8_add(i16x8_extmul_low_i8x16(q, x), i16x8_extmul_high_i8x16(q, x));
            isum = i32x4_add(isum, i32x4_dot_i16x8(sums, i16x8_splat(i16::from(scale))));
        }
        isum
    }

    #[inline(always)]
    fn pack(self, rows: [v128; 4]) -> [v128; 8] {
        let even_low = i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(rows[0], rows[2]);
        let even_high = i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(rows[0], rows[2]);
        let odd_low = i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(rows[1], rows[3]);
        let odd_high = i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(rows[1], rows[3]);
        let pairs = [
            i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(even_low, odd_low),
            i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(even_low, odd_low),
            i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(even_high, odd_high),
            i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(even_high, odd_high),
        ];
        let mut words = [pairs[0]; 8];
        for (words, &pair) in words.as_chunks_mut().0.iter_mut().zip(&pairs) {
            *words = [i16x8_extend_low_i8x16(pair), i16x8_extend_high_i8x16(pair)];
        }
        words
    }

    #[inline(always)]
    fn pair(self, tokens: [v128; 2]) -> [[v128; 2]; 2] {
        two!(t => [i16x8_extend_low_i8x16(tokens[t]), i16x8_extend_high_i8x16(tokens[t])])
    }

    #[inline(always)]
    fn products(self, acc: [v128; 2], w: &[v128; 8], x: &[[v128; 2]; 2]) -> [v128; 2] {
        two!(t => {
            let low = eight_values(acc[t], &w.as_chunks().0[0], x[t][0]);
            eight_values(low, &w.as_chunks().0[1], x[t][1])
        })
    }

    #[inline(always)]
    fn spread(self, rows: v128) -> [v128; 2] {
        [rows, rows]
    }

    #[inline(always)]
    fn gather(self, acc: [v128; 2]) -> [v128; 2] {
        acc
    }

    #[inline(always)]
    fn magnitudes(self, acc: v128, x: &[f32; LANES]) -> v128 {
        let mut acc = acc;
        for x in x.as_chunks::<4>().0 {
            // SAFETY: four values.
            acc = i32x4_max(acc, f32x4_abs(unsafe { v128_load(x.as_ptr().cast()) }));
        }
        acc
    }

    #[inline(always)]
    fn ints(self, x: v128) -> [i32; 4] {
        let mut out = [0; 4];
        // SAFETY: four values.
        unsafe { v128_store(out.as_mut_ptr().cast(), x) };
        out
    }

    #[inline(always)]
    fn round(self, x: &[f32; LANES], inverse: f32, q: &mut [i8; LANES]) -> i16 {
        let x = x.as_chunks::<4>().0;
        let inverse = f32x4_splat(inverse);
        let x = four!(i => {
            // SAFETY: four values.
            let x = unsafe { v128_load(x[i].as_ptr().cast()) };
            i32x4_trunc_sat_f32x4(f32x4_nearest(f32x4_mul(x, inverse)))
        });
        let codes = i8x16_narrow_i16x8(i16x8_narrow_i32x4(x[0], x[1]), i16x8_narrow_i32x4(x[2], x[3]));
        *q = self.bytes(codes);
        let sums = self.ints(i32x4_extadd_pairwise_i16x8(i16x8_extadd_pairwise_i8x16(codes)));
        sums.iter().sum::<i32>() as i16
    }

    #[inline(always)]
    fn load_i32(self, x: &[i32; 4]) -> v128 {
        // SAFETY: four values.
        unsafe { v128_load(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn nearest(self, v: Self::V) -> [v128; 4] {
        four!(i => i32x4_trunc_sat_f32x4(f32x4_nearest(v[i])))
    }

    #[inline(always)]
    fn floats(self, v: [v128; 4]) -> Self::V {
        four!(i => f32x4_convert_i32x4(v[i]))
    }

    /// The narrowing saturates: bytes fit.
    #[inline(always)]
    fn low_bytes(self, v: [v128; 4]) -> v128 {
        i8x16_narrow_i16x8(i16x8_narrow_i32x4(v[0], v[1]), i16x8_narrow_i32x4(v[2], v[3]))
    }

    #[inline(always)]
    fn split_seven(self, v: v128) -> [v128; 2] {
        [i32x4_shr(v, 7), v128_and(v, i32x4_splat(127))]
    }

    #[inline(always)]
    fn quads<const BITS: usize>(self, acc: v128, codes: [v128; 4], x: v128) -> v128 {
        let [a, b, c, d] = codes;
        let first = [i32x4_shuffle::<0, 0, 0, 0>(x, x), i32x4_shuffle::<1, 1, 1, 1>(x, x)];
        let second = [i32x4_shuffle::<2, 2, 2, 2>(x, x), i32x4_shuffle::<3, 3, 3, 3>(x, x)];
        let (low, high) = (two_quads([a, b], first), two_quads([c, d], second));
        if BITS > 5 {
            // Two products of 7 bits fit in i16.
            return i32x4_add(acc, i32x4_add(fours(low), fours(high)));
        }
        // Four products of 5 bits do.
        i32x4_add(acc, fours(two!(i => i16x8_add(low[i], high[i]))))
    }
}

/// Products of two registers of codes with the four bytes in every lane of `x`, each two summed: of the lower and the
/// upper eight bytes.
#[inline(always)]
fn two_quads(codes: [v128; 2], x: [v128; 2]) -> [v128; 2] {
    let low = two!(i => i16x8_extmul_low_i8x16(codes[i], x[i]));
    let high = two!(i => i16x8_extmul_high_i8x16(codes[i], x[i]));
    [i16x8_add(low[0], low[1]), i16x8_add(high[0], high[1])]
}

/// Sums of four neighbours.
#[inline(always)]
fn fours(sums: [v128; 2]) -> v128 {
    let pairs = two!(i => i32x4_extadd_pairwise_i16x8(sums[i]));
    let even = i32x4_shuffle::<0, 2, 4, 6>(pairs[0], pairs[1]);
    i32x4_add(even, i32x4_shuffle::<1, 3, 5, 7>(pairs[0], pairs[1]))
}

/// Adds the products of eight values of four rows with those of a token.
#[inline(always)]
fn eight_values(acc: v128, w: &[v128; 4], x: v128) -> v128 {
    let first = i32x4_dot_i16x8(w[0], i32x4_shuffle::<0, 0, 0, 0>(x, x));
    let second = i32x4_dot_i16x8(w[1], i32x4_shuffle::<1, 1, 1, 1>(x, x));
    let third = i32x4_dot_i16x8(w[2], i32x4_shuffle::<2, 2, 2, 2>(x, x));
    let fourth = i32x4_dot_i16x8(w[3], i32x4_shuffle::<3, 3, 3, 3>(x, x));
    i32x4_add(acc, i32x4_add(i32x4_add(first, second), i32x4_add(third, fourth)))
}
