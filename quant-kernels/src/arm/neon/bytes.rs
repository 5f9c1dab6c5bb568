//! Integers in registers of 128 bits.

use super::simd::widen_one;
use super::{Lanes, Products};
use crate::simd::LANES;
use crate::vec128::{Vec128, four};
use std::arch::aarch64::*;
use std::arch::asm;

impl<P: Products> Vec128 for Lanes<P> {
    type B = int8x16_t;
    type I = int32x4_t;
    type W = [int8x16_t; 4];
    type X = [int8x16_t; 2];
    const PAIRS: usize = 2;

    #[inline(always)]
    fn load_u8(self, x: &[u8; 16]) -> int8x16_t {
        // SAFETY: every CPU of the target has NEON; sixteen bytes.
        unsafe { vreinterpretq_s8_u8(vld1q_u8(x.as_ptr())) }
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; 16]) -> int8x16_t {
        // SAFETY: every CPU of the target has NEON; sixteen bytes.
        unsafe { vld1q_s8(x.as_ptr()) }
    }

    #[inline(always)]
    fn bytes(self, x: int8x16_t) -> [i8; 16] {
        let mut out = [0; 16];
        // SAFETY: every CPU of the target has NEON; sixteen bytes.
        unsafe { vst1q_s8(out.as_mut_ptr(), x) };
        out
    }

    #[inline(always)]
    fn splat_u8(self, x: u8) -> int8x16_t {
        // SAFETY: every CPU of the target has NEON.
        unsafe { vdupq_n_s8(x.cast_signed()) }
    }

    #[inline(always)]
    fn and(self, a: int8x16_t, b: int8x16_t) -> int8x16_t {
        // SAFETY: every CPU of the target has NEON.
        unsafe { vandq_s8(a, b) }
    }

    #[inline(always)]
    fn or(self, a: int8x16_t, b: int8x16_t) -> int8x16_t {
        // SAFETY: every CPU of the target has NEON.
        unsafe { vorrq_s8(a, b) }
    }

    #[inline(always)]
    fn sub_bytes(self, a: int8x16_t, b: int8x16_t) -> int8x16_t {
        // SAFETY: every CPU of the target has NEON.
        unsafe { vsubq_s8(a, b) }
    }

    #[inline(always)]
    fn shl<const N: i32>(self, x: int8x16_t) -> int8x16_t {
        // SAFETY: every CPU of the target has NEON.
        unsafe { vshlq_n_s8::<N>(x) }
    }

    #[inline(always)]
    fn shr<const N: i32>(self, x: int8x16_t) -> int8x16_t {
        // SAFETY: every CPU of the target has NEON.
        unsafe { vreinterpretq_s8_u8(vshrq_n_u8::<N>(vreinterpretq_u8_s8(x))) }
    }

    #[inline(always)]
    fn lookup(self, table: int8x16_t, index: int8x16_t) -> int8x16_t {
        // SAFETY: every CPU of the target has NEON.
        unsafe { vqtbl1q_s8(table, vreinterpretq_u8_s8(index)) }
    }

    #[inline(always)]
    fn widen_half(self, bits: u16) -> f32 {
        // SAFETY: every CPU of the target has NEON.
        unsafe { widen_one(bits) }
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> int32x4_t {
        // SAFETY: every CPU of the target has NEON.
        unsafe { vdupq_n_s32(x) }
    }

    #[inline(always)]
    fn mul_add_i32(self, a: int32x4_t, b: int32x4_t, c: int32x4_t) -> int32x4_t {
        // SAFETY: every CPU of the target has NEON.
        unsafe { vmlaq_s32(c, a, b) }
    }

    #[inline(always)]
    fn across(self, v: [int32x4_t; 4]) -> int32x4_t {
        // SAFETY: every CPU of the target has NEON.
        unsafe { across(v) }
    }

    #[inline(always)]
    fn columns(self, rows: [int8x16_t; 4]) -> [int32x4_t; 16] {
        // SAFETY: every CPU of the target has NEON.
        unsafe { columns(rows) }
    }

    #[inline(always)]
    fn fold(self, acc: &mut [f32; 4], d: &[f32; 4], dx: f32, isum: int32x4_t) {
        // SAFETY: every CPU of the target has NEON; four values each.
        unsafe {
            let scale = vmulq_n_f32(vld1q_f32(d.as_ptr()), dx);
            let product = vmulq_f32(scale, vcvtq_f32_s32(isum));
            vst1q_f32(acc.as_mut_ptr(), vaddq_f32(vld1q_f32(acc.as_ptr()), product));
        }
    }

    #[inline(always)]
    fn dot16(self, acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        self.0.dot16(acc, w, x)
    }

    #[inline(always)]
    fn dot256(self, q: &[i8; 256], scales: &[i8; 16], x: &[i8; 256]) -> int32x4_t {
        self.0.dot256(q.as_chunks().0, scales, x.as_chunks().0)
    }

    #[inline(always)]
    fn pack(self, rows: [int8x16_t; 4]) -> [int8x16_t; 4] {
        self.0.pack(rows)
    }

    #[inline(always)]
    fn pair(self, tokens: [int8x16_t; 2]) -> [int8x16_t; 2] {
        self.0.pair(tokens)
    }

    #[inline(always)]
    fn products(self, acc: [int32x4_t; 2], w: &[int8x16_t; 4], x: &[int8x16_t; 2]) -> [int32x4_t; 2] {
        self.0.products(acc, w, x)
    }

    #[inline(always)]
    fn spread(self, rows: int32x4_t) -> [int32x4_t; 2] {
        self.0.spread(rows)
    }

    #[inline(always)]
    fn gather(self, acc: [int32x4_t; 2]) -> [int32x4_t; 2] {
        self.0.gather(acc)
    }

    #[inline(always)]
    fn magnitudes(self, acc: int32x4_t, x: &[f32; LANES]) -> int32x4_t {
        let mut acc = acc;
        for x in x.as_chunks::<4>().0 {
            // SAFETY: every CPU of the target has NEON; four values.
            unsafe { acc = vmaxq_s32(acc, vreinterpretq_s32_f32(vabsq_f32(vld1q_f32(x.as_ptr())))) };
        }
        acc
    }

    #[inline(always)]
    fn ints(self, x: int32x4_t) -> [i32; 4] {
        let mut out = [0; 4];
        // SAFETY: every CPU of the target has NEON; four values.
        unsafe { vst1q_s32(out.as_mut_ptr(), x) };
        out
    }

    #[inline(always)]
    fn round(self, x: &[f32; LANES], inverse: f32, q: &mut [i8; LANES]) -> i16 {
        let x = x.as_chunks::<4>().0;
        // SAFETY: every CPU of the target has NEON; sixteen values and sixteen bytes.
        unsafe {
            let x = four!(i => vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x[i].as_ptr()), inverse)));
            let low = vmovn_high_s32(vmovn_s32(x[0]), x[1]);
            let high = vmovn_high_s32(vmovn_s32(x[2]), x[3]);
            let codes = vmovn_high_s16(vmovn_s16(low), high);
            vst1q_s8(q.as_mut_ptr(), codes);
            vaddlvq_s8(codes)
        }
    }

    #[inline(always)]
    fn load_i32(self, x: &[i32; 4]) -> int32x4_t {
        // SAFETY: every CPU of the target has NEON; four values.
        unsafe { vld1q_s32(x.as_ptr()) }
    }

    #[inline(always)]
    fn nearest(self, v: Self::V) -> [int32x4_t; 4] {
        // SAFETY: every CPU of the target has NEON.
        four!(i => unsafe { vcvtnq_s32_f32(v[i]) })
    }

    #[inline(always)]
    fn floats(self, v: [int32x4_t; 4]) -> Self::V {
        // SAFETY: every CPU of the target has NEON.
        four!(i => unsafe { vcvtq_f32_s32(v[i]) })
    }

    #[inline(always)]
    fn low_bytes(self, v: [int32x4_t; 4]) -> int8x16_t {
        // SAFETY: every CPU of the target has NEON.
        unsafe {
            let low = vmovn_high_s32(vmovn_s32(v[0]), v[1]);
            let high = vmovn_high_s32(vmovn_s32(v[2]), v[3]);
            vmovn_high_s16(vmovn_s16(low), high)
        }
    }

    #[inline(always)]
    fn split_seven(self, v: int32x4_t) -> [int32x4_t; 2] {
        // SAFETY: every CPU of the target has NEON.
        unsafe { [vshrq_n_s32::<7>(v), vandq_s32(v, vdupq_n_s32(127))] }
    }

    #[inline(always)]
    fn quads<const BITS: usize>(self, acc: int32x4_t, codes: [int8x16_t; 4], x: int8x16_t) -> int32x4_t {
        self.0.quads::<BITS>(acc, codes, x)
    }

    #[inline(always)]
    fn prefetch(self, address: usize) {
        // SAFETY: a prefetch touches no memory, whatever the address.
        unsafe {
            asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nomem, nostack, preserves_flags));
        }
    }
}

/// Lane `i` is the sum of the lanes of `v[i]`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn across(v: [int32x4_t; 4]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]))
}

/// Sixteen signed bytes as integers.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn widened(x: int8x16_t) -> [int32x4_t; 4] {
    let (low, high) = (vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x));
    [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)]
}

/// Byte `j` of each of four rows, for every `j`.
#[inline]
#[target_feature(enable = "neon")]
fn columns(rows: [int8x16_t; 4]) -> [int32x4_t; 16] {
    let (even_low, even_high) = (vzip1q_s8(rows[0], rows[2]), vzip2q_s8(rows[0], rows[2]));
    let (odd_low, odd_high) = (vzip1q_s8(rows[1], rows[3]), vzip2q_s8(rows[1], rows[3]));
    let mut columns = [vdupq_n_s32(0); 16];
    let (chunks, _) = columns.as_chunks_mut::<4>();
    chunks[0] = widened(vzip1q_s8(even_low, odd_low));
    chunks[1] = widened(vzip2q_s8(even_low, odd_low));
    chunks[2] = widened(vzip1q_s8(even_high, odd_high));
    chunks[3] = widened(vzip2q_s8(even_high, odd_high));
    columns
}
