//! Byte vectors of the plane codecs: 32 codes in one register, products in pairs of 16 bits.

use crate::codecs::planes::{PlaneKernel, PlaneOps};
use crate::isa::Avx2;
use std::arch::x86_64::*;

/// Runs a plane kernel compiled for AVX2.
pub(crate) fn run<K: PlaneKernel>(proof: Avx2, kernel: K) {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn inner<K: PlaneKernel>(proof: Avx2, kernel: K) {
        kernel.run(proof);
    }
    // SAFETY: the proof says that the CPU has these features.
    unsafe { inner(proof, kernel) }
}

impl PlaneOps for Avx2 {
    type V = __m256i;
    type Sums = __m256i;
    const PARTS: usize = 2;

    #[inline(always)]
    fn bytes(self, from: &[u8; 64], part: usize) -> __m256i {
        let half = &from.as_chunks::<32>().0[part];
        // SAFETY: self is the proof that the CPU has AVX2; the reference covers the bytes read.
        unsafe { _mm256_loadu_si256(half.as_ptr().cast()) }
    }

    #[inline(always)]
    fn bits(self, from: &[u8; 32], part: usize) -> __m256i {
        // SAFETY: self is the proof; the reference covers the bytes read.
        let bits = unsafe { _mm256_loadu_si256(from.as_ptr().cast()) };
        if part == 0 { bits } else { self.down::<4>(bits) }
    }

    #[inline(always)]
    fn up<const N: u32>(self, v: __m256i) -> __m256i {
        // SAFETY: self is the proof.
        unsafe { _mm256_sll_epi32(v, _mm_cvtsi32_si128(N as i32)) }
    }

    #[inline(always)]
    fn down<const N: u32>(self, v: __m256i) -> __m256i {
        // SAFETY: self is the proof.
        unsafe { _mm256_srl_epi32(v, _mm_cvtsi32_si128(N as i32)) }
    }

    #[inline(always)]
    fn and(self, v: __m256i, mask: u8) -> __m256i {
        // SAFETY: self is the proof.
        unsafe { _mm256_and_si256(v, _mm256_set1_epi8(mask as i8)) }
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: self is the proof.
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    fn zero(self) -> __m256i {
        // SAFETY: self is the proof.
        unsafe { _mm256_setzero_si256() }
    }

    /// Pairs of products saturate at 16 bits, so: up to 5 bits four quads together (31 * 127 * 2 * 4 fits), up to 7 bits each
    /// alone, 8 bits in halves of 4.
    #[inline(always)]
    fn dot<const BITS: usize>(self, sums: __m256i, codes: [__m256i; 4], x: &[i8; 16]) -> __m256i {
        let x = x.as_chunks::<4>().0;
        // SAFETY: self is the proof.
        unsafe {
            let one = _mm256_set1_epi16(1);
            let quad = |i: usize| _mm256_set1_epi32(i32::from_le_bytes(x[i].map(|x| x as u8)));
            let pairs = |i: usize, codes: __m256i| _mm256_maddubs_epi16(codes, quad(i));
            let all = |codes: [__m256i; 4]| {
                let low = _mm256_add_epi16(pairs(0, codes[0]), pairs(1, codes[1]));
                let high = _mm256_add_epi16(pairs(2, codes[2]), pairs(3, codes[3]));
                _mm256_madd_epi16(_mm256_add_epi16(low, high), one)
            };
            let each = |i: usize| _mm256_madd_epi16(pairs(i, codes[i]), one);
            let sum = match BITS {
                2..=5 => all(codes),
                6 | 7 => {
                    let low = _mm256_add_epi32(each(0), each(1));
                    _mm256_add_epi32(low, _mm256_add_epi32(each(2), each(3)))
                }
                _ => {
                    let low = codes.map(|codes| self.and(codes, 15));
                    let high = codes.map(|codes| self.and(self.down::<4>(codes), 15));
                    _mm256_add_epi32(all(low), _mm256_slli_epi32::<4>(all(high)))
                }
            };
            _mm256_add_epi32(sums, sum)
        }
    }

    #[inline(always)]
    fn put(self, sums: __m256i, out: &mut [i32]) {
        assert!(out.len() >= 8);
        // SAFETY: self is the proof; the slice covers the 8 values written.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sums) }
    }
}
