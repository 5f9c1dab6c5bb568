//! Q2_K: a code times its sub-scale is at most 45, so scales go into the codes and one exact sum does a whole block.

use super::columns::{self, Acc, Ahead, Columns, Quads};
use super::linear::{
    Linear, Terms, X, add_products, four_columns, fours, last_dwords, load, load_lanes, request,
    sixteen_blocks, sixteen_columns,
};
use super::load::{Rows, high_f16, high_nibbles, low_f16, low_nibbles};
use super::panel::{self, Format, Panel, Steps};
use super::two_bits;
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Q2K>(tile) }
}

struct Q2K;

impl Format for Q2K {
    const BYTES: usize = 84;
    const STEPS: Steps = Steps::Super { sub: 256, minima: true };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, _values: usize, panel: &mut Panel) {
        // SAFETY: the caller vouches for the 84 bytes of the block in every row.
        let (packed, d) = unsafe { (rows.dwords4(0), rows.dword(80)) };
        panel.set_d(0, low_f16(d));
        panel.set_dmin(high_f16(d));
        for j in 0..8 {
            panel.set_sums(j, minimum_pair(packed, j));
        }
        // SAFETY: as above.
        unsafe {
            scaled_codes(rows, packed, |k, codes| {
                for i in 0..4 {
                    panel.set_codes(k + i, codes[i]);
                }
            });
        }
    }
}

impl Columns for Q2K {
    const VALUES: usize = 256;
    const BYTES: usize = 84;
    const MINIMA: bool = true;

    fn words(sums: &[i16]) -> [[u8; 4]; 8] {
        columns::pairs::<16>(sums)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn columns<const T: usize>(rows: Rows, x: Quads<T>, ahead: Ahead, acc: &mut Acc<T>) {
        let zero = _mm512_setzero_si512();
        // SAFETY: the caller vouches for the 84 bytes of the block in every row.
        let packed = unsafe { rows.anew().dwords4(0) };
        let mut minima = [zero; T];
        let mut subtract = |i: usize| {
            for j in 2 * i..2 * i + 2 {
                // SAFETY: `j < 8`; the caller vouches for the activations.
                unsafe { x.dot_sums(j, minimum_pair(packed, j), &mut minima) };
            }
        };
        // A loop would index registers in memory.
        subtract(0);
        subtract(1);
        subtract(2);
        subtract(3);
        // Several sums of a token, so that products need not wait for each other.
        let mut dots = [[zero; T]; 4];
        let chains = const { if T > 4 { 1 } else { 4 } };
        for half in 0..2 {
            ahead.request::<{ 8 * 84 }>(half);
            // SAFETY: half of the block's codes.
            let mut planes = unsafe { rows.anew().dwords8(16 + 32 * half) };
            for pair in 2 * half..2 * half + 2 {
                let x = x.from(16 * pair);
                let scales = low_nibbles(packed[pair]);
                for odd in 0..2 {
                    let (mask, row) = lookup(odd);
                    for i in 0..8 {
                        // (planes & mask) | row
                        let number = _mm512_ternarylogic_epi32::<0xea>(planes[i], mask, row);
                        let codes = _mm512_shuffle_epi8(products(scales, odd, i / 4), number);
                        // SAFETY: fewer than 16; the caller vouches for the activations.
                        unsafe { x.dot(8 * odd + i, codes, &mut dots[(2 * odd + i % 2) % chains]) };
                    }
                }
                planes = planes.map(|planes| _mm512_srli_epi16::<4>(planes));
            }
        }
        let mut sums = [zero; T];
        for t in 0..T {
            let rest = _mm512_add_epi32(dots[2][t], dots[3][t]);
            sums[t] = _mm512_add_epi32(_mm512_add_epi32(dots[0][t], dots[1][t]), rest);
        }
        // SAFETY: the last 16 bytes of the block; the caller vouches for the activations.
        unsafe {
            let d = rows.anew().dwords4(68)[3];
            acc.add(x, 0, low_f16(d), sums);
            acc.subtract(x, 0, high_f16(d), minima);
        }
    }
}

/// The products of all codes and the scale of a sub-block, byte `2 odd + i` of `scales`, of the four rows of each 128-bit
/// lane: four bytes of a row for even pairs of bits, four bytes of a code for odd ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn products(scales: __m512i, odd: usize, i: usize) -> __m512i {
    let byte = 0x0101_0101 * (2 * odd + i) as i32;
    let (pick, codes) = if odd == 0 {
        (two_bits::pick(0x8000_8000 + (byte as u32 & 0x00ff_00ff)), _mm512_set1_epi32(0x0302_0100))
    } else {
        (_mm512_set1_epi32(0x0c08_0400 + byte), _mm512_setr4_epi32(0, 0x0001_0001, 0x0002_0002, 0x0003_0003))
    };
    // No byte of a word reaches 256: scales are below 16.
    _mm512_mullo_epi16(_mm512_shuffle_epi8(scales, pick), codes)
}

/// What finds a product in [`products`]: the bits of a code in place, and the row's number in the other ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn lookup(odd: usize) -> (__m512i, __m512i) {
    if odd == 0 {
        (_mm512_set1_epi8(3), _mm512_setr4_epi32(0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c))
    } else {
        (_mm512_set1_epi8(12), _mm512_setr4_epi32(0, 0x0101_0101, 0x0202_0202, 0x0303_0303))
    }
}

/// The minima of sub-blocks `2 j` and `2 j + 1` as two i16, from the packed bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn minimum_pair(packed: [__m512i; 4], j: usize) -> __m512i {
    // Two bytes of every dword, as two i16.
    let pick = two_bits::pick(0x8001_8000 + 0x0002_0002 * (j as u32 % 2));
    _mm512_shuffle_epi8(high_nibbles(packed[j / 2]), pick)
}

/// Calls `set(k, codes)` with values `4 k..4 k + 16` of 16 rows, their scales in them.
///
/// # Safety
/// The CPU has the tier; 84 bytes can be read in every row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn scaled_codes(rows: Rows, packed: [__m512i; 4], mut set: impl FnMut(usize, [__m512i; 4])) {
    let scales = packed.map(|packed| low_nibbles(packed));
    // SAFETY: as the caller promises.
    unsafe {
        two_bits::columns(rows, 16, |j, k, codes| {
            let pick = two_bits::pick(0x8000_8000 + 0x0001_0001 * (j as u32 % 4));
            let scale = _mm512_shuffle_epi8(scales[j / 4], pick);
            set(k, codes.map(|codes| _mm512_mullo_epi16(codes, scale)));
        });
    }
}

impl Linear for Q2K {
    const VALUES: usize = 256;
    const BYTES: usize = 84;
    const MINIMA: bool = true;
    const PARTS: [usize; 3] = [256, 16, 16];

    fn few(tokens: usize, _cols: usize) -> Option<TileFn> {
        match tokens {
            4 => columns::tile::<Self>(tokens),
            _ => columns::more::<Self>(tokens),
        }
    }

    /// The codes as [`two_bits::codes`] has them, and two halves of their sums.
    #[inline]
    fn arrange(q: &[i8], sums: &[i16], [codes, low, high]: [&mut [u8]; 3]) {
        two_bits::arrange(q, codes);
        two_bits::arrange_sums(sums, 1, [low, high]);
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let zero = _mm512_setzero_si512();
        let quads = fours::<Self, _>(|i| {
            let w = w.wrapping_add(4 * 84 * i);
            // SAFETY: the first and the last 16 bytes of these blocks.
            let (packed, d) = unsafe { (load_lanes(w, 84), load_lanes(w.add(68), 84)) };
            let (scales, mins) = (low_nibbles(packed), high_nibbles(packed));
            // Codes of the planes with odd numbers stay where they are, so sums are four times as large.
            let scales = [_mm512_slli_epi16::<2>(scales), scales];
            let dots = four_columns(|k| {
                // SAFETY: the codes of block `4i + k`.
                let planes = unsafe { load(w.add(84 * k + 16)) };
                let planes = request::<Self>(w, 84 * k, 84 * (k + 1), planes);
                let upper = _mm512_srli_epi16::<4>(planes);
                let mut sums = [zero; T];
                for odd in 0..2 {
                    let mask = _mm512_set1_epi8(if odd == 0 { 3 } else { 12 });
                    let codes = [_mm512_and_si512(planes, mask), _mm512_and_si512(upper, mask)];
                    // SAFETY: 64 bytes.
                    let spread = unsafe { load(SPREAD.0[k][odd].as_ptr()) };
                    let scales = _mm512_maskz_permutexvar_epi8(0x5555_5555_5555_5555, spread, scales[odd]);
                    for t in 0..T {
                        // SAFETY: the activations that meet these codes.
                        let (x0, x1) = unsafe {
                            let x = x.part(0, t).add(256 * (4 * i + k) + 64 * odd);
                            (load(x), load(x.add(128)))
                        };
                        let a = _mm512_dpbusd_epi32(zero, codes[0], x0);
                        let b = _mm512_dpbusd_epi32(zero, codes[1], x1);
                        // Sums of four products fit i16, so one instruction scales two sub-blocks side by side.
                        sums[t] = add_products(sums[t], _mm512_packs_epi32(a, b), scales);
                    }
                }
                sums
            });
            let (low, high) = (_mm512_unpacklo_epi8(mins, zero), _mm512_unpackhi_epi8(mins, zero));
            let mut minima = [zero; T];
            for t in 0..T {
                // SAFETY: the sums of these blocks.
                let (x0, x1) = unsafe { (load(x.part(1, t).add(64 * i)), load(x.part(2, t).add(64 * i))) };
                minima[t] = _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(zero, low, x0), high, x1);
            }
            (d, dots, minima)
        });
        let d = last_dwords([quads[0].0, quads[1].0, quads[2].0, quads[3].0]);
        let (d, dmin) = (low_f16(d), high_f16(d));
        let (dots, minima) = (quads.map(|quad| quad.1), quads.map(|quad| quad.2));
        let mut terms = [[_mm512_setzero_ps(); 2]; T];
        for t in 0..T {
            let sums = _mm512_srai_epi32::<2>(sixteen_columns(&dots, t));
            // SAFETY: the scales of these terms.
            terms[t] = unsafe { [x.term(t, d, sums), x.term(t, dmin, sixteen_blocks(&minima, t))] };
        }
        terms
    }
}

#[repr(align(64))]
struct Spread([[[u8; 64]; 2]; 4]);

/// For block `k` of four, and the planes with even or odd numbers: where the scale of each packed sum lies (even bytes;
/// odd ones become zero). In a 128-bit lane the first four sums are of plane 0 or 1, the others of plane 2 or 3.
static SPREAD: Spread = {
    let mut table = [[[0u8; 64]; 2]; 4];
    let mut i = 0;
    while i < 4 * 2 * 32 {
        let (k, odd, lane, plane) = (i / 64, i / 32 % 2, i % 32 / 8, i / 32 % 2 + i % 8 / 4 * 2);
        table[k][odd][2 * (i % 32)] = (16 * k + 8 * (lane / 2) + 2 * plane + lane % 2) as u8;
        i += 1;
    }
    Spread(table)
};
