//! IQ2_XS: each 8 values are an index of 512 entries and 7 signs; a scale for each 16.

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
    eights::tile::<Signed<Iq2Xs>>(proof)
}

struct Iq2Xs;

static BOOK: Book<512> = iq2::book(&packed::IQ2_XS);

#[repr(align(64))]
struct Bytes([u8; 64]);

/// The even bytes of two registers; the odd ones follow them.
static EVEN: Bytes = {
    let mut table = [0; 64];
    let mut i = 0;
    while i < 64 {
        table[i] = 2 * i as u8;
        i += 1;
    }
    Bytes(table)
};

impl Grid for Iq2Xs {
    const BYTES: usize = 74;
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
        let nibbles = _mm512_set1_epi64(unsafe { block.add(66).cast::<i64>().read_unaligned() });
        grid::odd_words(nibbles, grid::sub_16(p).map(|sub| 4 * sub))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn d(w: *const u8) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { grid::first_f16::<74>(w) }
    }
}

impl Iq2 for Iq2Xs {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn entries<const V: usize>(blocks: [[*const u8; 2]; V]) -> [Entries; V] {
        let (mut indices, mut signs) = ([_mm512_setzero_si512(); V], [_mm512_setzero_si512(); V]);
        let mut bits = [[0; 2]; V];
        for v in 0..V {
            // SAFETY: bytes 2..66 of the blocks that the caller vouches for, and a table of 64 bytes.
            let ([a, b], even) = unsafe { (load_pair(blocks[v], 2), load(EVEN.0.as_ptr())) };
            indices[v] = _mm512_permutex2var_epi8(a, even, b);
            // The ninth bit of the index, then seven signs.
            let upper = _mm512_permutex2var_epi8(a, _mm512_or_si512(even, _mm512_set1_epi8(1)), b);
            bits[v][0] = _mm512_test_epi8_mask(upper, _mm512_set1_epi8(1));
            signs[v] = signs_of_seven(_mm512_srli_epi16::<1>(upper));
        }
        let halves = anew(&BOOK).halves(indices, bits);
        std::array::from_fn(|v| Entries { halves: halves[v], more: signs[v] })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn scaled(blocks: [*const u8; 2], sums: [__m512i; 2]) -> __m512i {
        // SAFETY: as the caller promises.
        unsafe { iq2::scaled_by_nibbles::<66>(blocks, sums) }
    }
}
