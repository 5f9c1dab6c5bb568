//! IQ1_M: each 8 values have a nibble with the upper bits of their index and the sign of their shift; a scale for each
//! 16; the float scale lies in the top nibbles of four words.

use super::codebook::{broadcast_halves, load_halves, load_quarters, words};
use super::eights::Copied;
use super::grid::sub_16;
use super::linear::load;
use super::load::Rows;
use super::ternary::{self, Shifted};
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(proof: Avx512) -> TileFn {
    ternary::tile::<Iq1M>(proof)
}

struct Iq1M;

/// The place of scale `k`'s three bits among the 64 bits of scales.
const fn scale_bit(k: usize) -> u8 {
    (k / 4 * 16 + k % 4 * 3) as u8
}

/// Shifts for `vpmultishiftqb` that bring the scales of 16 sub-blocks, twice, to place 1 of words.
static WORD_SCALES: [u64; 8] = {
    let mut by = [0; 8];
    let mut k = 0;
    while k < 32 {
        by[k / 4] |= (scale_bit(k % 16).wrapping_sub(1) as u64 & 63) << (16 * (k % 4));
        k += 1;
    }
    by
};

/// The 64 bits of scales.
///
/// # Safety
/// The block can be read.
#[inline]
unsafe fn scale_bits(block: *const u8) -> i64 {
    // SAFETY: the last eight bytes of the block.
    unsafe { block.add(48).cast::<i64>().read_unaligned() }
}

/// The float scales of eight blocks, a qword of scales each, divided by 8: the top nibbles of four words, lowest first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
fn top_nibbles(bits: __m512i) -> __m256 {
    let low = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(12 + (44 << 8)), bits);
    let high = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(24 + (56 << 8)), bits);
    // The low nibbles of `low`, the high ones of `high`.
    let halves = _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi8(15), low, high);
    _mm256_mul_ps(_mm256_cvtph_ps(_mm512_cvtepi64_epi16(halves)), _mm256_set1_ps(0.125))
}

/// The float scales of 16 blocks, divided by 8.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
fn sixteen([low, high]: [__m512i; 2]) -> __m512 {
    _mm512_insertf32x8::<1>(_mm512_castps256_ps512(top_nibbles(low)), top_nibbles(high))
}

/// The nibbles of two blocks in the high bits of 64 bytes, other bits whatever.
///
/// # Safety
/// The CPU has the tier; the bytes of both blocks can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
unsafe fn nibbles(blocks: [*const u8; 2]) -> __m512i {
    // SAFETY: bytes 32..48 of the blocks.
    let both = _mm512_castsi256_si512(unsafe { load_quarters(blocks, 32) });
    let twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    let by = _mm512_set1_epi64(i64::from_le_bytes([60, 0, 4, 8, 12, 16, 20, 24]));
    _mm512_multishift_epi64_epi8(by, _mm512_permutexvar_epi32(twice, both))
}

impl Shifted for Iq1M {
    const BYTES: usize = 56;
    const SUB: usize = 16;
    const STARTS: usize = 2;
    const EXTRA: u8 = 1;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn indices(blocks: [*const u8; 2]) -> [__m512i; 2] {
        // SAFETY: as the caller promises.
        unsafe { [load_halves(blocks, 0), nibbles(blocks)] }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn negative(blocks: [*const u8; 2]) -> __mmask64 {
        // SAFETY: as the caller promises.
        _mm512_movepi8_mask(unsafe { nibbles(blocks) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn scales(block: *const u8, p: usize) -> __m512i {
        let mut first = sub_16(p);
        for bit in &mut first {
            *bit = scale_bit(usize::from(*bit));
        }
        // SAFETY: as the caller promises.
        ternary::scale_words(_mm512_set1_epi64(unsafe { scale_bits(block) }), first)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn scaled(blocks: [*const u8; 2], [a, b]: [__m512i; 2]) -> __m512i {
        // SAFETY: as the caller promises, and a table of 64 bytes.
        let (both, by) = unsafe { (broadcast_halves(blocks, 48), load(WORD_SCALES.as_ptr().cast())) };
        let bits = _mm512_multishift_epi64_epi8(by, both);
        // 1 | (bits & 14)
        let scales = _mm512_ternarylogic_epi32::<0xf8>(_mm512_set1_epi16(1), bits, _mm512_set1_epi16(14));
        // Sums of 16 products fit i16 (16 * 9 * 127).
        _mm512_madd_epi16(_mm512_packs_epi32(a, b), scales)
    }

    /// -8 or -10 times the sums of 8: weights are one too large.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn starts(_: [*const u8; 2], upper: __m512i, lines: *const u8) -> [__m512i; 2] {
        let zero = _mm512_setzero_si512();
        // The sign, bit 7, is worth 2: 8 | (bits & 2)
        let (bits, two) = (_mm512_srli_epi16::<6>(upper), _mm512_set1_epi8(2));
        let factors = _mm512_ternarylogic_epi32::<0xf8>(_mm512_set1_epi8(8), bits, two);
        let factors = words([factors, zero]);
        // SAFETY: as the caller promises.
        let line = |i: usize| unsafe { load(lines.add(64 * i)) };
        [_mm512_madd_epi16(factors[0], line(0)), _mm512_madd_epi16(factors[1], line(1))]
    }

    /// The negative sums of runs of 8, eight runs by turns.
    fn arrange_starts(q: &[i8], _sums: &[i16], lines: &mut [[u8; 64]]) {
        for (i, q) in q.chunks_exact(64).enumerate() {
            let places = lines[i % 2][16 * (i / 2)..].as_chunks_mut::<2>().0;
            for (q, place) in q.as_chunks::<8>().0.iter().zip(places) {
                *place = (-q.iter().map(|&q| i16::from(q)).sum::<i16>()).to_ne_bytes();
            }
        }
    }

    #[inline]
    unsafe fn copy_d(w: *const u8, to: &mut Copied) {
        // SAFETY: as the caller promises.
        unsafe { to.copy::<i64>(w, Self::BYTES, 48) };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn copied_d(copied: &Copied) -> __m512 {
        sixteen([copied.line(0), copied.line(1)])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn row_d(rows: Rows) -> __m512 {
        // SAFETY: as the caller promises.
        let bits = |k: usize| unsafe { scale_bits(rows.base.add(k * rows.stride)) };
        let eight = |k: usize| {
            _mm512_setr_epi64(
                bits(k),
                bits(k + 1),
                bits(k + 2),
                bits(k + 3),
                bits(k + 4),
                bits(k + 5),
                bits(k + 6),
                bits(k + 7),
            )
        };
        sixteen([eight(0), eight(8)])
    }
}
