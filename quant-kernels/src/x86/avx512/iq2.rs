//! What IQ2_XXS, IQ2_XS and IQ2_S share: three magnitudes, a sign for each value, odd scales 1..=31.
//!
//! Four signs and four magnitudes of an entry make two indices of 6 bits: two signs, two magnitudes. Codebooks have the
//! values in an order in which that takes few shifts.

use super::codebook::{Book, Levels, broadcast_halves, by_blocks, masks, spread_eights, words};
use super::eights::{Copied, Eights, Entries, arrange_products, mixed, sub_block};
use super::grid::{Grid, Signed};
use super::linear::load;
use crate::types::codebooks::IQ2_LEVELS;
use std::arch::x86_64::*;

/// One of these types.
pub(super) trait Iq2: Grid {
    /// The entries of some pairs of blocks, and their signs.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of the blocks can be read.
    unsafe fn entries<const V: usize>(blocks: [[*const u8; 2]; V]) -> [Entries; V];

    /// As [`Eights::scaled`].
    ///
    /// # Safety
    /// As for [`Iq2::entries`].
    unsafe fn scaled(blocks: [*const u8; 2], sums: [__m512i; 2]) -> __m512i;
}

/// As [`Eights::ORDER`].
const ORDER: [usize; 8] = [4, 5, 0, 1, 6, 7, 2, 3];
/// Where an entry has its values.
const PLACES: [u8; 8] = [4, 6, 12, 14, 0, 2, 8, 10];

/// The codebook of one of these types.
pub(super) const fn book<const N: usize>(packed: &[u16; N]) -> Book<N> {
    Book::ordered(packed, ORDER)
}

static LEVELS: Levels = Levels::from_bit(IQ2_LEVELS, 0);

/// As [`Grid::decode`].
///
/// # Safety
/// The CPU has the tier; the bytes of both blocks can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn decode<I: Iq2>(blocks: [*const u8; 2]) -> ([[__m512i; 4]; 2], [[u64; 4]; 2]) {
    // SAFETY: as the caller promises.
    let [Entries { halves, more }] = unsafe { I::entries([blocks]) };
    (by_blocks(LEVELS.of(spread_eights(words(halves), PLACES, 0))), masks(more))
}

/// As [`Eights::scaled`] for scales that are the nibbles of the qword at byte `AT`.
///
/// # Safety
/// The CPU has the tier; the qwords can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
pub(super) unsafe fn scaled_by_nibbles<const AT: usize>(
    blocks: [*const u8; 2],
    sums: [__m512i; 2],
) -> __m512i {
    // SAFETY: as the caller promises.
    let both = unsafe { broadcast_halves(blocks, AT) };
    let scaled = |h: usize| {
        let mut by = [0; 8];
        for q in 0..8 {
            // A nibble for each dword; the shift leaves it at place 1.
            let shift = |k: usize| (4 * k as i64 - 1) & 63;
            let k = sub_block(h, q / 2) + 2 * (q % 2);
            by[q] = shift(k) | shift(k + 1) << 32;
        }
        let by = _mm512_setr_epi64(by[0], by[1], by[2], by[3], by[4], by[5], by[6], by[7]);
        let bits = _mm512_multishift_epi64_epi8(by, both);
        // 1 | (bits & 30)
        let scales = _mm512_ternarylogic_epi32::<0xf8>(_mm512_set1_epi32(1), bits, _mm512_set1_epi32(30));
        _mm512_mullo_epi32(sums[h], scales)
    };
    _mm512_add_epi32(scaled(0), scaled(1))
}

/// What unsigned weights are too large by.
const OFFSET: u8 = 64;

/// Indices with magnitudes in bits 0..4 and signs in bits 4..6.
static LOW: [Levels; 2] =
    [Levels::signed(IQ2_LEVELS, 0, 4, OFFSET), Levels::signed(IQ2_LEVELS, 2, 5, OFFSET)];
/// Indices with signs in bits 0..2 and magnitudes in bits 2..6.
static HIGH: [Levels; 2] =
    [Levels::signed(IQ2_LEVELS, 2, 0, OFFSET), Levels::signed(IQ2_LEVELS, 4, 1, OFFSET)];

impl<I: Iq2 + 'static> Eights for Signed<I> {
    type Many = Self;
    const SUB: usize = I::SUB;
    const ORDER: [usize; 8] = ORDER;
    const STARTS: usize = 32 / I::SUB;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn entries<const V: usize>(blocks: [[*const u8; 2]; V]) -> [Entries; V] {
        // SAFETY: as the caller promises.
        unsafe { I::entries(blocks) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn weights(entries: Entries) -> [[__m512i; 4]; 2] {
        // Signs of values 0, 1, 4, 5 in the places of the low half; those of 2, 3, 6, 7 come there.
        let mut signs = [entries.more, _mm512_srli_epi16::<2>(entries.more)];
        let mut halves = entries.halves;
        if I::SUB == 16 {
            (halves, signs) = (mixed(halves), mixed(signs));
        }
        let mut out = [[entries.more; 4]; 2];
        for h in 0..2 {
            // Bits of the second argument where the mask has ones, else of the third.
            let low = _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi8(0x0f), halves[h], signs[h]);
            let upper = _mm512_srli_epi16::<2>(halves[h]);
            let high = _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi8(0x3c), upper, signs[h]);
            let [low, high] = [(low, &LOW), (high, &HIGH)].map(|(index, [a, b])| {
                let ([a], [b]) = (a.of([index]), b.of([index]));
                [a, b]
            });
            out[h] = [low[0], low[1], high[0], high[1]];
        }
        out
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn scaled(blocks: [*const u8; 2], sums: [__m512i; 2]) -> __m512i {
        // SAFETY: as the caller promises.
        unsafe { I::scaled(blocks, sums) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn starts(_: [*const u8; 2], _: Entries, lines: *const u8) -> [__m512i; 2] {
        // SAFETY: as the caller promises.
        unsafe { [load(lines), if I::SUB == 16 { load(lines.add(64)) } else { _mm512_setzero_si512() }] }
    }

    fn arrange_starts(_q: &[i8], sums: &[i16], lines: &mut [[u8; 64]]) {
        let factor = -i32::from(OFFSET);
        if I::SUB == 16 {
            arrange_products::<16>(sums, factor, lines);
        } else {
            arrange_products::<32>(sums, factor, lines);
        }
    }

    #[inline]
    unsafe fn copy_d(w: *const u8, to: &mut Copied) {
        // SAFETY: as the caller promises.
        unsafe { to.copy::<u16>(w, I::BYTES, 0) };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn copied_d(copied: &Copied) -> __m512 {
        copied.f16(I::FACTOR)
    }
}
