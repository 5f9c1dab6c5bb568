//! IQ2_S: each 8 values are an index of 1024 entries, its upper bits apart, and 8 signs; a scale for each 16.

use super::codebook::{Book, anew, broadcast_halves, load_halves};
use super::eights::{self, Entries};
use super::grid::{self, Grid, Signed};
use super::iq2::{self, Iq2};
use crate::isa::Avx512;
use crate::types::TileFn;
use crate::types::codebooks::packed;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(proof: Avx512) -> TileFn {
    eights::tile::<Signed<Iq2S>>(proof)
}

struct Iq2S;

static BOOK: Book<1024> = iq2::book(&packed::IQ2_S);

impl Grid for Iq2S {
    const BYTES: usize = 82;
    const FACTOR: f32 = 0.125;
    const SUB: usize = 16;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode(blocks: [*const u8; 2]) -> ([[__m512i; 4]; 2], [[u64; 4]; 2]) {
        // SAFETY: as the caller promises.
        unsafe { iq2::decode::<Self>(blocks) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn scales(block: *const u8, p: usize) -> __m512i {
        // SAFETY: the last eight bytes of the block that the caller vouches for.
        let nibbles = _mm512_set1_epi64(unsafe { block.add(74).cast::<i64>().read_unaligned() });
        grid::odd_words(nibbles, grid::sub_16(p).map(|sub| 4 * sub))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn d(w: *const u8) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { grid::first_f16::<82>(w) }
    }
}

/// Shifts for `vpmultishiftqb`: qword q of a half has the pairs of bits of indices `8 q..8 q + 8`.
const PAIRS: [i64; 4] = {
    let mut by = [0x0e0c_0a08_0604_0200; 4];
    let mut q = 0;
    while q < 4 {
        by[q] += q as i64 * 0x1010_1010_1010_1010;
        q += 1;
    }
    by
};

impl Iq2 for Iq2S {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn entries<const V: usize>(blocks: [[*const u8; 2]; V]) -> [Entries; V] {
        let (mut indices, mut signs) = ([_mm512_setzero_si512(); V], [_mm512_setzero_si512(); V]);
        let mut bits = [[0; 2]; V];
        for v in 0..V {
            // SAFETY: bytes 2..34, 34..66 and 66..74 of the blocks that the caller vouches for.
            let upper = unsafe {
                indices[v] = load_halves(blocks[v], 2);
                signs[v] = load_halves(blocks[v], 34);
                broadcast_halves(blocks[v], 66)
            };
            let by = _mm512_broadcast_i64x4(_mm256_setr_epi64x(PAIRS[0], PAIRS[1], PAIRS[2], PAIRS[3]));
            let upper = _mm512_multishift_epi64_epi8(by, upper);
            bits[v][0] = _mm512_test_epi8_mask(upper, _mm512_set1_epi8(1));
            bits[v][1] = _mm512_test_epi8_mask(upper, _mm512_set1_epi8(2));
        }
        let halves = anew(&BOOK).halves(indices, bits);
        std::array::from_fn(|v| Entries { halves: halves[v], more: signs[v] })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn scaled(blocks: [*const u8; 2], sums: [__m512i; 2]) -> __m512i {
        // SAFETY: as the caller promises.
        unsafe { iq2::scaled_by_nibbles::<74>(blocks, sums) }
    }
}
