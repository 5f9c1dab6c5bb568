//! IQ2_XXS: each 32 values are 4 indices of 256 entries, then 4 times 7 signs and a scale.

use super::codebook::{Book, anew, load_pair, signs_of_seven};
use super::eights::{self, Entries};
use super::grid::{self, Grid, Signed};
use super::iq2::{self, Iq2};
use super::linear::load;
use crate::isa::Avx512;
use crate::types::TileFn;
use crate::types::codebooks::packed;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(proof: Avx512) -> TileFn {
    eights::tile::<Signed<Iq2Xxs>>(proof)
}

struct Iq2Xxs;

static BOOK: Book<256> = iq2::book(&packed::IQ2_XXS);

#[repr(align(64))]
struct Bytes([u8; 64]);

/// The lower four bytes of every qword of two registers.
static LOWER_HALVES: Bytes = {
    let mut table = [0; 64];
    let mut i = 0;
    while i < 64 {
        table[i] = (i / 4 * 8 + i % 4) as u8;
        i += 1;
    }
    Bytes(table)
};

impl Grid for Iq2Xxs {
    const BYTES: usize = 66;
    const FACTOR: f32 = 0.125;
    const SUB: usize = 32;
    const WIDE: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode(blocks: [*const u8; 2]) -> ([[__m512i; 4]; 2], [[u64; 4]; 2]) {
        // SAFETY: as the caller promises.
        unsafe { iq2::decode::<Self>(blocks) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn scales(block: *const u8, p: usize) -> __m512i {
        // SAFETY: bytes 2..66 of the block that the caller vouches for.
        let qwords = unsafe { load(block.add(2)) };
        let sub = grid::sub_32(p).map(i64::from);
        let sub = _mm512_setr_epi64(sub[0], sub[1], sub[2], sub[3], sub[4], sub[5], sub[6], sub[7]);
        grid::odd_words(_mm512_permutexvar_epi64(sub, qwords), [60; 8])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn d(w: *const u8) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { grid::first_f16::<66>(w) }
    }
}

impl Iq2 for Iq2Xxs {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn entries<const V: usize>(blocks: [[*const u8; 2]; V]) -> [Entries; V] {
        let (mut indices, mut signs) = ([_mm512_setzero_si512(); V], [_mm512_setzero_si512(); V]);
        for v in 0..V {
            // SAFETY: bytes 2..66 of the blocks that the caller vouches for, and a table of 64 bytes.
            let ([a, b], lower) = unsafe { (load_pair(blocks[v], 2), load(LOWER_HALVES.0.as_ptr())) };
            indices[v] = _mm512_permutex2var_epi8(a, lower, b);
            let by = _mm512_set1_epi64(i64::from_le_bytes([32, 39, 46, 53, 0, 0, 0, 0]));
            let (c, d) = (_mm512_multishift_epi64_epi8(by, a), _mm512_multishift_epi64_epi8(by, b));
            signs[v] = signs_of_seven(_mm512_permutex2var_epi8(c, lower, d));
        }
        let halves = anew(&BOOK).halves(indices, [[0; 2]; V]);
        std::array::from_fn(|v| Entries { halves: halves[v], more: signs[v] })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn scaled(blocks: [*const u8; 2], [a, b]: [__m512i; 2]) -> __m512i {
        // SAFETY: bytes 2..66 of the blocks that the caller vouches for.
        let [first, second] = unsafe { load_pair(blocks, 2) };
        let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        let bits = _mm512_srli_epi32::<27>(_mm512_permutex2var_epi32(first, odd, second));
        // 1 | (bits & 30)
        let scales = _mm512_ternarylogic_epi32::<0xf8>(_mm512_set1_epi32(1), bits, _mm512_set1_epi32(30));
        _mm512_mullo_epi32(_mm512_add_epi32(a, b), scales)
    }
}
