//! Byte vectors of the plane codecs: 64 codes in one register, VNNI dot products.

use crate::codecs::planes::{PlaneKernel, PlaneOps};
use crate::isa::Avx512;
use std::arch::x86_64::*;

/// Runs a plane kernel compiled for AVX-512 with VNNI.
pub(crate) fn run<K: PlaneKernel>(proof: Avx512, kernel: K) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    fn inner<K: PlaneKernel>(proof: Avx512, kernel: K) {
        kernel.run(proof);
    }
    // SAFETY: the proof says that the CPU has these features.
    unsafe { inner(proof, kernel) }
}

impl PlaneOps for Avx512 {
    type Bytes = __m512i;
    type Ints = __m512i;
    /// Two chains, so that products need not wait for each other: of the first two quads and of the others.
    type Sums = [__m512i; 2];
    const PARTS: usize = 1;
    const HIGH_NIBBLES: bool = true;

    #[inline(always)]
    fn bytes(self, from: &[u8; 64], _part: usize) -> __m512i {
        // SAFETY: self is the proof that the CPU has AVX-512 F; the reference covers the bytes read.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn bits(self, from: &[u8; 32], _part: usize) -> __m512i {
        // SAFETY: self is the proof; the reference covers the bytes read.
        unsafe {
            let both = _mm512_broadcast_i64x4(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_mask_srli_epi64::<4>(both, 0xF0, both)
        }
    }

    #[inline(always)]
    fn up<const N: u32>(self, v: __m512i) -> __m512i {
        // SAFETY: self is the proof.
        unsafe { _mm512_slli_epi32::<N>(v) }
    }

    #[inline(always)]
    fn down<const N: u32>(self, v: __m512i) -> __m512i {
        // SAFETY: self is the proof.
        unsafe { _mm512_srli_epi32::<N>(v) }
    }

    #[inline(always)]
    fn and(self, v: __m512i, mask: u8) -> __m512i {
        // SAFETY: self is the proof.
        unsafe { _mm512_and_si512(v, _mm512_set1_epi8(mask as i8)) }
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: self is the proof.
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    fn zero(self) -> [__m512i; 2] {
        // SAFETY: self is the proof.
        unsafe { [_mm512_setzero_si512(); 2] }
    }

    #[inline(always)]
    fn dot<const BITS: usize>(self, sums: [__m512i; 2], codes: [__m512i; 4], x: &[i8; 16]) -> [__m512i; 2] {
        let [a, b] = sums;
        // SAFETY: self is the proof, of VNNI too.
        unsafe {
            let x = quads(x);
            let a = _mm512_dpbusd_epi32(a, codes[0], x[0]);
            let b = _mm512_dpbusd_epi32(b, codes[2], x[2]);
            [_mm512_dpbusd_epi32(a, codes[1], x[1]), _mm512_dpbusd_epi32(b, codes[3], x[3])]
        }
    }

    #[inline(always)]
    fn put<const BITS: usize>(self, [a, b]: [__m512i; 2], out: &mut [i32]) {
        assert!(out.len() >= 16);
        // SAFETY: self is the proof; the slice covers the 16 values written.
        unsafe {
            let b = if BITS == 4 { _mm512_srai_epi32::<4>(b) } else { b };
            _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_add_epi32(a, b));
        }
    }

    #[inline(always)]
    fn round(self, v: __m512) -> __m512i {
        // SAFETY: self is the proof; the rounding mode is never changed from nearest, ties to even.
        unsafe { _mm512_cvtps_epi32(v) }
    }

    #[inline(always)]
    fn load_ints(self, x: &[i32; 16]) -> __m512i {
        // SAFETY: self is the proof; the reference covers the 16 values read.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> __m512i {
        // SAFETY: self is the proof.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    fn shift_add<const N: u32>(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: self is the proof.
        unsafe { _mm512_add_epi32(_mm512_slli_epi32::<N>(a), b) }
    }

    #[inline(always)]
    fn float(self, v: __m512i) -> __m512 {
        // SAFETY: self is the proof.
        unsafe { _mm512_cvtepi32_ps(v) }
    }

    #[inline(always)]
    fn narrow(self, v: __m512i, out: &mut [i8; 16]) {
        // SAFETY: self is the proof; the reference covers the 16 bytes written.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(v)) }
    }

    #[inline(always)]
    fn narrow_four(self, v: [__m512i; 4], out: &mut [i8; 64]) {
        // SAFETY: self is the proof; the reference covers the 64 bytes written.
        unsafe {
            let (low, high) = (_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
            _mm512_storeu_si512(out.as_mut_ptr().cast(), packed(low, high));
        }
    }

    #[inline(always)]
    fn split_four(self, v: [__m512i; 4], high: &mut [i8; 64], low: &mut [i8; 64]) {
        // SAFETY: self is the proof; the references cover the 64 bytes each that are written.
        unsafe {
            let (a, b) = (_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
            let upper = packed(_mm512_srai_epi16::<7>(a), _mm512_srai_epi16::<7>(b));
            let mask = _mm512_set1_epi16(127);
            let lower = packed(_mm512_and_si512(a, mask), _mm512_and_si512(b, mask));
            _mm512_storeu_si512(high.as_mut_ptr().cast(), upper);
            _mm512_storeu_si512(low.as_mut_ptr().cast(), lower);
        }
    }

    #[inline(always)]
    fn split(self, v: __m512i) -> [__m512i; 2] {
        // SAFETY: self is the proof.
        unsafe { [_mm512_srai_epi32::<7>(v), _mm512_and_si512(v, _mm512_set1_epi32(127))] }
    }

    #[inline(always)]
    fn largest(self, v: [__m512; 4]) -> [f32; 4] {
        // SAFETY: self is the proof.
        unsafe { largest(v) }
    }

    #[inline(always)]
    fn prefetch(self, address: usize) {
        // SAFETY: self is the proof; a prefetch touches no memory, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address)) }
    }
}

/// The low bytes of four vectors, of which `a` is the first two packed to 16 bits, `b` the others.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn packed(a: __m512i, b: __m512i) -> __m512i {
    // a quad of every vector in each 128 bits
    let quads = _mm512_packs_epi16(a, b);
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_permutexvar_epi32(order, quads)
}

/// The largest lane of each vector.
#[inline]
#[target_feature(enable = "avx512f")]
fn largest(v: [__m512; 4]) -> [f32; 4] {
    let halves = |a, b| _mm512_max_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xEE>(a, b));
    let (low, high) = (halves(v[0], v[1]), halves(v[2], v[3]));
    // a quad of each vector
    let quads =
        _mm512_max_ps(_mm512_shuffle_f32x4::<0x88>(low, high), _mm512_shuffle_f32x4::<0xDD>(low, high));
    let pairs = _mm512_max_ps(quads, _mm512_permute_ps::<0x4E>(quads));
    let all = _mm512_max_ps(pairs, _mm512_permute_ps::<0xB1>(pairs));
    let mut out = [0.0; 16];
    // SAFETY: the array covers the 16 values written.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), all) };
    [out[0], out[4], out[8], out[12]]
}

/// Four bytes of `x` in every lane: operands that dot products broadcast from memory.
#[inline]
#[target_feature(enable = "avx512f")]
fn quads(x: &[i8; 16]) -> [__m512i; 4] {
    let word = |i: usize| i32::from_le_bytes([x[i] as u8, x[i + 1] as u8, x[i + 2] as u8, x[i + 3] as u8]);
    [
        _mm512_set1_epi32(word(0)),
        _mm512_set1_epi32(word(4)),
        _mm512_set1_epi32(word(8)),
        _mm512_set1_epi32(word(12)),
    ]
}
