//! Q3_K: unsigned 3-bit codes with an offset of 4, signed 6-bit scales.

use super::columns::{self, Acc, Ahead, ByteScales, Columns, Quads};
use super::linear::{
    Linear, Terms, X, add_products, four_blocks, fours, load, load_lanes, request, scales, sixteen_blocks,
};
use super::load::{Rows, high_f16, high_nibbles, low_nibbles};
use super::panel::{self, Format, Panel, Steps};
use super::two_bits;
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Q3K>(tile) }
}

struct Q3K;

/// (code - 4) * scale lies in -124..=128: with this offset it is an unsigned byte.
const OFFSET: i16 = 124;

impl Format for Q3K {
    const BYTES: usize = 110;
    const STEPS: Steps = Steps::Super { sub: 256, minima: false };
    const OFFSET: Option<i16> = Some(OFFSET);

    /// Scales go into the codes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, _values: usize, panel: &mut Panel) {
        // SAFETY: the caller vouches for the 110 bytes of the block in every row.
        let ((scales, third), d) = unsafe { (header(rows), rows.dword(106)) };
        panel.set_d(0, high_f16(d));
        // What code 0 becomes: the offset less four scales, modulo 256.
        let zeros = scales.map(|s| {
            let four = _mm512_and_si512(_mm512_slli_epi32::<2>(s), _mm512_set1_epi8(-4));
            _mm512_sub_epi8(_mm512_set1_epi8(OFFSET as i8), four)
        });
        // SAFETY: as above.
        unsafe {
            two_bits::columns(rows, 32, |j, k, low| {
                let byte = j as u32 % 4;
                let scale =
                    _mm512_shuffle_epi8(scales[j / 4], two_bits::pick(0x8000_8000 + 0x0001_0001 * byte));
                let zero = _mm512_shuffle_epi8(zeros[j / 4], two_bits::pick(0x0101_0101 * byte));
                for i in 0..4 {
                    let code = with_third(low[i], third[j % 2 * 4 + i], j);
                    let even = _mm512_mullo_epi16(_mm512_and_si512(code, _mm512_set1_epi16(0xff)), scale);
                    let odd = _mm512_mullo_epi16(_mm512_andnot_si512(_mm512_set1_epi16(0xff), code), scale);
                    let product = _mm512_mask_mov_epi8(odd, 0x5555_5555_5555_5555, even);
                    panel.set_codes(k + i, _mm512_add_epi8(zero, product));
                }
            });
        }
    }
}

/// Scales as bytes, four sub-blocks per dword, and the third bits of 16 rows.
///
/// # Safety
/// The CPU has the tier; 110 bytes can be read in every row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn header(rows: Rows) -> ([__m512i; 4], [__m512i; 8]) {
    // SAFETY: as the caller promises.
    let ([_, a, b, pairs], third) = unsafe { (rows.dwords4(92), rows.dwords8(0)) };
    let join = |low, pairs| {
        let six = _mm512_ternarylogic_epi32::<0xf8>(low, pairs, _mm512_set1_epi8(0x30));
        _mm512_sub_epi8(six, _mm512_set1_epi8(32))
    };
    let scales = [
        join(low_nibbles(a), _mm512_slli_epi32::<4>(pairs)),
        join(low_nibbles(b), _mm512_slli_epi32::<2>(pairs)),
        join(high_nibbles(a), pairs),
        join(high_nibbles(b), _mm512_srli_epi32::<2>(pairs)),
    ];
    (scales, third)
}

/// Codes of sub-block `j` from their two low bits and the plane of third bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn with_third(low: __m512i, plane: __m512i, j: usize) -> __m512i {
    // Bit j / 2 to place 2.
    let third = _mm512_rolv_epi32(plane, _mm512_set1_epi32((2 - j as i32 / 2) & 31));
    // low | (third & 4)
    _mm512_ternarylogic_epi32::<0xf8>(low, third, _mm512_set1_epi8(4))
}

impl Columns for Q3K {
    const VALUES: usize = 256;
    const BYTES: usize = 110;

    /// -4 times the sums: codes are too large by 4.
    fn words(sums: &[i16]) -> [[u8; 4]; 8] {
        let mut starts = [0; 16];
        for (start, sum) in starts.iter_mut().zip(sums) {
            *start = -4 * sum;
        }
        columns::pairs::<16>(&starts)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn columns<const T: usize>(rows: Rows, x: Quads<T>, ahead: Ahead, acc: &mut Acc<T>) {
        // SAFETY: the caller vouches for the block in every row.
        let (scales, third) = unsafe { header(rows.anew()) };
        let scales = ByteScales(scales);
        let mut sums = [_mm512_setzero_si512(); T];
        for half in 0..2 {
            ahead.request::<{ 8 * 110 }>(half);
            // SAFETY: as above.
            let mut planes = unsafe { rows.anew().dwords8(32 + 32 * half) };
            // Third bits 4 half and on to places 2 and on.
            let up = _mm512_set1_epi32((2 - 4 * half as i32) & 31);
            let mut third = third.map(|third| _mm512_rolv_epi32(third, up));
            for j in 4 * half..4 * half + 4 {
                // Sums of 16 products of -4..=3 fit i16.
                // SAFETY: `j < 8`; the caller vouches for the activations.
                let mut dots = unsafe { [x.starts(j, 0), x.starts(j, 1)] };
                for i in [0, 4, 1, 5, 2, 6, 3, 7] {
                    // SAFETY: `8 j + i < 64`; the caller vouches for the activations.
                    unsafe { x.dot(8 * j + i, code(planes[i], third[i]), &mut dots[i / 4]) };
                }
                scales.add_pair(j, dots, &mut sums);
                planes = planes.map(|planes| _mm512_srli_epi16::<2>(planes));
                third = third.map(|third| _mm512_srli_epi16::<1>(third));
            }
        }
        // SAFETY: the caller vouches for the block in every row and for the activations.
        unsafe { acc.add(x, 0, high_f16(rows.anew().dwords4(94)[3]), sums) };
    }
}

impl Linear for Q3K {
    const VALUES: usize = 256;
    const BYTES: usize = 110;
    const MINIMA: bool = false;
    const PARTS: [usize; 3] = [256, 16, 16];

    fn few(tokens: usize, _cols: usize) -> Option<TileFn> {
        columns::tile::<Self>(tokens)
    }

    /// The codes as [`two_bits::codes`] has them, and two halves of -4 times their sums.
    #[inline]
    fn arrange(q: &[i8], sums: &[i16], [codes, low, high]: [&mut [u8]; 3]) {
        two_bits::arrange(q, codes);
        two_bits::arrange_sums(sums, -4, [low, high]);
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let zero = _mm512_setzero_si512();
        let quads = fours::<Self, _>(|i| {
            let w = w.wrapping_add(4 * 110 * i);
            // SAFETY: the last 16 bytes of these blocks.
            let tails = unsafe { unpack_scales(load_lanes(w.add(94), 110)) };
            let mut dots = four_blocks::<T>(|k| {
                // SAFETY: block `4i + k`.
                let (third, planes) = unsafe {
                    let block = w.add(110 * k);
                    (_mm512_broadcast_i64x4(_mm256_loadu_si256(block.cast())), load(block.add(32)))
                };
                let planes = request::<Self>(w, 110 * k, 110 * (k + 1), planes);
                // Bit `32 j` of the first half is bit j, that of the second bit 4 + j.
                let by = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi64x(4));
                let third = _mm512_srlv_epi64(third, by);
                let scales = match k {
                    0 => _mm512_shuffle_i32x4::<0x00>(tails, tails),
                    1 => _mm512_shuffle_i32x4::<0x55>(tails, tails),
                    2 => _mm512_shuffle_i32x4::<0xaa>(tails, tails),
                    _ => _mm512_shuffle_i32x4::<0xff>(tails, tails),
                };
                let codes = [
                    code(planes, _mm512_slli_epi16::<2>(third)),
                    code(_mm512_srli_epi16::<2>(planes), _mm512_slli_epi16::<1>(third)),
                    code(_mm512_srli_epi16::<4>(planes), third),
                    code(_mm512_srli_epi16::<6>(planes), _mm512_srli_epi16::<1>(third)),
                ];
                let scales = [0, 1].map(|j| _mm512_shuffle_epi8(scales, scale_words(j)));
                let mut dots = [zero; T];
                for t in 0..T {
                    let mut sums = [zero; 4];
                    for j in 0..4 {
                        // SAFETY: 64 of the block's 256 activations.
                        let x = unsafe { load(x.part(0, t).add(256 * (4 * i + k) + 64 * j)) };
                        sums[j] = _mm512_dpbusd_epi32(zero, codes[j], x);
                    }
                    for j in 0..2 {
                        // Sums of four products fit i16 (4 * 7 * 127).
                        let pair = _mm512_packs_epi32(sums[2 * j], sums[2 * j + 1]);
                        dots[t] = add_products(dots[t], pair, scales[j]);
                    }
                }
                dots
            });
            // The lower byte of these words is zero, as it is for `scale_words`: all sums are 256 times too large,
            // which is taken off at the end. |sum| < 2^23, so nothing is lost.
            let (low, high) = (_mm512_unpacklo_epi8(zero, tails), _mm512_unpackhi_epi8(zero, tails));
            for t in 0..T {
                // SAFETY: the sums of these blocks.
                let (x0, x1) = unsafe { (load(x.part(1, t).add(64 * i)), load(x.part(2, t).add(64 * i))) };
                dots[t] = _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(dots[t], low, x0), high, x1);
            }
            dots
        });
        // SAFETY: 16 blocks.
        let d = unsafe { scales::<110, 108>(w) };
        let mut terms = [[_mm512_setzero_ps(); 2]; T];
        for t in 0..T {
            // SAFETY: the scales of these terms.
            terms[t][0] = unsafe { x.term(t, d, _mm512_srai_epi32::<8>(sixteen_blocks(&quads, t))) };
        }
        terms
    }
}

/// Two low bits of `low`, third bit of `high`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn code(low: __m512i, high: __m512i) -> __m512i {
    let low = _mm512_and_si512(low, _mm512_set1_epi8(3));
    _mm512_ternarylogic_epi32::<0xf8>(low, high, _mm512_set1_epi8(4))
}

/// For codes registers `2 j` and `2 j + 1`, whose sums are packed: 256 times the scale of each.
#[inline]
#[target_feature(enable = "avx512f")]
fn scale_words(j: usize) -> __m512i {
    let words = |l: usize, j: usize| {
        let byte = (8 * (l / 2) + 2 * j + l % 2) as i64;
        0x0080_0080_0080_0080 | (byte * 0x0100_0100_0100_0100)
    };
    let (a, b) = (2 * j, 2 * j + 1);
    _mm512_setr_epi64(
        words(0, a),
        words(0, b),
        words(1, a),
        words(1, b),
        words(2, a),
        words(2, b),
        words(3, a),
        words(3, b),
    )
}

/// The last 16 bytes of four blocks, one per 128-bit lane (packed scales in bytes 2..14), to 16 scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn unpack_scales(tails: __m512i) -> __m512i {
    let lanes = |a: i32, b: i32, c: i32, d: i32| _mm512_setr4_epi32(a, b, c, d);
    let low = _mm512_shuffle_epi8(tails, lanes(0x0504_0302, 0x0908_0706, 0x0504_0302, 0x0908_0706));
    let low = low_nibbles(_mm512_srlv_epi32(low, lanes(0, 0, 4, 4)));
    let pairs = _mm512_shuffle_epi8(tails, _mm512_set1_epi32(0x0d0c_0b0a));
    let pairs = _mm512_rolv_epi32(pairs, lanes(4, 2, 0, -2));
    let six = _mm512_ternarylogic_epi32::<0xf8>(low, pairs, _mm512_set1_epi8(0x30));
    _mm512_sub_epi8(six, _mm512_set1_epi8(32))
}
