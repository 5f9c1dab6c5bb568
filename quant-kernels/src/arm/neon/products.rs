//! Products of bytes on the three levels of NEON.

use super::bytes::{across, widened};
use crate::vec128::{four, two};
use std::arch::aarch64::*;
use std::arch::asm;

/// The part of [`crate::vec128::Vec128`] in which the levels differ. A value of an implementing type is a proof that
/// the CPU has the instructions.
pub(crate) trait Products: Copy {
    /// Adds sixteen products to the lanes of `acc`.
    fn dot16(self, acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t;

    /// Products of 256 codes times the scale of their sixteen: lanes whose sum is the block's.
    #[inline(always)]
    fn dot256(self, q: &[[i8; 16]], scales: &[i8; 16], x: &[[i8; 16]]) -> int32x4_t {
        // SAFETY: every CPU of the target has NEON; sixteen bytes each.
        unsafe {
            let mut isum = vdupq_n_s32(0);
            for (i, scales) in widened(vld1q_s8(scales.as_ptr())).into_iter().enumerate() {
                let dots = four!(j => {
                    let (q, x) = (q[4 * i + j].as_ptr(), x[4 * i + j].as_ptr());
                    self.dot16(vdupq_n_s32(0), vld1q_s8(q), vld1q_s8(x))
                });
                isum = vmlaq_s32(isum, across(dots), scales);
            }
            isum
        }
    }

    /// [`crate::vec128::Vec128::quads`].
    fn quads<const BITS: usize>(self, acc: int32x4_t, codes: [int8x16_t; 4], x: int8x16_t) -> int32x4_t;

    /// Sixteen codes of each of four rows.
    fn pack(self, rows: [int8x16_t; 4]) -> [int8x16_t; 4];

    /// Sixteen codes of each of two tokens.
    #[inline(always)]
    fn pair(self, tokens: [int8x16_t; 2]) -> [int8x16_t; 2] {
        tokens
    }

    /// Adds the products of four rows with two tokens.
    fn products(self, acc: [int32x4_t; 2], w: &[int8x16_t; 4], x: &[int8x16_t; 2]) -> [int32x4_t; 2];

    /// A factor for each row in the order of [`Products::products`].
    #[inline(always)]
    fn spread(self, rows: int32x4_t) -> [int32x4_t; 2] {
        [rows, rows]
    }

    /// From the order of [`Products::products`] to a register per token, whose lanes are the rows.
    #[inline(always)]
    fn gather(self, acc: [int32x4_t; 2]) -> [int32x4_t; 2] {
        acc
    }
}

/// ARMv8.0: every CPU of the target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base;

/// The CPU has dotprod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DotProd(());

/// The CPU has i8mm and dotprod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct I8mm(());

impl DotProd {
    #[target_feature(enable = "dotprod")]
    pub(super) fn new() -> Self {
        Self(())
    }
}

impl I8mm {
    #[target_feature(enable = "dotprod,i8mm")]
    pub(super) fn new() -> Self {
        Self(())
    }
}

impl Products for Base {
    #[inline(always)]
    fn dot16(self, acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // Two products fit in i16: |w| is at most 128 and |x| at most 127.
        // SAFETY: every CPU of the target has NEON.
        unsafe {
            let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
            vpadalq_s16(acc, vmlal_high_s8(low, w, x))
        }
    }

    #[inline(always)]
    fn quads<const BITS: usize>(self, acc: int32x4_t, codes: [int8x16_t; 4], x: int8x16_t) -> int32x4_t {
        // SAFETY: every CPU of the target has NEON.
        unsafe {
            let x = vreinterpretq_s32_s8(x);
            let first = [vdupq_laneq_s32::<0>(x), vdupq_laneq_s32::<1>(x)];
            let second = [vdupq_laneq_s32::<2>(x), vdupq_laneq_s32::<3>(x)];
            let [a, b, c, d] = codes;
            let low = two_quads([a, b], first);
            let high = two_quads([c, d], second);
            if BITS > 5 {
                // Two products of 7 bits fit in i16.
                return vaddq_s32(acc, vaddq_s32(fours(low), fours(high)));
            }
            // Four products of 5 bits do.
            vaddq_s32(acc, fours(two!(i => vaddq_s16(low[i], high[i]))))
        }
    }

    /// Register `i`: values 4 i, 4 i + 1 of each row, then values 4 i + 2, 4 i + 3 of each row.
    #[inline(always)]
    fn pack(self, rows: [int8x16_t; 4]) -> [int8x16_t; 4] {
        // SAFETY: every CPU of the target has NEON.
        unsafe {
            let rows = four!(r => vreinterpretq_s16_s8(rows[r]));
            let (even_low, even_high) = (vzip1q_s16(rows[0], rows[2]), vzip2q_s16(rows[0], rows[2]));
            let (odd_low, odd_high) = (vzip1q_s16(rows[1], rows[3]), vzip2q_s16(rows[1], rows[3]));
            [
                vreinterpretq_s8_s16(vzip1q_s16(even_low, odd_low)),
                vreinterpretq_s8_s16(vzip2q_s16(even_low, odd_low)),
                vreinterpretq_s8_s16(vzip1q_s16(even_high, odd_high)),
                vreinterpretq_s8_s16(vzip2q_s16(even_high, odd_high)),
            ]
        }
    }

    #[inline(always)]
    fn products(self, acc: [int32x4_t; 2], w: &[int8x16_t; 4], x: &[int8x16_t; 2]) -> [int32x4_t; 2] {
        // SAFETY: every CPU of the target has NEON.
        two!(t => unsafe {
            let acc = four_values::<0, 1>(acc[t], w[0], x[t]);
            let acc = four_values::<2, 3>(acc, w[1], x[t]);
            let acc = four_values::<4, 5>(acc, w[2], x[t]);
            four_values::<6, 7>(acc, w[3], x[t])
        })
    }
}

/// Products of two registers of codes with the four bytes in every lane of `x`, each two summed: of the lower and the
/// upper eight bytes.
#[inline]
#[target_feature(enable = "neon")]
fn two_quads(codes: [int8x16_t; 2], x: [int32x4_t; 2]) -> [int16x8_t; 2] {
    let x = two!(i => vreinterpretq_s8_s32(x[i]));
    let low = vmull_s8(vget_low_s8(codes[0]), vget_low_s8(x[0]));
    [
        vmlal_s8(low, vget_low_s8(codes[1]), vget_low_s8(x[1])),
        vmlal_high_s8(vmull_high_s8(codes[0], x[0]), codes[1], x[1]),
    ]
}

/// Sums of four neighbours.
#[inline]
#[target_feature(enable = "neon")]
fn fours(sums: [int16x8_t; 2]) -> int32x4_t {
    vpaddq_s32(vpaddlq_s16(sums[0]), vpaddlq_s16(sums[1]))
}

/// Products of four values of four rows with pairs `A` and `B` of a token's values.
#[inline]
#[target_feature(enable = "neon")]
fn four_values<const A: i32, const B: i32>(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let x = vreinterpretq_s16_s8(x);
    let first = vreinterpret_s8_s16(vdup_laneq_s16::<A>(x));
    let second = vreinterpretq_s8_s16(vdupq_laneq_s16::<B>(x));
    // Two products fit in i16.
    vpadalq_s16(acc, vmlal_high_s8(vmull_s8(vget_low_s8(w), first), w, second))
}

/// Each lane of `acc` plus the products of its four bytes.
#[inline]
#[target_feature(enable = "dotprod")]
fn sdot(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: an instruction of dotprod that touches only these registers.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) acc, in(vreg) w, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// Each lane of `acc` plus the products of its four bytes with those of lane `LANE` of `x`.
#[inline]
#[target_feature(enable = "dotprod")]
fn sdot_lane<const LANE: usize>(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: an instruction of dotprod that touches only these registers.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{lane}]",
            inout(vreg) acc, in(vreg) w, in(vreg) x, lane = const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// A 2 x 2 matrix plus the products of two rows of eight bytes with two others.
#[inline]
#[target_feature(enable = "i8mm")]
fn smmla(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: an instruction of i8mm that touches only these registers.
    unsafe {
        asm!(
            "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) acc, in(vreg) w, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

impl Products for DotProd {
    #[inline(always)]
    fn dot16(self, acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: self is the proof.
        unsafe { sdot(acc, w, x) }
    }

    #[inline(always)]
    fn quads<const BITS: usize>(self, acc: int32x4_t, codes: [int8x16_t; 4], x: int8x16_t) -> int32x4_t {
        // SAFETY: self is the proof.
        unsafe {
            let acc = sdot_lane::<0>(acc, codes[0], x);
            let acc = sdot_lane::<1>(acc, codes[1], x);
            let acc = sdot_lane::<2>(acc, codes[2], x);
            sdot_lane::<3>(acc, codes[3], x)
        }
    }

    /// Register `i`: values 4 i..4 i + 4 of each row.
    #[inline(always)]
    fn pack(self, rows: [int8x16_t; 4]) -> [int8x16_t; 4] {
        // SAFETY: every CPU of the target has NEON.
        unsafe {
            let rows = four!(r => vreinterpretq_s32_s8(rows[r]));
            let (even_low, even_high) = (vzip1q_s32(rows[0], rows[2]), vzip2q_s32(rows[0], rows[2]));
            let (odd_low, odd_high) = (vzip1q_s32(rows[1], rows[3]), vzip2q_s32(rows[1], rows[3]));
            [
                vreinterpretq_s8_s32(vzip1q_s32(even_low, odd_low)),
                vreinterpretq_s8_s32(vzip2q_s32(even_low, odd_low)),
                vreinterpretq_s8_s32(vzip1q_s32(even_high, odd_high)),
                vreinterpretq_s8_s32(vzip2q_s32(even_high, odd_high)),
            ]
        }
    }

    #[inline(always)]
    fn products(self, acc: [int32x4_t; 2], w: &[int8x16_t; 4], x: &[int8x16_t; 2]) -> [int32x4_t; 2] {
        // SAFETY: self is the proof.
        two!(t => unsafe {
            let acc = sdot_lane::<0>(acc[t], w[0], x[t]);
            let acc = sdot_lane::<1>(acc, w[1], x[t]);
            let acc = sdot_lane::<2>(acc, w[2], x[t]);
            sdot_lane::<3>(acc, w[3], x[t])
        })
    }
}

impl Products for I8mm {
    #[inline(always)]
    fn dot16(self, acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: self is the proof.
        unsafe { sdot(acc, w, x) }
    }

    #[inline(always)]
    fn quads<const BITS: usize>(self, acc: int32x4_t, codes: [int8x16_t; 4], x: int8x16_t) -> int32x4_t {
        // SAFETY: self is the proof.
        unsafe {
            let acc = sdot_lane::<0>(acc, codes[0], x);
            let acc = sdot_lane::<1>(acc, codes[1], x);
            let acc = sdot_lane::<2>(acc, codes[2], x);
            sdot_lane::<3>(acc, codes[3], x)
        }
    }

    /// Values 0..8 of rows 0 and 1, values 8..16 of the same, then rows 2 and 3.
    #[inline(always)]
    fn pack(self, rows: [int8x16_t; 4]) -> [int8x16_t; 4] {
        let (first, second) = (self.pair([rows[0], rows[1]]), self.pair([rows[2], rows[3]]));
        [first[0], first[1], second[0], second[1]]
    }

    /// Values 0..8 of both tokens, then values 8..16.
    #[inline(always)]
    fn pair(self, tokens: [int8x16_t; 2]) -> [int8x16_t; 2] {
        // SAFETY: every CPU of the target has NEON.
        unsafe {
            let (a, b) = (vreinterpretq_s64_s8(tokens[0]), vreinterpretq_s64_s8(tokens[1]));
            [vreinterpretq_s8_s64(vzip1q_s64(a, b)), vreinterpretq_s8_s64(vzip2q_s64(a, b))]
        }
    }

    /// Lanes: row 0 with both tokens, row 1 with both tokens; then rows 2 and 3.
    #[inline(always)]
    fn products(self, acc: [int32x4_t; 2], w: &[int8x16_t; 4], x: &[int8x16_t; 2]) -> [int32x4_t; 2] {
        // SAFETY: self is the proof.
        two!(i => unsafe { smmla(smmla(acc[i], w[2 * i], x[0]), w[2 * i + 1], x[1]) })
    }

    #[inline(always)]
    fn spread(self, rows: int32x4_t) -> [int32x4_t; 2] {
        // SAFETY: every CPU of the target has NEON.
        unsafe { [vzip1q_s32(rows, rows), vzip2q_s32(rows, rows)] }
    }

    #[inline(always)]
    fn gather(self, acc: [int32x4_t; 2]) -> [int32x4_t; 2] {
        // SAFETY: every CPU of the target has NEON.
        unsafe { [vuzp1q_s32(acc[0], acc[1]), vuzp2q_s32(acc[0], acc[1])] }
    }
}
