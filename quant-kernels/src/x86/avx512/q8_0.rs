//! Q8_0: codes become unsigned by flipping their top bit.

use super::columns::{self, Acc, Ahead, Columns, Quads};
use super::fields::vector;
use super::linear::{self, Linear, Terms, X, add_dword_twos, bytes, fours, load, request, sixteen_halves};
use super::load::{Rows, high_f16, low_f16};
use super::panel::{self, Format, Panel, Steps};
use super::step::four_times;
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Q8_0>(tile) }
}

struct Q8_0;

/// Up to so many columns, activations and terms of a few tokens leave room for weights in the first-level cache.
const LONG: usize = 4096;

impl Format for Q8_0 {
    const BYTES: usize = 8 * 34;
    const STEPS: Steps = Steps::Blocks { sub: 32, offset: 128, minima: false };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, values: usize, panel: &mut Panel) {
        let flip = _mm512_set1_epi8(-128);
        for j in 0..values / 32 {
            let at = j * 34;
            if j % 2 == 0 {
                // SAFETY: the caller vouches for the 34 bytes of block `j` in every row, and of the next one if there is.
                let d = unsafe { if 32 * j + 64 <= values { two_scales(rows, at) } else { rows.dword(at) } };
                panel.set_d(j, low_f16(d));
                panel.set_d(j + 1, high_f16(d));
            }
            // SAFETY: as above.
            let codes = unsafe { rows.dwords8(at + 2) };
            for i in 0..8 {
                panel.set_codes(j * 8 + i, _mm512_xor_si512(codes[i], flip));
            }
        }
    }
}

/// The scales of two consecutive blocks of 16 rows, of which the first begins at byte `at`: two f16 in a dword.
///
/// # Safety
/// The CPU has the tier; the blocks can be read in every row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn two_scales(rows: Rows, at: usize) -> __m512i {
    // Words 0 and 17 of both: those of the first to even dwords, those of the second to odd ones.
    let order = _mm512_set1_epi64(17 << 16 | 32 << 32 | 49 << 48);
    // SAFETY: the first 64 of 68 bytes of a row.
    let line = |row: usize| unsafe { load(rows.base.add(row * rows.stride + at)) };
    let two = |row: usize| _mm512_permutex2var_epi16(line(row), order, line(row + 1));
    let four = |row: usize| _mm512_mask_blend_epi32(0xcccc, two(row), two(row + 2));
    let eight = |row: usize| _mm512_mask_blend_epi32(0xf0f0, four(row), four(row + 4));
    _mm512_mask_blend_epi32(0xff00, eight(0), eight(8))
}

impl Columns for Q8_0 {
    const VALUES: usize = 256;
    const BYTES: usize = 8 * 34;
    const SHARE: usize = 32;
    const BEFORE: usize = 2;

    /// -128 times the sums of blocks.
    fn words(sums: &[i16]) -> [[u8; 4]; 8] {
        let mut words = [[0; 4]; 8];
        for (word, sums) in words.iter_mut().zip(sums.as_chunks::<2>().0) {
            *word = (-128 * (i32::from(sums[0]) + i32::from(sums[1]))).to_ne_bytes();
        }
        words
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn columns<const T: usize>(rows: Rows, x: Quads<T>, ahead: Ahead, acc: &mut Acc<T>) {
        let (mut d, mut sums) = (_mm512_setzero_ps(), [_mm512_setzero_si512(); T]);
        // Two blocks are 17 dwords: the first begins in the lower half of one, the second in the upper half of another,
        // whose lower half are the first one's last codes. No function: the compiler might leave it one, and sums would
        // go through memory.
        macro_rules! multiply {
            ($dwords:expr, $first:expr, $count:literal) => {
                let dwords = $dwords;
                for n in 0..$count {
                    let (pair, place) = (($first + n) / 17, ($first + n) % 17);
                    let codes = _mm512_xor_si512(dwords[n], _mm512_set1_epi8(-128));
                    // SAFETY: dword `first + n < 68` and `pair < 4`; the caller vouches for the activations.
                    unsafe {
                        if place == 0 {
                            (d, sums) = (low_f16(dwords[n]), x.sums(2 * pair));
                        }
                        x.dot($first + n, codes, &mut sums);
                        if place == 8 {
                            acc.add(x, 2 * pair, d, sums);
                            (d, sums) = (high_f16(dwords[n]), x.sums(2 * pair + 1));
                        }
                        if place == 16 {
                            acc.add(x, 2 * pair + 1, d, sums);
                        }
                    }
                }
            };
        }
        macro_rules! eight {
            ($i:expr) => {{
                ahead.request::<{ 2 * 272 }>($i);
                // SAFETY: 32 of the 272 bytes.
                multiply!(unsafe { rows.anew().dwords8(32 * $i) }, 8 * $i, 8);
            }};
        }
        four_times!(i, eight!(i));
        four_times!(i, eight!(4 + i));
        // SAFETY: the last 16 bytes.
        multiply!(unsafe { rows.anew().dwords4(256) }, 64, 4);
    }
}

impl Linear for Q8_0 {
    const VALUES: usize = 32;
    const BYTES: usize = 34;
    const MINIMA: bool = false;
    /// Most bytes per value: more would push others out of the first-level cache.
    const AHEAD: usize = 8 << 10;
    const PARTS: [usize; 3] = [32, 4, 0];

    fn few(tokens: usize, cols: usize) -> Option<TileFn> {
        if cols.is_multiple_of(256) {
            return match tokens {
                2 | 3 if cols <= LONG => None,
                // Two and three tokens, too: with less to do the rows would be asked for before they have been fetched.
                2..=4 => columns::tile::<Self>(4),
                _ => columns::more::<Self>(tokens),
            };
        }
        // SAFETY: this type's matmul exists with a proof of the tier only.
        (tokens == 4 && cols <= LONG).then_some(|tile| unsafe { linear::tile::<Self, 4>(tile) })
    }

    /// The codes, and -128 times their sum.
    #[inline]
    fn arrange(q: &[i8], sums: &[i16], [codes, offset, _]: [&mut [u8]; 3]) {
        codes.copy_from_slice(bytes(q));
        offset.copy_from_slice(&(-128 * (i32::from(sums[0]) + i32::from(sums[1]))).to_ne_bytes());
    }

    /// 16 blocks are eight lines of 64 bytes and a half. Two blocks are 68 bytes, so pair `k` begins at byte `4 k` of
    /// line `k`, where one permutation takes its codes from, and from the next line.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let zero = _mm512_setzero_si512();
        // SAFETY: the blocks' 544 bytes.
        let line = |i: usize| unsafe {
            let p = w.add(64 * i);
            if i < 8 { load(p) } else { _mm512_castsi256_si512(_mm256_loadu_si256(p.cast())) }
        };
        let fours = fours::<Self, _>(|i| {
            let (a, b, c) = (line(2 * i), line(2 * i + 1), line(2 * i + 2));
            let scales = _mm512_permutex2var_epi16(a, vector(const { scale_places() }[i]), b);
            let codes = |k: usize, here, next| {
                let codes = _mm512_permutex2var_epi16(here, vector(const { pairs() }[k]), next);
                let codes = request::<Self>(w, 64 * k, if k < 7 { 64 * (k + 1) } else { 544 }, codes);
                _mm512_xor_si512(codes, _mm512_set1_epi8(-128))
            };
            let (first, second) = (codes(2 * i, a, b), codes(2 * i + 1, b, c));
            let mut dots = [zero; T];
            for t in 0..T {
                // SAFETY: the activations of these four blocks.
                let (x0, x1) = unsafe {
                    let x = x.part(0, t).add(128 * i);
                    (load(x), load(x.add(64)))
                };
                let dot = |codes, x| _mm512_dpbusd_epi32(zero, codes, x);
                dots[t] = add_dword_twos(dot(first, x0), dot(second, x1));
            }
            (_mm512_castsi512_si256(scales), dots)
        });
        let low = _mm256_unpacklo_epi64(fours[0].0, fours[1].0);
        let high = _mm256_unpacklo_epi64(fours[2].0, fours[3].0);
        let d = _mm512_cvtph_ps(_mm256_blend_epi32::<0xf0>(low, high));
        let mut terms = [[_mm512_setzero_ps(); 2]; T];
        for t in 0..T {
            let sums = sixteen_halves([fours[0].1[t], fours[1].1[t], fours[2].1[t], fours[3].1[t]]);
            // SAFETY: 16 offsets, and the scales of these terms.
            terms[t][0] = unsafe { x.term(t, d, _mm512_add_epi32(sums, load(x.part(1, t)))) };
        }
        terms
    }
}

/// For each pair of blocks: where its codes' words lie in the two lines that they begin and end in.
const fn pairs() -> [[u8; 64]; 8] {
    let mut order = [[0; 64]; 8];
    let mut i = 0;
    while i < 8 * 32 {
        let (k, word) = (i / 32, i % 32);
        order[k][2 * word] = (2 * k + 1 + word / 16 + word) as u8;
        i += 1;
    }
    order
}

/// For each two pairs of blocks: where their scales lie in the two lines that they begin in; the same in each qword.
const fn scale_places() -> [[u8; 64]; 4] {
    let mut order = [[0; 64]; 4];
    let mut i = 0;
    while i < 4 * 32 {
        let (two, block) = (i / 32, i % 4);
        order[two][2 * (i % 32)] = (4 * two + block / 2 * 34 + block % 2 * 17) as u8;
        i += 1;
    }
    order
}
