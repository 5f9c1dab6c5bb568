//! IQ3_S: each 4 values are an index of 512 entries, its upper bit apart, and signs; a scale for each 32.

use super::codebook::{Book, Levels, load_pair, spread_fours, words};
use super::grid::{self, Grid};
use crate::isa::Avx512;
use crate::types::TileFn;
use crate::types::codebooks::{IQ3_S_LEVELS, packed};
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(proof: Avx512) -> TileFn {
    grid::tile::<Iq3S>(proof)
}

struct Iq3S;

static BOOK: Book<512> = Book::new(&packed::IQ3_S);
static LEVELS: Levels = Levels::new(IQ3_S_LEVELS);

impl Grid for Iq3S {
    const BYTES: usize = 110;
    const FACTOR: f32 = 1.0;
    const SUB: usize = 32;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode(blocks: [*const u8; 2]) -> ([[__m512i; 4]; 2], [[u64; 4]; 2]) {
        // SAFETY: bytes 2..66, 66..74 and 74..106 of the blocks that the caller vouches for.
        let (indices, ninth, signs) = unsafe {
            let [a, b] = blocks;
            (
                load_pair(blocks, 2),
                [a.add(66).cast::<u64>().read_unaligned(), b.add(66).cast::<u64>().read_unaligned()],
                [
                    a.add(74).cast::<[u64; 4]>().read_unaligned(),
                    b.add(74).cast::<[u64; 4]>().read_unaligned(),
                ],
            )
        };
        let [a, b] = BOOK.halves(indices, [[ninth[0], 0], [ninth[1], 0]]);
        ([LEVELS.of(spread_fours(words(a))), LEVELS.of(spread_fours(words(b)))], signs)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn scales(block: *const u8, p: usize) -> __m512i {
        // SAFETY: the last four bytes of the block that the caller vouches for.
        let nibbles = _mm512_set1_epi32(unsafe { block.add(106).cast::<i32>().read_unaligned() });
        grid::odd_words(nibbles, grid::sub_32(p).map(|sub| 4 * sub))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn d(w: *const u8) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { grid::first_f16::<110>(w) }
    }
}
