//! What IQ2 and IQ3 share: magnitudes from a codebook, signs as bits, odd scales 1..=31.
//!
//! For one token the signs go to the activations, whose codes are at least -127; a panel has the signed values plus an
//! offset.

use super::linear::{Linear, Terms, X, four_blocks, load, request_now, scales, sixteen_blocks};
use super::load::{Rows, low_f16};
use super::panel::{self, Format, Panel, Steps};
use super::rows::{self, Coded};
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// A type with a codebook of magnitudes. Its blocks begin with their f16 scale.
pub(super) trait Grid {
    /// Bytes in a block.
    const BYTES: usize;
    /// What the f16 scale is multiplied by, a power of two.
    const FACTOR: f32;
    /// Values that share a scale: 16 or 32.
    const SUB: usize;
    /// Whether 32 values share a scale and magnitudes are so large that their sums seldom fit i16.
    const WIDE: bool = false;

    /// Magnitudes, at most 62, of two blocks and their signs, bit `i` of word `r` for byte `i` of register `r`.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of both blocks can be read.
    unsafe fn decode(blocks: [*const u8; 2]) -> ([[__m512i; 4]; 2], [[u64; 4]; 2]);

    /// As [`Coded::scales`].
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of the block can be read.
    unsafe fn scales(block: *const u8, p: usize) -> __m512i;

    /// The scales of 16 consecutive blocks.
    ///
    /// # Safety
    /// The CPU has the tier; the blocks can be read.
    unsafe fn d(w: *const u8) -> __m512;
}

/// The matmul of such a type.
pub(super) fn tile<G: Grid + 'static>(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Signed<G>>(tile) }
}

pub(super) struct Signed<G>(PhantomData<G>);

impl<G: Grid> Coded for Signed<G> {
    const OFFSET: i16 = 64;
    const SUB: usize = G::SUB;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn codes(blocks: [*const u8; 2]) -> [[__m512i; 4]; 2] {
        // SAFETY: as the caller promises.
        let (mut codes, signs) = unsafe { G::decode(blocks) };
        let offset = _mm512_set1_epi8(<Self as Coded>::OFFSET as i8);
        for b in 0..2 {
            for r in 0..4 {
                let plus = _mm512_add_epi8(offset, codes[b][r]);
                codes[b][r] = _mm512_mask_sub_epi8(plus, signs[b][r], offset, codes[b][r]);
            }
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn scales(block: *const u8, p: usize) -> __m512i {
        // SAFETY: as the caller promises.
        unsafe { G::scales(block, p) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn d(rows: Rows) -> __m512 {
        // SAFETY: as the caller promises.
        _mm512_mul_ps(low_f16(unsafe { rows.dword(0) }), _mm512_set1_ps(G::FACTOR))
    }
}

impl<G: Grid> Format for Signed<G> {
    const BYTES: usize = G::BYTES;
    const STEPS: Steps = if G::WIDE { Steps::Wide } else { Steps::Super { sub: G::SUB, minima: false } };
    const OFFSET: Option<i16> = Some(<Self as Coded>::OFFSET);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, _values: usize, panel: &mut Panel) {
        // SAFETY: as the caller promises.
        unsafe { rows::unpack::<Self>(rows, panel) };
    }
}

impl<G: Grid + 'static> Linear for Signed<G> {
    const VALUES: usize = 256;
    const BYTES: usize = G::BYTES;
    const MINIMA: bool = false;
    const PARTS: [usize; 3] = [256, 0, 0];

    #[inline]
    fn arrange(q: &[i8], _sums: &[i16], [codes, ..]: [&mut [u8]; 3]) {
        for (q, code) in q.iter().zip(codes) {
            *code = *q as u8;
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let zero = _mm512_setzero_si512();
        // Loops, not closures for each turn: unrolled, decoding would run out of registers.
        let mut quads = [[zero; T]; 4];
        for i in 0..4 {
            let w = w.wrapping_add(4 * G::BYTES * i);
            let mut dots = [[zero; T]; 4];
            for k in [0, 2] {
                let blocks = [w.wrapping_add(G::BYTES * k), w.wrapping_add(G::BYTES * (k + 1))];
                // SAFETY: two of the 16 blocks.
                let (magnitudes, signs) = unsafe { G::decode(blocks) };
                for b in 0..2 {
                    request_now::<Self>(blocks[b], G::BYTES);
                    // SAFETY: one of the blocks.
                    let scales = unsafe { [G::scales(blocks[b], 0), G::scales(blocks[b], 1)] };
                    let mut sum = [zero; T];
                    for t in 0..T {
                        let mut sums = [zero; 4];
                        for r in 0..4 {
                            // SAFETY: 64 activations of this block.
                            let x = unsafe { load(x.part(0, t).add(256 * (4 * i + k + b) + 64 * r)) };
                            let x = _mm512_mask_sub_epi8(x, signs[b][r], zero, x);
                            sums[r] = _mm512_dpbusd_epi32(zero, magnitudes[b][r], x);
                        }
                        for p in 0..2 {
                            // Sums of four products fit i16 (4 * 62 * 127).
                            let pair = _mm512_packs_epi32(sums[2 * p], sums[2 * p + 1]);
                            sum[t] = _mm512_dpwssd_epi32(sum[t], pair, scales[p]);
                        }
                    }
                    dots[k + b] = sum;
                }
            }
            quads[i] = four_blocks(|k| dots[k]);
        }
        // SAFETY: 16 blocks.
        let d = _mm512_mul_ps(unsafe { G::d(w) }, _mm512_set1_ps(G::FACTOR));
        let mut terms = [[_mm512_setzero_ps(); 2]; T];
        for t in 0..T {
            // SAFETY: the scales of these terms.
            terms[t][0] = unsafe { x.term(t, d, sixteen_blocks(&quads, t)) };
        }
        terms
    }
}

/// Four bits of every qword of `source`, from bit `first[q]` on, to the word `2 * bits + 1`, four times.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
pub(super) fn odd_words(source: __m512i, first: [u8; 8]) -> __m512i {
    // The shift leaves the bits at place 1.
    let mut by = [0; 8];
    for q in 0..8 {
        by[q] = i64::from(first[q].wrapping_sub(1) & 63) * 0x0001_0001_0001_0001;
    }
    let by = _mm512_setr_epi64(by[0], by[1], by[2], by[3], by[4], by[5], by[6], by[7]);
    let bits = _mm512_multishift_epi64_epi8(by, source);
    // 1 | (bits & 30)
    _mm512_ternarylogic_epi32::<0xf8>(_mm512_set1_epi16(1), bits, _mm512_set1_epi16(30))
}

/// Number of the 32 values whose scale is in qword `q` of half `p`.
pub(super) const fn sub_32(p: usize) -> [u8; 8] {
    let p = 4 * p as u8;
    [p, p + 2, p, p + 2, p + 1, p + 3, p + 1, p + 3]
}

/// Number of the 16 values whose scale is in qword `q` of half `p`.
pub(super) const fn sub_16(p: usize) -> [u8; 8] {
    let p = 8 * p as u8;
    [p, p + 4, p + 1, p + 5, p + 2, p + 6, p + 3, p + 7]
}

/// The f16 at the beginning of 16 blocks.
///
/// # Safety
/// The CPU has the tier; the blocks can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn first_f16<const BYTES: usize>(w: *const u8) -> __m512 {
    // SAFETY: as the caller promises.
    unsafe { scales::<BYTES, 0>(w) }
}
