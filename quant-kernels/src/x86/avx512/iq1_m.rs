//! IQ1_M: each 8 values have a nibble with the upper bits of their index and the sign of their shift; a scale for each
//! 16; the float scale lies in the top nibbles of four words.

use super::codebook::load_halves;
use super::grid::sub_16;
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

/// The 64 bits of scales.
///
/// # Safety
/// The block can be read.
#[inline]
unsafe fn scale_bits(block: *const u8) -> i64 {
    // SAFETY: the last eight bytes of the block.
    unsafe { block.add(48).cast::<i64>().read_unaligned() }
}

/// Eight shifts for `vpmultishiftqb` that bring the scale of values `8 g..8 g + 8` to place 1 of word `g`.
static RUN_SCALES: [u64; 8] = {
    let mut by = [0; 8];
    let mut g = 0;
    while g < 32 {
        by[g / 4] |= (scale_bit(g / 2).wrapping_sub(1) as u64 & 63) << (16 * (g % 4));
        g += 1;
    }
    by
};

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

/// The float scales of 16 blocks at a distance of `step` bytes.
///
/// # Safety
/// The CPU has the tier; the blocks can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
unsafe fn d(block: *const u8, step: usize) -> __m512 {
    // SAFETY: as the caller promises.
    let bits = |k: usize| unsafe { scale_bits(block.add(k * step)) };
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
    _mm512_insertf32x8::<1>(_mm512_castps256_ps512(top_nibbles(eight(0))), top_nibbles(eight(8)))
}

/// The nibbles of two blocks in the low bits of 64 bytes, other bits whatever.
///
/// # Safety
/// The CPU has the tier; the bytes of both blocks can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
unsafe fn nibbles(blocks: [*const u8; 2]) -> __m512i {
    // SAFETY: bytes 32..48 of the blocks.
    let (a, b) =
        unsafe { (_mm_loadu_si128(blocks[0].add(32).cast()), _mm_loadu_si128(blocks[1].add(32).cast())) };
    let both = _mm512_castsi256_si512(_mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b));
    let twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    let by = _mm512_set1_epi64(i64::from_le_bytes([0, 4, 8, 12, 16, 20, 24, 28]));
    _mm512_multishift_epi64_epi8(by, _mm512_permutexvar_epi32(twice, both))
}

impl Shifted for Iq1M {
    const BYTES: usize = 56;
    const SUB: usize = 16;
    const RUN: usize = 8;

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
        _mm512_test_epi8_mask(unsafe { nibbles(blocks) }, _mm512_set1_epi8(8))
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
    unsafe fn offsets(block: *const u8) -> __m512i {
        // SAFETY: as the caller promises, and a table of 64 bytes.
        let (bits, nibbles, by) = unsafe {
            (
                scale_bits(block),
                _mm_loadu_si128(block.add(32).cast()),
                _mm512_loadu_si512(RUN_SCALES.as_ptr().cast()),
            )
        };
        let bits = _mm512_multishift_epi64_epi8(by, _mm512_set1_epi64(bits));
        // Bit 3 of every nibble to bit 7 of a byte: nibble 2 k, then nibble 2 k + 1.
        let nibbles = _mm256_cvtepu8_epi16(nibbles);
        let nibbles = _mm256_or_si256(_mm256_slli_epi16::<4>(nibbles), _mm256_slli_epi16::<8>(nibbles));
        ternary::offset_words(bits, _mm256_movepi8_mask(nibbles))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn d(w: *const u8) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { d(w, Self::BYTES) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn row_d(rows: Rows) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { d(rows.base, rows.stride) }
    }
}
