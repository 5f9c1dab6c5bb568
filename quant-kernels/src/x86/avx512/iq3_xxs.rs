//! IQ3_XXS: each 4 values are an index of 256 entries; 4 times 7 signs and a scale for each 32.

use super::codebook::{Book, Levels, load_halves, load_pair, masks, signs_of_seven, spread_fours, words};
use super::grid::{self, Grid};
use crate::isa::Avx512;
use crate::types::TileFn;
use crate::types::codebooks::{IQ3_XXS_LEVELS, packed};
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(proof: Avx512) -> TileFn {
    grid::tile::<Iq3Xxs>(proof)
}

struct Iq3Xxs;

static BOOK: Book<256> = Book::new(&packed::IQ3_XXS);
static LEVELS: Levels = Levels::new(IQ3_XXS_LEVELS);

impl Grid for Iq3Xxs {
    const BYTES: usize = 98;
    const FACTOR: f32 = 0.25;
    const SUB: usize = 32;
    const WIDE: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode(blocks: [*const u8; 2]) -> ([[__m512i; 4]; 2], [[u64; 4]; 2]) {
        // SAFETY: bytes 2..66 and 66..98 of the blocks that the caller vouches for.
        let (indices, signs) = unsafe { (load_pair(blocks, 2), load_halves(blocks, 66)) };
        let by = _mm512_set1_epi64(i64::from_le_bytes([0, 7, 14, 21, 32, 39, 46, 53]));
        let signs = masks(signs_of_seven(_mm512_multishift_epi64_epi8(by, signs)));
        let [a, b] = BOOK.halves(indices, [[0; 2]; 2]);
        ([LEVELS.of(spread_fours(words(a))), LEVELS.of(spread_fours(words(b)))], signs)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn scales(block: *const u8, p: usize) -> __m512i {
        // SAFETY: the last 32 bytes of the block that the caller vouches for.
        let dwords = unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(block.add(66).cast())) };
        let sub = grid::sub_32(p).map(|sub| i64::from(sub) * 0x1_0000_0001);
        let sub = _mm512_setr_epi64(sub[0], sub[1], sub[2], sub[3], sub[4], sub[5], sub[6], sub[7]);
        grid::odd_words(_mm512_permutexvar_epi32(sub, dwords), [28; 8])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn d(w: *const u8) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { grid::first_f16::<98>(w) }
    }
}
