//! Byte vectors of the plane codecs: 32 codes in one register, products in pairs of 16 bits or, with AVX-VNNI, by fours.

use super::simd::Lanes;
use crate::codecs::planes::{PlaneKernel, PlaneOps};
use crate::isa::{Avx2, AvxVnni};
use std::arch::x86_64::*;

/// Runs a plane kernel compiled for AVX2.
pub(crate) fn run<K: PlaneKernel>(proof: Avx2, kernel: K) {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn inner<K: PlaneKernel>(proof: Avx2, kernel: K) {
        kernel.run(Lanes(proof));
    }
    // SAFETY: the proof says that the CPU has these features.
    unsafe { inner(proof, kernel) }
}

/// Runs a plane kernel compiled for AVX-VNNI.
pub(crate) fn run_vnni<K: PlaneKernel>(proof: AvxVnni, kernel: K) {
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    fn inner<K: PlaneKernel>(proof: AvxVnni, kernel: K) {
        kernel.run(Lanes(proof));
    }
    // SAFETY: the proof says that the CPU has these features.
    unsafe { inner(proof, kernel) }
}

/// The products of a tier. A value of an implementing type is a proof that the CPU has the instructions.
trait Products: Copy {
    /// [`PlaneOps::dot`].
    fn dot<const BITS: usize>(self, sums: __m256i, codes: [__m256i; 4], x: [__m256i; 4]) -> __m256i;
}

impl Products for Avx2 {
    /// Pairs of products saturate at 16 bits, so: up to 5 bits four quads together (31 * 127 * 2 * 4 fits), up to 7 bits each
    /// alone, 8 bits in halves of 4.
    #[inline(always)]
    fn dot<const BITS: usize>(self, sums: __m256i, codes: [__m256i; 4], x: [__m256i; 4]) -> __m256i {
        // SAFETY: self is the proof.
        unsafe {
            let [a, b, c, d] = codes;
            let sum = match BITS {
                2..=5 => together(codes, x),
                6 | 7 => {
                    let low = _mm256_add_epi32(alone(a, x[0]), alone(b, x[1]));
                    _mm256_add_epi32(low, _mm256_add_epi32(alone(c, x[2]), alone(d, x[3])))
                }
                _ => {
                    let low = together([nibble(a), nibble(b), nibble(c), nibble(d)], x);
                    let high = together([upper(a), upper(b), upper(c), upper(d)], x);
                    _mm256_add_epi32(low, _mm256_slli_epi32::<4>(high))
                }
            };
            _mm256_add_epi32(sums, sum)
        }
    }
}

impl Products for AvxVnni {
    #[inline(always)]
    fn dot<const BITS: usize>(self, sums: __m256i, codes: [__m256i; 4], x: [__m256i; 4]) -> __m256i {
        // SAFETY: self is the proof.
        unsafe {
            let sums = _mm256_dpbusd_avx_epi32(sums, codes[0], x[0]);
            let sums = _mm256_dpbusd_avx_epi32(sums, codes[1], x[1]);
            let sums = _mm256_dpbusd_avx_epi32(sums, codes[2], x[2]);
            _mm256_dpbusd_avx_epi32(sums, codes[3], x[3])
        }
    }
}

#[allow(private_bounds, reason = "the tiers' products are an inner matter")]
impl<P: Products> PlaneOps for Lanes<P> {
    type Bytes = __m256i;
    /// Values 0..8 and 8..16.
    type Ints = [__m256i; 2];
    type Sums = __m256i;
    const PARTS: usize = 2;

    #[inline(always)]
    fn bytes(self, from: &[u8; 64], part: usize) -> __m256i {
        let half = &from.as_chunks::<32>().0[part];
        // SAFETY: self holds the proof that the CPU has AVX2; the reference covers the bytes read.
        unsafe { _mm256_loadu_si256(half.as_ptr().cast()) }
    }

    #[inline(always)]
    fn bits(self, from: &[u8; 32], part: usize) -> __m256i {
        // SAFETY: self holds the proof; the reference covers the bytes read.
        let bits = unsafe { _mm256_loadu_si256(from.as_ptr().cast()) };
        if part == 0 { bits } else { self.down::<4>(bits) }
    }

    #[inline(always)]
    fn up<const N: u32>(self, v: __m256i) -> __m256i {
        // SAFETY: self holds the proof.
        unsafe { _mm256_sll_epi32(v, _mm_cvtsi32_si128(N as i32)) }
    }

    #[inline(always)]
    fn down<const N: u32>(self, v: __m256i) -> __m256i {
        // SAFETY: self holds the proof.
        unsafe { _mm256_srl_epi32(v, _mm_cvtsi32_si128(N as i32)) }
    }

    #[inline(always)]
    fn and(self, v: __m256i, mask: u8) -> __m256i {
        // SAFETY: self holds the proof.
        unsafe { _mm256_and_si256(v, _mm256_set1_epi8(mask as i8)) }
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: self holds the proof.
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    fn zero(self) -> __m256i {
        // SAFETY: self holds the proof.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn dot<const BITS: usize>(self, sums: __m256i, codes: [__m256i; 4], x: &[i8; 16]) -> __m256i {
        // SAFETY: self holds the proof.
        let x = unsafe { quads(x) };
        self.0.dot::<BITS>(sums, codes, x)
    }

    #[inline(always)]
    fn put<const BITS: usize>(self, sums: __m256i, out: &mut [i32]) {
        assert!(out.len() >= 8);
        // SAFETY: self holds the proof; the slice covers the 8 values written.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sums) }
    }

    #[inline(always)]
    fn round(self, v: [__m256; 2]) -> [__m256i; 2] {
        // SAFETY: self holds the proof; the rounding mode is never changed from nearest, ties to even.
        unsafe { [_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1])] }
    }

    #[inline(always)]
    fn load_ints(self, x: &[i32; 16]) -> [__m256i; 2] {
        let x = x.as_chunks::<8>().0;
        // SAFETY: self holds the proof; the references cover the 8 values each that are read.
        unsafe { [_mm256_loadu_si256(x[0].as_ptr().cast()), _mm256_loadu_si256(x[1].as_ptr().cast())] }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> [__m256i; 2] {
        // SAFETY: self holds the proof.
        unsafe { [_mm256_set1_epi32(x); 2] }
    }

    #[inline(always)]
    fn shift_add<const N: u32>(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        let a = [self.up::<N>(a[0]), self.up::<N>(a[1])];
        // SAFETY: self holds the proof.
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }

    #[inline(always)]
    fn float(self, v: [__m256i; 2]) -> [__m256; 2] {
        // SAFETY: self holds the proof.
        unsafe { [_mm256_cvtepi32_ps(v[0]), _mm256_cvtepi32_ps(v[1])] }
    }

    /// The packs saturate: every value that matters fits in a byte.
    #[inline(always)]
    fn narrow(self, v: [__m256i; 2], out: &mut [i8; 16]) {
        // SAFETY: self holds the proof; the reference covers the 16 bytes written.
        unsafe {
            let words = _mm256_permute4x64_epi64::<0xD8>(_mm256_packs_epi32(v[0], v[1]));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn split(self, v: [__m256i; 2]) -> [[__m256i; 2]; 2] {
        // SAFETY: self holds the proof.
        unsafe {
            let low = _mm256_set1_epi32(127);
            [
                [_mm256_srai_epi32::<7>(v[0]), _mm256_srai_epi32::<7>(v[1])],
                [_mm256_and_si256(v[0], low), _mm256_and_si256(v[1], low)],
            ]
        }
    }

    #[inline(always)]
    fn prefetch(self, address: usize) {
        // SAFETY: self holds the proof; a prefetch touches no memory, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address)) }
    }
}

/// Four bytes of `x` in every lane.
#[inline]
#[target_feature(enable = "avx2")]
fn quads(x: &[i8; 16]) -> [__m256i; 4] {
    let word = |i: usize| i32::from_le_bytes([x[i] as u8, x[i + 1] as u8, x[i + 2] as u8, x[i + 3] as u8]);
    [
        _mm256_set1_epi32(word(0)),
        _mm256_set1_epi32(word(4)),
        _mm256_set1_epi32(word(8)),
        _mm256_set1_epi32(word(12)),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn alone(codes: __m256i, x: __m256i) -> __m256i {
    _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x), _mm256_set1_epi16(1))
}

#[inline]
#[target_feature(enable = "avx2")]
fn together(codes: [__m256i; 4], x: [__m256i; 4]) -> __m256i {
    let low = _mm256_add_epi16(_mm256_maddubs_epi16(codes[0], x[0]), _mm256_maddubs_epi16(codes[1], x[1]));
    let high = _mm256_add_epi16(_mm256_maddubs_epi16(codes[2], x[2]), _mm256_maddubs_epi16(codes[3], x[3]));
    _mm256_madd_epi16(_mm256_add_epi16(low, high), _mm256_set1_epi16(1))
}

#[inline]
#[target_feature(enable = "avx2")]
fn nibble(codes: __m256i) -> __m256i {
    _mm256_and_si256(codes, _mm256_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx2")]
fn upper(codes: __m256i) -> __m256i {
    nibble(_mm256_srli_epi32::<4>(codes))
}
