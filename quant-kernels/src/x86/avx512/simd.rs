//! Sixteen float lanes in one register.

use crate::isa::Avx512;
use crate::simd::{Kernel, LANES, Simd};
use half::f16;
use std::arch::x86_64::*;

/// Runs a kernel compiled for AVX-512.
pub(crate) fn run<K: Kernel>(proof: Avx512, kernel: K) -> K::Output {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    fn inner<K: Kernel>(proof: Avx512, kernel: K) -> K::Output {
        kernel.run(proof)
    }
    // SAFETY: the proof says that the CPU has these features.
    unsafe { inner(proof, kernel) }
}

impl Simd for Avx512 {
    type V = __m512;
    const WIDE: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: self is the proof that the CPU has AVX-512 F.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        // SAFETY: self is the proof; the reference covers the 16 values read.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> __m512 {
        // SAFETY: self is the proof; the reference covers the 32 bytes read; f16 is a transparent u16.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32; LANES]) {
        // SAFETY: self is the proof; the reference covers the 16 values written.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn store_f16(self, v: __m512, out: &mut [f16; LANES]) {
        // SAFETY: self is the proof; the reference covers the 32 bytes written; any 16 bits are an f16.
        unsafe {
            let halves = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), halves);
        }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: self is the proof.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: self is the proof.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: self is the proof.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, v: __m512) -> __m512 {
        // SAFETY: self is the proof.
        unsafe { _mm512_abs_ps(v) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: self is the proof.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: self is the proof.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: self is the proof.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn butterflies(self, v: __m512, strides: usize) -> __m512 {
        // SAFETY: self is the proof.
        unsafe {
            let mut v = v;
            if strides > 1 {
                v = butterfly::<0xAAAA>(v, _mm512_permute_ps::<0xB1>(v));
            }
            if strides > 2 {
                v = butterfly::<0xCCCC>(v, _mm512_permute_ps::<0x4E>(v));
            }
            if strides > 4 {
                v = butterfly::<0xF0F0>(v, _mm512_shuffle_f32x4::<0xB1>(v, v));
            }
            if strides > 8 {
                v = butterfly::<0xFF00>(v, _mm512_shuffle_f32x4::<0x4E>(v, v));
            }
            v
        }
    }

    #[inline(always)]
    fn select(self, x: __m512, limit: f32, below: __m512, other: __m512) -> __m512 {
        // SAFETY: self is the proof.
        unsafe {
            let mask = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(limit));
            _mm512_mask_blend_ps(mask, below, other)
        }
    }

    #[inline(always)]
    fn raise(self, v: __m512, exponent: __m512) -> __m512 {
        // SAFETY: self is the proof.
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(exponent));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(v), exponent))
        }
    }

    #[inline(always)]
    fn tree_to_quads(self, v: [__m512; 4]) -> __m512 {
        // SAFETY: self is the proof.
        unsafe { quarters(halves(v[0], v[1]), halves(v[2], v[3])) }
    }

    #[inline(always)]
    fn tree_of_quads(self, v: [__m512; 4]) -> __m512 {
        // SAFETY: self is the proof.
        unsafe { ones(twos(v[0], v[1]), twos(v[2], v[3])) }
    }
}

/// Butterflies between the lanes of `v` and their partners in `w`; the lanes of `MASK` subtract.
#[inline]
#[target_feature(enable = "avx512f")]
fn butterfly<const MASK: u16>(v: __m512, w: __m512) -> __m512 {
    _mm512_mask_sub_ps(_mm512_add_ps(v, w), MASK, w, v)
}

/// Lanes 0..8 plus 8..16 of both.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves(a: __m512, b: __m512) -> __m512 {
    _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xEE>(a, b))
}

/// Quads 0, 2 plus 1, 3 of both.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters(a: __m512, b: __m512) -> __m512 {
    _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b))
}

/// In each quad: lanes 0, 1 plus 2, 3 of both.
#[inline]
#[target_feature(enable = "avx512f")]
fn twos(a: __m512, b: __m512) -> __m512 {
    _mm512_add_ps(_mm512_shuffle_ps::<0x44>(a, b), _mm512_shuffle_ps::<0xEE>(a, b))
}

/// In each quad: lanes 0, 2 plus 1, 3 of both.
#[inline]
#[target_feature(enable = "avx512f")]
fn ones(a: __m512, b: __m512) -> __m512 {
    _mm512_add_ps(_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xDD>(a, b))
}
