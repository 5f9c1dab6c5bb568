//! Few tokens of IQ1 and IQ2, whose codebooks have eight values of three levels to an entry: two blocks are decoded at a
//! time, value by value.
//!
//! A codebook gives the two bytes of 64 entries in two registers, four values in each byte. `vpermb` makes of these one
//! register for each of the four: a byte is an index of enough bits as it is. Values stay apart like this, activations are
//! arranged to meet them, and as the four bytes of a dword share a scale, sums need no more than one multiplication.

use super::linear::{Linear, Terms, X, load, request_now};
use super::load::Rows;
use super::panel::{self, Format, Panel, Steps};
use super::sums::{add_lane_pairs, add_lane_dwords};
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// 64 entries of two blocks.
#[derive(Clone, Copy)]
pub(super) struct Entries {
    /// Their low and their high bytes.
    pub halves: [__m512i; 2],
    /// A byte for each: its signs, or what else comes with its index.
    pub more: __m512i,
}

/// A type with such a codebook.
pub(super) trait Eights: 'static {
    /// Its way with many tokens.
    type Many: Format;
    /// Values that share a scale: 16 or 32.
    const SUB: usize;
    /// The values of an entry in the two bits from bit 0 on of its low byte, from bit 2 on, and so on; then those of its
    /// high byte.
    const ORDER: [usize; 8];
    /// Lines of 64 bytes that [`Eights::starts`] wants.
    const STARTS: usize;

    /// The entries of some pairs of blocks.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of the blocks can be read.
    unsafe fn entries<const V: usize>(blocks: [[*const u8; 2]; V]) -> [Entries; V];

    /// The weights as unsigned bytes: place `j` of half `h`. For sub-blocks of 16 both halves have been through
    /// [`mixed`].
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn weights(entries: Entries) -> [[__m512i; 4]; 2];

    /// The scales of a pair of blocks, a dword for each sub-block: of 32, all in the first register; of 16, four by turns
    /// in each.
    ///
    /// # Safety
    /// As for [`Eights::entries`].
    unsafe fn scales(blocks: [*const u8; 2]) -> [__m512i; 2];

    /// What the sums that [`Eights::scales`] are for begin with.
    ///
    /// # Safety
    /// As for [`Eights::entries`]; the lines that [`Eights::arrange_starts`] left can be read.
    unsafe fn starts(blocks: [*const u8; 2], entries: Entries, lines: *const u8) -> [__m512i; 2];

    /// Fills the lower halves of the lines of starts.
    fn arrange_starts(q: &[i8], sums: &[i16], lines: &mut [[u8; 64]]);

    /// The float scales of 16 consecutive blocks.
    ///
    /// # Safety
    /// The CPU has the tier; the blocks can be read.
    unsafe fn d(w: *const u8) -> __m512;
}

/// The matmul of such a type.
pub(super) fn tile<E: Eights>(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Few<E>>(tile) }
}

struct Few<E>(PhantomData<E>);

impl<E: Eights> Format for Few<E> {
    const BYTES: usize = E::Many::BYTES;
    const STEPS: Steps = E::Many::STEPS;
    const OFFSET: Option<i16> = E::Many::OFFSET;
    const NARROW: Option<u16> = E::Many::NARROW;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, values: usize, panel: &mut Panel) {
        // SAFETY: as the caller promises.
        unsafe { E::Many::unpack(rows, values, panel) };
    }
}

/// Lines of codes of a block.
const CODES: usize = 8;
/// Pairs of blocks that are looked up together: they share the loads of the codebook.
const TOGETHER: usize = 2;

impl<E: Eights> Linear for Few<E> {
    const VALUES: usize = 256;
    const BYTES: usize = E::Many::BYTES;
    const MINIMA: bool = false;
    const PARTS: [usize; 3] = [64 * (CODES + E::STARTS), 0, 0];
    const PAIRS: bool = true;

    fn arrange(q: &[i8], sums: &[i16], [lines, ..]: [&mut [u8]; 3]) {
        let (codes, starts) = lines.as_chunks_mut::<64>().0.split_at_mut(CODES);
        for (i, q) in q.as_chunks::<64>().0.iter().enumerate() {
            // SAFETY: a type's matmul exists with a proof of the tier only.
            let turned = unsafe { permuted(q, const { &codes_order::<E>() }) };
            // Of sub-blocks of 16, these 64 values meet one half of the entries.
            if E::SUB == 16 {
                for (line, turned) in codes[4 * (i % 2)..].iter_mut().zip(turned.as_chunks::<16>().0) {
                    line[16 * (i / 2)..][..16].copy_from_slice(turned);
                }
            } else {
                for (line, turned) in codes.iter_mut().zip(turned.as_chunks::<8>().0) {
                    line[8 * i..][..8].copy_from_slice(turned);
                }
            }
        }
        E::arrange_starts(q, sums, starts);
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let zero = _mm512_setzero_si512();
        // Loops, not closures for each turn: unrolled, decoding would run out of registers.
        let mut quads = [[zero; T]; 2];
        for i in 0..2 {
            let mut sums = [[zero; 4]; T];
            for k in (0..4).step_by(TOGETHER) {
                let pair = |v: usize| {
                    let first = w.wrapping_add(2 * E::Many::BYTES * (4 * i + k + v));
                    [first, first.wrapping_add(E::Many::BYTES)]
                };
                let blocks = [pair(0), pair(1)];
                // SAFETY: four of the 16 blocks.
                let entries = unsafe { E::entries::<TOGETHER>(blocks) };
                for v in 0..TOGETHER {
                    request_now(blocks[v][0], 2 * E::Many::BYTES);
                    // SAFETY: two of the blocks.
                    let (weights, scales) = unsafe { (E::weights(entries[v]), E::scales(blocks[v])) };
                    for t in 0..T {
                        let lines = x.part(0, t).wrapping_add(2 * Self::PARTS[0] * (4 * i + k + v));
                        // SAFETY: the lines of this pair of blocks.
                        let mut dots =
                            unsafe { E::starts(blocks[v], entries[v], lines.wrapping_add(64 * CODES)) };
                        for h in 0..2 {
                            for j in 0..4 {
                                // SAFETY: as above.
                                let x = unsafe { load(lines.wrapping_add(64 * (4 * h + j))) };
                                dots[h] = _mm512_dpbusd_epi32(dots[h], weights[h][j], x);
                            }
                        }
                        sums[t][k + v] = if E::SUB == 16 {
                            let a = _mm512_mullo_epi32(dots[0], scales[0]);
                            _mm512_add_epi32(a, _mm512_mullo_epi32(dots[1], scales[1]))
                        } else {
                            _mm512_mullo_epi32(_mm512_add_epi32(dots[0], dots[1]), scales[0])
                        };
                    }
                }
            }
            for t in 0..T {
                quads[i][t] = add_lane_dwords(sums[t]);
            }
        }
        // SAFETY: 16 blocks.
        let d = unsafe { E::d(w) };
        let mut terms = [[_mm512_setzero_ps(); 2]; T];
        for t in 0..T {
            // A lane has four even blocks or four odd ones.
            let sums = add_lane_pairs(quads[0][t], quads[1][t]);
            let order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
            // SAFETY: the scales of these terms.
            terms[t][0] = unsafe { x.term(t, d, _mm512_permutexvar_epi32(order, sums)) };
        }
        terms
    }
}

/// Where the codes of 64 values go: for sub-blocks of 32, eight values in the same place of an entry; for those of 16, 16
/// bytes as [`mixed`] has them of the places `j` of both halves.
const fn codes_order<E: Eights>() -> [u8; 64] {
    let mut order = [0; 64];
    let mut i = 0;
    while i < 64 {
        let (entry, place) = if E::SUB == 16 {
            (i % 16 / 4 * 2 + i % 2, i / 16 + 4 * (i % 4 / 2))
        } else {
            (i % 8, i / 8)
        };
        order[i] = (8 * entry + E::ORDER[place]) as u8;
        i += 1;
    }
    order
}

/// Bytes in another order.
#[target_feature(enable = "avx512f,avx512vbmi")]
fn permuted(q: &[i8; 64], order: &[u8; 64]) -> [u8; 64] {
    let mut out = [0; 64];
    // SAFETY: 64 bytes each.
    unsafe {
        let (order, q) = (load(order.as_ptr()), load(q.as_ptr().cast()));
        _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_permutexvar_epi8(order, q));
    }
    out
}

/// Both bytes of two entries in a dword, first the low ones: result `h` has in its 128-bit lane `l` entries
/// `16 l + 8 h..16 l + 8 h + 8`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn mixed([low, high]: [__m512i; 2]) -> [__m512i; 2] {
    [_mm512_unpacklo_epi16(low, high), _mm512_unpackhi_epi16(low, high)]
}

/// Number of the first of the four sub-blocks of 16 of which half `h` has sums in lane `l`.
const fn sub_block(h: usize, l: usize) -> usize {
    8 * (l % 2) + 4 * h
}

/// The products of `factor` and the sums of sub-blocks, for the lower halves of one line (of 32) or of two.
pub(super) fn arrange_products<const SUB: usize>(sums: &[i16], factor: i32, lines: &mut [[u8; 64]]) {
    for (h, line) in lines.iter_mut().take(32 / SUB).enumerate() {
        for (i, place) in line[..32].as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let sum = if SUB == 16 {
                i32::from(sums[sub_block(h, i / 4) + i % 4])
            } else {
                i32::from(sums[2 * i]) + i32::from(sums[2 * i + 1])
            };
            *place = (factor * sum).to_ne_bytes();
        }
    }
}

/// The odd scales `2 * bits + 1` of sub-blocks of 16 as dwords; sub-block `k` of a block has `BITS` bits from bit
/// `first[k]` of its qword on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
pub(super) fn odd_dwords<const BITS: u32>([a, b]: [i64; 2], first: [u8; 16]) -> [__m512i; 2] {
    let both = _mm512_mask_set1_epi64(_mm512_set1_epi64(a), 0xf0, b);
    let (one, mask) = (_mm512_set1_epi32(1), _mm512_set1_epi32((2 << BITS) - 2));
    let mut out = [both; 2];
    for h in 0..2 {
        let mut by = [0; 8];
        for q in 0..8 {
            let k = sub_block(h, q / 2) + 2 * (q % 2);
            // The shift leaves the bits at place 1.
            let shift = |k: usize| i64::from(first[k].wrapping_sub(1) & 63);
            by[q] = shift(k) | shift(k + 1) << 32;
        }
        let by = _mm512_setr_epi64(by[0], by[1], by[2], by[3], by[4], by[5], by[6], by[7]);
        // 1 | (bits & mask)
        out[h] = _mm512_ternarylogic_epi32::<0xf8>(one, _mm512_multishift_epi64_epi8(by, both), mask);
    }
    out
}

/// Where [`odd_dwords`] finds scales that are nibbles.
pub(super) const NIBBLES: [u8; 16] = [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60];
