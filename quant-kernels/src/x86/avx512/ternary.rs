//! What IQ1_S and IQ1_M share: eights of ternary values from a codebook of 2048, a shift of +-1/8, odd scales 1..=15.
//!
//! ```text
//! 8 * (ternary +- 1/8) = 8 * digit + c        digit 0..=2, c = -7 or -9
//! ```
//!
//! For few tokens the products are those of the digits, and c meets the sums of activations.

use super::codebook::{Levels, Plane, Stairs, anew, by_blocks, spread_eights, words};
use super::eights::{self, Copied, Eights, Entries, mixed};
use super::load::Rows;
use super::panel::{Format, Panel, Steps};
use super::rows::{self, Coded};
use crate::isa::Avx512;
use crate::types::TileFn;
use crate::types::codebooks::packed;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// What the two types store in ways of their own.
pub(super) trait Shifted {
    /// Bytes in a block.
    const BYTES: usize;
    /// Values that share a scale: 16 or 32.
    const SUB: usize;
    /// As [`Eights::STARTS`].
    const STARTS: usize;
    /// What [`Shifted::starts`] wants weights to be larger by than eight times the digits: 0 or 1.
    const EXTRA: u8;

    /// Of two blocks: the low bytes of 64 indices, and their further bits in bits 4..7 of each byte.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of both blocks can be read.
    unsafe fn indices(blocks: [*const u8; 2]) -> [__m512i; 2];

    /// Which of 64 entries of two blocks are shifted down.
    ///
    /// # Safety
    /// As for [`Shifted::indices`].
    unsafe fn negative(blocks: [*const u8; 2]) -> __mmask64;

    /// As [`Coded::scales`], times 8.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of the block can be read.
    unsafe fn scales(block: *const u8, p: usize) -> __m512i;

    /// As [`Eights::scaled`].
    ///
    /// # Safety
    /// As for [`Shifted::indices`].
    unsafe fn scaled(blocks: [*const u8; 2], sums: [__m512i; 2]) -> __m512i;

    /// The sums of the products of c and the activations; `upper` is the second of [`Shifted::indices`].
    ///
    /// # Safety
    /// As for [`Eights::starts`].
    unsafe fn starts(blocks: [*const u8; 2], upper: __m512i, lines: *const u8) -> [__m512i; 2];

    /// As [`Eights::arrange_starts`].
    fn arrange_starts(q: &[i8], sums: &[i16], lines: &mut [[u8; 64]]);

    /// As [`Eights::copy_d`].
    ///
    /// # Safety
    /// The blocks can be read.
    unsafe fn copy_d(w: *const u8, to: &mut Copied);

    /// The scales of 16 blocks, divided by 8.
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn copied_d(copied: &Copied) -> __m512;

    /// The scales of 16 rows, divided by 8.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of a block can be read in every row.
    unsafe fn row_d(rows: Rows) -> __m512;
}

/// The matmul of such a type.
pub(super) fn tile<S: Shifted + 'static>(proof: Avx512) -> TileFn {
    eights::tile::<Ternary<S>>(proof)
}

struct Ternary<S>(PhantomData<S>);

static LOW: [Plane<1024>; 2] = [Plane::new(&packed::IQ1_S, 0, 0), Plane::new(&packed::IQ1_S, 1024, 0)];
static HIGH: Stairs = Stairs::new(&packed::IQ1_S);

/// The entries of `V` pairs of blocks, and their further bits.
///
/// # Safety
/// The CPU has the tier; the bytes of all blocks can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn entries<S: Shifted, const V: usize>(blocks: [[*const u8; 2]; V]) -> [Entries; V] {
    let (mut low, mut upper) = ([_mm512_setzero_si512(); V], [_mm512_setzero_si512(); V]);
    let mut bits = [[0; 2]; V];
    for v in 0..V {
        // SAFETY: as the caller promises.
        [low[v], upper[v]] = unsafe { S::indices(blocks[v]) };
        for bit in 0..2 {
            bits[v][bit] = _mm512_test_epi8_mask(upper[v], _mm512_set1_epi8(16 << bit));
        }
    }
    let halves = anew(&LOW);
    let (a, b) = (halves[0].of(low, bits), halves[1].of(low, bits));
    std::array::from_fn(|v| {
        // Tested late: there are seven masks.
        let last = _mm512_test_epi8_mask(upper[v], _mm512_set1_epi8(64));
        let first = _mm512_mask_blend_epi8(last, a[v], b[v]);
        Entries { halves: [first, HIGH.of(low[v], upper[v])], more: upper[v] }
    })
}

impl<S: Shifted> Coded for Ternary<S> {
    const OFFSET: i16 = 9;
    const SUB: usize = S::SUB;
    const SCALE_SHIFT: u32 = 3;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn codes(blocks: [*const u8; 2]) -> [[__m512i; 4]; 2] {
        // SAFETY: as the caller promises.
        let ([entries], negative) = unsafe { (entries::<S, 1>([blocks]), S::negative(blocks)) };
        // Eight digits less 8, plus or minus 1, plus the offset.
        let plus = _mm512_mask_blend_epi8(negative, _mm512_set1_epi8(2), _mm512_setzero_si512());
        let mut codes = spread_eights(words(entries.halves), [0, 2, 4, 6, 8, 10, 12, 14], 3);
        for r in 0..8 {
            let entry = _mm512_setr_epi64(
                0,
                EIGHT_ONES,
                2 * EIGHT_ONES,
                3 * EIGHT_ONES,
                4 * EIGHT_ONES,
                5 * EIGHT_ONES,
                6 * EIGHT_ONES,
                7 * EIGHT_ONES,
            );
            let entry = _mm512_add_epi8(entry, _mm512_set1_epi8(8 * r as i8));
            let plus = _mm512_permutexvar_epi8(entry, plus);
            // plus | (digit & 24)
            codes[r] = _mm512_ternarylogic_epi32::<0xf8>(plus, codes[r], _mm512_set1_epi8(24));
        }
        by_blocks(codes)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn scales(block: *const u8, p: usize) -> __m512i {
        // SAFETY: as the caller promises.
        unsafe { S::scales(block, p) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn d(rows: Rows) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { S::row_d(rows) }
    }
}

/// 1 in every byte.
const EIGHT_ONES: i64 = 0x0101_0101_0101_0101;

impl<S: Shifted> Format for Ternary<S> {
    const BYTES: usize = S::BYTES;
    const STEPS: Steps = Steps::Super { sub: S::SUB, minima: false };
    const OFFSET: Option<i16> = Some(<Self as Coded>::OFFSET);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, _values: usize, panel: &mut Panel) {
        // SAFETY: as the caller promises.
        unsafe { rows::unpack::<Self>(rows, panel) };
    }
}

/// Eight times the digits in bits 0..2, 2..4 and 4..6; the same and one.
static DIGITS: [[Levels; 3]; 2] = [digits(0), digits(1)];

const fn digits(extra: u8) -> [Levels; 3] {
    let levels = [extra, 8 + extra, 16 + extra, 0];
    [Levels::from_bit(levels, 0), Levels::from_bit(levels, 2), Levels::from_bit(levels, 4)]
}

impl<S: Shifted + 'static> Eights for Ternary<S> {
    type Many = Self;
    const SUB: usize = S::SUB;
    const ORDER: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
    const STARTS: usize = S::STARTS;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn entries<const V: usize>(blocks: [[*const u8; 2]; V]) -> [Entries; V] {
        // SAFETY: as the caller promises.
        unsafe { entries::<S, V>(blocks) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn weights(entries: Entries) -> [[__m512i; 4]; 2] {
        let halves = if S::SUB == 16 { mixed(entries.halves) } else { entries.halves };
        let digits = &DIGITS[usize::from(S::EXTRA)];
        let mut out = [[entries.more; 4]; 2];
        for h in 0..2 {
            for j in 0..3 {
                [out[h][j]] = digits[j].of([halves[h]]);
            }
            [out[h][3]] = digits[2].of([_mm512_srli_epi16::<2>(halves[h])]);
        }
        out
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn scaled(blocks: [*const u8; 2], sums: [__m512i; 2]) -> __m512i {
        // SAFETY: as the caller promises.
        unsafe { S::scaled(blocks, sums) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn starts(blocks: [*const u8; 2], entries: Entries, lines: *const u8) -> [__m512i; 2] {
        // SAFETY: as the caller promises.
        unsafe { S::starts(blocks, entries.more, lines) }
    }

    fn arrange_starts(q: &[i8], sums: &[i16], lines: &mut [[u8; 64]]) {
        S::arrange_starts(q, sums, lines);
    }

    #[inline]
    unsafe fn copy_d(w: *const u8, to: &mut Copied) {
        // SAFETY: as the caller promises.
        unsafe { S::copy_d(w, to) };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn copied_d(copied: &Copied) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { S::copied_d(copied) }
    }
}

/// Three bits of every qword of `source`, from bit `first[q]` on, to the word `8 * (2 * bits + 1)`, four times.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
pub(super) fn scale_words(source: __m512i, first: [u8; 8]) -> __m512i {
    // The shift leaves the bits at place 4.
    let mut by = [0; 8];
    for q in 0..8 {
        by[q] = i64::from(first[q].wrapping_sub(4) & 63) * 0x0001_0001_0001_0001;
    }
    let by = _mm512_setr_epi64(by[0], by[1], by[2], by[3], by[4], by[5], by[6], by[7]);
    let bits = _mm512_multishift_epi64_epi8(by, source);
    // 8 | (bits & 0x70)
    _mm512_ternarylogic_epi32::<0xf8>(_mm512_set1_epi16(8), bits, _mm512_set1_epi16(0x70))
}
