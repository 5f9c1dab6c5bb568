//! Sixteen float lanes in four registers.

use super::{Lanes, Products};
use crate::simd::{LANES, Simd};
use crate::vec128::{four, two};
use half::f16;
use std::arch::aarch64::*;
use std::arch::asm;

impl<P: Products> Simd for Lanes<P> {
    /// Lanes 0..4, 4..8, 8..12 and 12..16.
    type V = [float32x4_t; 4];
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: every CPU of the target has NEON.
        unsafe { [vdupq_n_f32(x); 4] }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::V {
        let x = x.as_chunks::<4>().0;
        // SAFETY: every CPU of the target has NEON; four values each.
        four!(i => unsafe { vld1q_f32(x[i].as_ptr()) })
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::V {
        let x = x.as_chunks::<8>().0;
        // SAFETY: every CPU of the target has NEON; eight halves each, and f16 is a transparent u16.
        let x = two!(i => unsafe { widen(vld1q_u16(x[i].as_ptr().cast())) });
        [x[0][0], x[0][1], x[1][0], x[1][1]]
    }

    #[inline(always)]
    fn store(self, v: Self::V, out: &mut [f32; LANES]) {
        for (out, v) in out.as_chunks_mut::<4>().0.iter_mut().zip(v) {
            // SAFETY: every CPU of the target has NEON; four values.
            unsafe { vst1q_f32(out.as_mut_ptr(), v) };
        }
    }

    #[inline(always)]
    fn store_f16(self, v: Self::V, out: &mut [f16; LANES]) {
        for (out, v) in out.as_chunks_mut::<8>().0.iter_mut().zip(v.as_chunks::<2>().0) {
            // SAFETY: every CPU of the target has NEON; eight halves, and any 16 bits are an f16.
            unsafe { vst1q_u16(out.as_mut_ptr().cast(), narrow(*v)) };
        }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: every CPU of the target has NEON.
        four!(i => unsafe { vaddq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: every CPU of the target has NEON.
        four!(i => unsafe { vsubq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: every CPU of the target has NEON.
        four!(i => unsafe { vmulq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: every CPU of the target has NEON.
        four!(i => unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // The instruction for the maximum treats NaN and signed zeros otherwise.
        // SAFETY: every CPU of the target has NEON.
        four!(i => unsafe { vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i]) })
    }

    #[inline(always)]
    fn butterflies(self, v: Self::V, strides: usize) -> Self::V {
        // SAFETY: every CPU of the target has NEON.
        unsafe {
            let mut v = v;
            if strides > 1 {
                v = four!(i => butterfly(v[i], vrev64q_f32(v[i]), [0, SIGN, 0, SIGN]));
            }
            if strides > 2 {
                v = four!(i => butterfly(v[i], vextq_f32::<2>(v[i], v[i]), [0, 0, SIGN, SIGN]));
            }
            if strides > 4 {
                let (first, second) = (pair(v[0], v[1]), pair(v[2], v[3]));
                v = [first[0], first[1], second[0], second[1]];
            }
            if strides > 8 {
                let (first, second) = (pair(v[0], v[2]), pair(v[1], v[3]));
                v = [first[0], second[0], first[1], second[1]];
            }
            v
        }
    }

    #[inline(always)]
    fn select(self, x: Self::V, limit: f32, below: Self::V, other: Self::V) -> Self::V {
        // SAFETY: every CPU of the target has NEON.
        four!(i => unsafe { vbslq_f32(vcltq_f32(x[i], vdupq_n_f32(limit)), below[i], other[i]) })
    }

    #[inline(always)]
    fn raise(self, v: Self::V, exponent: Self::V) -> Self::V {
        // SAFETY: every CPU of the target has NEON.
        four!(i => unsafe {
            let exponent = vshlq_n_u32::<23>(vreinterpretq_u32_f32(exponent[i]));
            vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(v[i]), exponent))
        })
    }

    #[inline(always)]
    fn tree_to_quads(self, v: [Self::V; 4]) -> Self::V {
        // SAFETY: every CPU of the target has NEON.
        four!(i => unsafe { vaddq_f32(vaddq_f32(v[i][0], v[i][2]), vaddq_f32(v[i][1], v[i][3])) })
    }

    #[inline(always)]
    fn tree_of_quads(self, v: [Self::V; 4]) -> Self::V {
        // SAFETY: every CPU of the target has NEON.
        four!(i => unsafe { vpaddq_f32(halves(v[0][i], v[1][i]), halves(v[2][i], v[3][i])) })
    }
}

/// The sign bit of a float.
const SIGN: u32 = 1 << 31;

/// `partner + x`, or `partner - x` where `signs` has a sign.
#[inline]
#[target_feature(enable = "neon")]
fn butterfly(x: float32x4_t, partner: float32x4_t, signs: [u32; 4]) -> float32x4_t {
    // SAFETY: four values.
    let signs = unsafe { vld1q_u32(signs.as_ptr()) };
    vaddq_f32(partner, vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(x), signs)))
}

/// `a + b` and `a - b`.
#[inline]
#[target_feature(enable = "neon")]
fn pair(a: float32x4_t, b: float32x4_t) -> [float32x4_t; 2] {
    [vaddq_f32(a, b), vsubq_f32(a, b)]
}

/// Lanes 0, 1 plus 2, 3 of both.
#[inline]
#[target_feature(enable = "neon")]
fn halves(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
    vaddq_f32(vreinterpretq_f32_f64(vzip1q_f64(a, b)), vreinterpretq_f32_f64(vzip2q_f64(a, b)))
}

/// Eight halves as floats, exactly.
#[inline]
#[target_feature(enable = "neon")]
fn widen(x: uint16x8_t) -> [float32x4_t; 2] {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: instructions of ARMv8.0 that touch only these registers.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) low, in(vreg) x, options(pure, nomem, nostack));
        asm!("fcvtl2 {0:v}.4s, {1:v}.8h", out(vreg) high, in(vreg) x, options(pure, nomem, nostack));
    }
    [low, high]
}

/// Eight floats as halves: nearest, ties to even, overflow to infinity.
#[inline]
#[target_feature(enable = "neon")]
fn narrow(x: [float32x4_t; 2]) -> uint16x8_t {
    let mut out: uint16x8_t;
    // SAFETY: instructions of ARMv8.0 that touch only these registers.
    unsafe {
        asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) out, in(vreg) x[0], options(pure, nomem, nostack));
        asm!("fcvtn2 {0:v}.8h, {1:v}.4s", inout(vreg) out, in(vreg) x[1], options(pure, nomem, nostack));
    }
    out
}

/// A half as a float, exactly.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn widen_one(bits: u16) -> f32 {
    let out: f32;
    // SAFETY: instructions of ARMv8.0 that touch only this register.
    unsafe {
        asm!(
            "fmov {out:s}, {bits:w}",
            "fcvt {out:s}, {out:h}",
            bits = in(reg) u32::from(bits),
            out = out(vreg) out,
            options(pure, nomem, nostack)
        );
    }
    out
}
