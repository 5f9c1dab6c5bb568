//! What IQ1_S and IQ1_M share: eights of ternary values from a codebook of 2048, a shift of +-1/8, odd scales 1..=15.
//!
//! ```text
//! 8 * (ternary +- 1/8) = 8 * digit + c        digit 0..=2, c = -7 or -9
//! ```
//!
//! For one token the products are those of the digits, and c meets the sums of activations.

use super::codebook::{Book, by_blocks, spread_eights};
use super::linear::{Linear, Terms, X, four_blocks, load, request_now, sixteen_blocks};
use super::load::Rows;
use super::panel::{self, Format, Panel, Steps};
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
    /// Values that share a shift: 8 or 32.
    const RUN: usize;

    /// Of two blocks: the low bytes of 64 indices, and their further bits in bits 0..3 of each byte.
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

    /// For each of the shifts of a block, a word: the scale times c.
    ///
    /// # Safety
    /// As for [`Shifted::scales`].
    unsafe fn offsets(block: *const u8) -> __m512i;

    /// The scales of 16 consecutive blocks, divided by 8.
    ///
    /// # Safety
    /// The CPU has the tier; the blocks can be read.
    unsafe fn d(w: *const u8) -> __m512;

    /// The scales of 16 rows, divided by 8.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of a block can be read in every row.
    unsafe fn row_d(rows: Rows) -> __m512;
}

/// The matmul of such a type.
pub(super) fn tile<S: Shifted + 'static>(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Ternary<S>>(tile) }
}

struct Ternary<S>(PhantomData<S>);

static BOOK: Book<2048> = Book::new(&packed::IQ1_S);

/// The packed entries of `V` pairs of blocks.
///
/// # Safety
/// The CPU has the tier; the bytes of all blocks can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn entries<S: Shifted, const V: usize>(blocks: [[*const u8; 2]; V]) -> [[__m512i; 2]; V] {
    let (mut low, mut bits) = ([_mm512_setzero_si512(); V], [[0; 3]; V]);
    for v in 0..V {
        // SAFETY: as the caller promises.
        let [indices, upper] = unsafe { S::indices(blocks[v]) };
        low[v] = indices;
        for bit in 0..3 {
            bits[v][bit] = _mm512_test_epi8_mask(upper, _mm512_set1_epi8(1 << bit));
        }
    }
    BOOK.entries(low, bits)
}

impl<S: Shifted> Coded for Ternary<S> {
    const OFFSET: i16 = 9;
    const SUB: usize = S::SUB;
    const SCALE_SHIFT: u32 = 3;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn codes(blocks: [*const u8; 2]) -> [[__m512i; 4]; 2] {
        // SAFETY: as the caller promises.
        let ([words], negative) = unsafe { (entries::<S, 1>([blocks]), S::negative(blocks)) };
        // Eight digits less 8, plus or minus 1, plus the offset.
        let plus = _mm512_mask_blend_epi8(negative, _mm512_set1_epi8(2), _mm512_setzero_si512());
        let mut codes = spread_eights(words, 3);
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

impl<S: Shifted + 'static> Linear for Ternary<S> {
    const VALUES: usize = 256;
    const BYTES: usize = S::BYTES;
    const MINIMA: bool = false;
    const PARTS: [usize; 3] = [256, 64, 0];

    /// The codes, and their sums over the values of each shift.
    #[inline]
    fn arrange(q: &[i8], _sums: &[i16], [codes, sums, _]: [&mut [u8]; 3]) {
        for (q, code) in q.iter().zip(codes) {
            *code = *q as u8;
        }
        sums.fill(0);
        for (q, sum) in q.chunks_exact(S::RUN).zip(sums.as_chunks_mut::<2>().0) {
            *sum = q.iter().map(|&q| i16::from(q)).sum::<i16>().to_ne_bytes();
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let zero = _mm512_setzero_si512();
        // Loops, not closures for each turn: unrolled, decoding would run out of registers.
        let mut quads = [[zero; T]; 4];
        for i in 0..4 {
            let w = w.wrapping_add(4 * S::BYTES * i);
            let block = |k: usize| w.wrapping_add(S::BYTES * k);
            // SAFETY: four of the 16 blocks; both pairs share the loads of the codebook.
            let words = unsafe { entries::<S, 2>([[block(0), block(1)], [block(2), block(3)]]) };
            let mut dots = [[zero; T]; 4];
            for pair in 0..2 {
                let digits = by_blocks(spread_eights(words[pair], 0));
                for b in 0..2 {
                    let k = 2 * pair + b;
                    request_now(block(k), S::BYTES);
                    // SAFETY: one of the blocks.
                    let (offsets, scales) =
                        unsafe { (S::offsets(block(k)), [S::scales(block(k), 0), S::scales(block(k), 1)]) };
                    let mut sum = [zero; T];
                    for t in 0..T {
                        // SAFETY: the sums of this block's activations.
                        let shifted = unsafe { load(x.part(1, t).add(64 * (4 * i + k))) };
                        sum[t] = _mm512_dpwssd_epi32(zero, offsets, shifted);
                        let mut sums = [zero; 4];
                        for r in 0..4 {
                            let digits = _mm512_and_si512(digits[b][r], _mm512_set1_epi8(3));
                            // SAFETY: 64 activations of this block.
                            let x = unsafe { load(x.part(0, t).add(256 * (4 * i + k) + 64 * r)) };
                            sums[r] = _mm512_dpbusd_epi32(zero, digits, x);
                        }
                        for p in 0..2 {
                            // Sums of four products fit i16 (4 * 2 * 127).
                            let packed = _mm512_packs_epi32(sums[2 * p], sums[2 * p + 1]);
                            sum[t] = _mm512_dpwssd_epi32(sum[t], packed, scales[p]);
                        }
                    }
                    dots[k] = sum;
                }
            }
            quads[i] = four_blocks(|k| dots[k]);
        }
        // SAFETY: 16 blocks.
        let d = unsafe { S::d(w) };
        let mut terms = [[_mm512_setzero_ps(); 2]; T];
        for t in 0..T {
            // SAFETY: the scales of these terms.
            terms[t][0] = unsafe { x.term(t, d, sixteen_blocks(&quads, t)) };
        }
        terms
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

/// The word `2 * bits + 1` times -9 or (where not `negative`) -7, for words with `bits` at place 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn offset_words(bits: __m512i, negative: __mmask32) -> __m512i {
    // 1 | (bits & 14)
    let scales = _mm512_ternarylogic_epi32::<0xf8>(_mm512_set1_epi16(1), bits, _mm512_set1_epi16(14));
    let c = _mm512_mask_blend_epi16(negative, _mm512_set1_epi16(-7), _mm512_set1_epi16(-9));
    _mm512_mullo_epi16(scales, c)
}
