//! IQ2_S: each 8 values are an index of 1024 entries, its upper bits apart, and 8 signs; a scale for each 16.

use super::codebook::{Book, by_blocks, load_halves, spread_eights};
use super::grid::{self, Grid};
use super::iq2_xxs::LEVELS;
use crate::isa::Avx512;
use crate::types::TileFn;
use crate::types::codebooks::packed;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(proof: Avx512) -> TileFn {
    grid::tile::<Iq2S>(proof)
}

struct Iq2S;

static BOOK: Book<1024> = Book::new(&packed::IQ2_S);

impl Grid for Iq2S {
    const BYTES: usize = 82;
    const FACTOR: f32 = 0.125;
    const SUB: usize = 16;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode(blocks: [*const u8; 2]) -> ([[__m512i; 4]; 2], [[u64; 4]; 2]) {
        // SAFETY: bytes 2..34, 34..66 and 66..74 of the blocks that the caller vouches for.
        let (indices, a, b, signs) = unsafe {
            let [a, b] = blocks;
            (
                load_halves(blocks, 2),
                a.add(66).cast::<i64>().read_unaligned(),
                b.add(66).cast::<i64>().read_unaligned(),
                [
                    a.add(34).cast::<[u64; 4]>().read_unaligned(),
                    b.add(34).cast::<[u64; 4]>().read_unaligned(),
                ],
            )
        };
        let upper = _mm512_inserti64x4::<1>(_mm512_set1_epi64(a), _mm256_set1_epi64x(b));
        // Qword q of a half has the pairs of bits of indices 8 q..8 q + 8.
        const BY: [i64; 4] = {
            let mut by = [0x0e0c_0a08_0604_0200; 4];
            let mut q = 0;
            while q < 4 {
                by[q] += q as i64 * 0x1010_1010_1010_1010;
                q += 1;
            }
            by
        };
        let by = _mm512_broadcast_i64x4(_mm256_setr_epi64x(BY[0], BY[1], BY[2], BY[3]));
        let upper = _mm512_multishift_epi64_epi8(by, upper);
        let ninth = _mm512_test_epi8_mask(upper, _mm512_set1_epi8(1));
        let tenth = _mm512_test_epi8_mask(upper, _mm512_set1_epi8(2));
        let [words] = BOOK.entries([indices], [[ninth, tenth, 0]]);
        (by_blocks(LEVELS.of(spread_eights(words, 0))), signs)
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
