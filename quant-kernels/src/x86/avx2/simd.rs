//! Sixteen float lanes in two registers.

use crate::isa::Avx2;
use crate::simd::{Kernel, LANES, Simd};
use half::f16;
use std::arch::x86_64::*;

/// Runs a kernel compiled for AVX2.
pub(crate) fn run<K: Kernel>(proof: Avx2, kernel: K) -> K::Output {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn inner<K: Kernel>(proof: Avx2, kernel: K) -> K::Output {
        kernel.run(Lanes(proof))
    }
    // SAFETY: the proof says that the CPU has these features.
    unsafe { inner(proof, kernel) }
}

/// Registers of 256 bits with the products of bytes that `P` is a proof of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes<P>(pub(super) P);

impl<P: Copy> Simd for Lanes<P> {
    /// Lanes 0..8 and 8..16.
    type V = [__m256; 2];
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: self holds the proof that the CPU has AVX2.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::V {
        // SAFETY: self holds the proof; the reference covers the 16 values read.
        unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::V {
        // SAFETY: self holds the proof; the reference covers the 32 bytes read; f16 is a transparent u16.
        unsafe {
            let at = x.as_ptr().cast::<__m128i>();
            [_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at.add(1)))]
        }
    }

    #[inline(always)]
    fn store(self, v: Self::V, out: &mut [f32; LANES]) {
        // SAFETY: self holds the proof; the reference covers the 16 values written.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), v[1]);
        }
    }

    #[inline(always)]
    fn store_f16(self, v: Self::V, out: &mut [f16; LANES]) {
        // SAFETY: self holds the proof; the reference covers the 32 bytes written; any 16 bits are an f16.
        unsafe {
            let at = out.as_mut_ptr().cast::<__m128i>();
            _mm_storeu_si128(at, _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0]));
            _mm_storeu_si128(at.add(1), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1]));
        }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: self holds the proof.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: self holds the proof.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: self holds the proof.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn abs(self, v: Self::V) -> Self::V {
        // SAFETY: self holds the proof.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            [_mm256_andnot_ps(sign, v[0]), _mm256_andnot_ps(sign, v[1])]
        }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: self holds the proof, of FMA too.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: self holds the proof.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: self holds the proof.
        unsafe { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn butterflies(self, v: Self::V, strides: usize) -> Self::V {
        // SAFETY: self holds the proof.
        unsafe {
            let [mut a, mut b] = v;
            if strides > 1 {
                a = butterfly::<0xAA>(a, _mm256_permute_ps::<0xB1>(a));
                b = butterfly::<0xAA>(b, _mm256_permute_ps::<0xB1>(b));
            }
            if strides > 2 {
                a = butterfly::<0xCC>(a, _mm256_permute_ps::<0x4E>(a));
                b = butterfly::<0xCC>(b, _mm256_permute_ps::<0x4E>(b));
            }
            if strides > 4 {
                a = butterfly::<0xF0>(a, _mm256_permute2f128_ps::<0x01>(a, a));
                b = butterfly::<0xF0>(b, _mm256_permute2f128_ps::<0x01>(b, b));
            }
            if strides > 8 {
                (a, b) = (_mm256_add_ps(a, b), _mm256_sub_ps(a, b));
            }
            [a, b]
        }
    }

    #[inline(always)]
    fn select(self, x: Self::V, limit: f32, below: Self::V, other: Self::V) -> Self::V {
        // SAFETY: self holds the proof.
        unsafe {
            let limit = _mm256_set1_ps(limit);
            let (low, high) =
                (_mm256_cmp_ps::<_CMP_LT_OQ>(x[0], limit), _mm256_cmp_ps::<_CMP_LT_OQ>(x[1], limit));
            [_mm256_blendv_ps(other[0], below[0], low), _mm256_blendv_ps(other[1], below[1], high)]
        }
    }

    #[inline(always)]
    fn raise(self, v: Self::V, exponent: Self::V) -> Self::V {
        // SAFETY: self holds the proof.
        unsafe { [raised(v[0], exponent[0]), raised(v[1], exponent[1])] }
    }

    #[inline(always)]
    fn tree_to_quads(self, v: [Self::V; 4]) -> Self::V {
        // SAFETY: self holds the proof.
        unsafe {
            let eights = [
                _mm256_add_ps(v[0][0], v[0][1]),
                _mm256_add_ps(v[1][0], v[1][1]),
                _mm256_add_ps(v[2][0], v[2][1]),
                _mm256_add_ps(v[3][0], v[3][1]),
            ];
            [fours(eights[0], eights[1]), fours(eights[2], eights[3])]
        }
    }

    #[inline(always)]
    fn tree_of_quads(self, v: [Self::V; 4]) -> Self::V {
        // SAFETY: self holds the proof.
        unsafe {
            [
                ones(twos(v[0][0], v[1][0]), twos(v[2][0], v[3][0])),
                ones(twos(v[0][1], v[1][1]), twos(v[2][1], v[3][1])),
            ]
        }
    }
}

/// Butterflies between the lanes of `v` and their partners in `w`; the lanes of `MASK` subtract.
#[inline]
#[target_feature(enable = "avx2")]
fn butterfly<const MASK: i32>(v: __m256, w: __m256) -> __m256 {
    _mm256_blend_ps::<MASK>(_mm256_add_ps(v, w), _mm256_sub_ps(w, v))
}

/// The bits of `v` plus the low bits of `exponent` in the exponent's place.
#[inline]
#[target_feature(enable = "avx2")]
fn raised(v: __m256, exponent: __m256) -> __m256 {
    let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(exponent));
    _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), exponent))
}

/// Lanes 0..4 plus 4..8 of both.
#[inline]
#[target_feature(enable = "avx2")]
fn fours(a: __m256, b: __m256) -> __m256 {
    _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
}

/// In each quad: lanes 0, 1 plus 2, 3 of both.
#[inline]
#[target_feature(enable = "avx2")]
fn twos(a: __m256, b: __m256) -> __m256 {
    _mm256_add_ps(_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xEE>(a, b))
}

/// In each quad: lanes 0, 2 plus 1, 3 of both.
#[inline]
#[target_feature(enable = "avx2")]
fn ones(a: __m256, b: __m256) -> __m256 {
    _mm256_add_ps(_mm256_shuffle_ps::<0x88>(a, b), _mm256_shuffle_ps::<0xDD>(a, b))
}
