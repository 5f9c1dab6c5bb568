//! Q4_K: nibbles are the codes; Q5_K shares the packed scales.

use super::columns::{self, Acc, Ahead, Columns, Quads};
use super::linear::{
    Linear, Terms, X, add_products, bytes, first_dwords, four_columns, fours, load, load_lanes, request,
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
    |tile| unsafe { panel::tile::<Q4K>(tile) }
}

struct Q4K;

impl Format for Q4K {
    const BYTES: usize = 144;
    const STEPS: Steps = Steps::Super { sub: 32, minima: true };
    const NARROW: Option<u16> = Some(i16::MAX as u16 / 15);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, _values: usize, panel: &mut Panel) {
        // SAFETY: the caller vouches for the 144 bytes of the block in every row.
        unsafe { header(rows, panel) };
        for g in 0..4 {
            // SAFETY: as above.
            let codes = unsafe { rows.dwords8(16 + 32 * g) };
            for i in 0..8 {
                panel.set_codes(16 * g + i, low_nibbles(codes[i]));
                panel.set_codes(16 * g + 8 + i, high_nibbles(codes[i]));
            }
        }
    }
}

/// The first 16 bytes of Q4_K and Q5_K blocks: both scales, and the packed scales and minima of 8 sub-blocks.
///
/// # Safety
/// The CPU has the tier; 16 bytes can be read in every row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn header(rows: Rows, panel: &mut Panel) {
    // SAFETY: as the caller promises.
    let header = unsafe { Header::of(rows) };
    panel.set_d(0, header.d);
    panel.set_dmin(header.dmin);
    for j in 0..8 {
        panel.set_scale(j, header.scale(j));
        panel.set_sums(j, header.minimum(j));
    }
}

/// The first 16 bytes of a block of 16 rows.
struct Header {
    d: __m512,
    dmin: __m512,
    /// Scales and minima as bytes, four sub-blocks per dword.
    scales: [__m512i; 2],
    minima: [__m512i; 2],
}

impl Header {
    /// # Safety
    /// The CPU has the tier; 16 bytes can be read in every row.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn of(rows: Rows) -> Self {
        // SAFETY: as the caller promises.
        let h = unsafe { rows.dwords4(0) };
        // `scale_min` on all packed bytes at once.
        let six = _mm512_set1_epi8(63);
        let join = |low: __m512i, high: __m512i| {
            let high = _mm512_and_si512(_mm512_srli_epi32::<2>(high), _mm512_set1_epi8(0x30));
            _mm512_or_si512(low_nibbles(low), high)
        };
        Self {
            d: low_f16(h[0]),
            dmin: high_f16(h[0]),
            scales: [_mm512_and_si512(h[1], six), join(h[3], h[1])],
            minima: [_mm512_and_si512(h[2], six), join(_mm512_srli_epi32::<4>(h[3]), h[2])],
        }
    }

    /// The scale of sub-block `j` as an i32.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn scale(&self, j: usize) -> __m512i {
        _mm512_maskz_shuffle_epi8(0x1111_1111_1111_1111, self.scales[j / 4], lane_bytes(j))
    }

    /// The minimum of sub-block `j`, twice, as two i16: both halves of a sub-block have it.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn minimum(&self, j: usize) -> __m512i {
        let pick = lane_bytes(j);
        let pick = _mm512_or_si512(pick, _mm512_slli_epi32::<16>(pick));
        _mm512_maskz_shuffle_epi8(0x5555_5555_5555_5555, self.minima[j / 4], pick)
    }
}

/// In every 128-bit lane: the number of byte `j % 4` of each dword.
#[inline]
#[target_feature(enable = "avx512f")]
fn lane_bytes(j: usize) -> __m512i {
    _mm512_add_epi32(_mm512_setr4_epi32(0, 4, 8, 12), _mm512_set1_epi32((j % 4) as i32))
}

impl Columns for Q4K {
    const VALUES: usize = 256;
    const BYTES: usize = 144;
    const MINIMA: bool = true;

    fn words(sums: &[i16]) -> [[u8; 4]; 8] {
        columns::pairs::<32>(sums)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn columns<const T: usize>(rows: Rows, x: Quads<T>, ahead: Ahead, acc: &mut Acc<T>) {
        // SAFETY: as the caller promises.
        unsafe {
            columns::<144, { 4 * 144 }, T, 4>(rows, x, ahead, acc, |nibbles, _, _| {
                [low_nibbles(nibbles), _mm512_and_si512(nibbles, _mm512_set1_epi8(-16))]
            })
        }
    }
}

/// [`Columns::columns`] of Q4_K and Q5_K blocks of `BYTES` bytes, whose nibbles are the last 128. `codes(nibbles, g, i)`
/// makes the codes of two sub-blocks from dword `i` of group `g`'s eight, those of the second one times `2^SHIFT`;
/// `QUARTER` is a quarter of 16 blocks' bytes.
///
/// # Safety
/// As for [`Columns::columns`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn columns<const BYTES: usize, const QUARTER: usize, const T: usize, const SHIFT: u32>(
    rows: Rows,
    x: Quads<T>,
    ahead: Ahead,
    acc: &mut Acc<T>,
    codes: impl Fn(__m512i, usize, usize) -> [__m512i; 2],
) {
    let zero = _mm512_setzero_si512();
    // SAFETY: the first 16 bytes of the block.
    let header = unsafe { Header::of(rows.anew()) };
    let (mut sums, mut minima) = ([zero; T], [zero; T]);
    for j in 0..4 {
        // Two bytes of every dword, as two i16.
        let pick = two_bits::pick(0x8001_8000 + 0x0002_0002 * (j as u32 % 2));
        let pair = _mm512_shuffle_epi8(header.minima[j / 2], pick);
        // SAFETY: four pairs of sums; the caller vouches for the activations.
        unsafe { x.dot_sums(j, pair, &mut minima) };
    }
    // SAFETY: the caller vouches for the activations.
    unsafe { acc.subtract(x, 0, header.dmin, minima) };
    for g in 0..4 {
        ahead.request::<QUARTER>(g);
        // SAFETY: 32 of the nibbles' 128 bytes.
        let nibbles = unsafe { rows.anew().dwords8(BYTES - 128 + 32 * g) };
        // Scales of the sub-blocks in the lowest bytes.
        let scales = _mm512_srlv_epi32(header.scales[g / 2], _mm512_set1_epi32(16 * (g as i32 % 2)));
        let byte = _mm512_set1_epi32(0xff);
        let scales = [
            _mm512_slli_epi32::<SHIFT>(_mm512_and_si512(scales, byte)),
            _mm512_and_si512(_mm512_srli_epi32::<8>(scales), byte),
        ];
        let mut add = |dots: [__m512i; T], scale| {
            for t in 0..T {
                sums[t] = _mm512_add_epi32(sums[t], _mm512_mullo_epi32(dots[t], scale));
            }
        };
        let mut dots = [[zero; T]; 2];
        // SAFETY: `16 * g + 8 + i < 64`; the caller vouches for the activations.
        unsafe {
            if T > 4 {
                // One sub-block after the other: there are no registers for the sums of both.
                for i in 0..8 {
                    x.dot(16 * g + i, codes(nibbles[i], g, i)[0], &mut dots[0]);
                }
                add(dots[0], scales[0]);
                for i in 0..8 {
                    x.dot(16 * g + 8 + i, codes(nibbles[i], g, i)[1], &mut dots[1]);
                }
                add(dots[1], scales[1]);
            } else {
                for i in 0..8 {
                    let [low, high] = codes(nibbles[i], g, i);
                    x.dot(16 * g + i, low, &mut dots[0]);
                    x.dot(16 * g + 8 + i, high, &mut dots[1]);
                }
                add(dots[0], scales[0]);
                add(dots[1], scales[1]);
            }
        }
    }
    // 2^SHIFT times as large, still less than 2^29.
    let sums = sums.map(|sum| _mm512_srai_epi32::<SHIFT>(sum));
    // SAFETY: the caller vouches for the activations.
    unsafe { acc.add(x, 0, header.d, sums) };
}

impl Linear for Q4K {
    const VALUES: usize = 256;
    const BYTES: usize = 144;
    const MINIMA: bool = true;
    const UNROLLED: usize = 1;
    const PARTS: [usize; 3] = [256, 16, 0];

    fn few(tokens: usize, _cols: usize) -> Option<TileFn> {
        columns::tile::<Self>(tokens).or_else(|| columns::more::<Self>(tokens))
    }

    #[inline]
    fn arrange(q: &[i8], sums: &[i16], parts: [&mut [u8]; 3]) {
        arrange(q, sums, parts);
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        // SAFETY: as the caller promises.
        unsafe { terms::<Self, T>(w, x, |codes, _, _| [low_nibbles(codes), high_nibbles(codes)]) }
    }
}

/// The activations of a block of Q4_K or Q5_K: sub-blocks in the order 0, 2, 1, 3, 4, 6, 5, 7, as the low and high
/// nibbles of 64 bytes have them; the sums of sub-blocks.
#[inline]
pub(super) fn arrange(q: &[i8], sums: &[i16], [codes, pairs, _]: [&mut [u8]; 3]) {
    let q = q.as_chunks::<32>().0;
    for (from, to) in [0, 2, 1, 3, 4, 6, 5, 7].into_iter().zip(codes.as_chunks_mut::<32>().0) {
        to.copy_from_slice(bytes(&q[from]));
    }
    for (sums, pair) in sums.as_chunks::<2>().0.iter().zip(pairs.as_chunks_mut::<2>().0) {
        *pair = (sums[0] + sums[1]).to_ne_bytes();
    }
}

/// [`Linear::terms`] of Q4_K and Q5_K blocks, whose nibbles are the last 128. `codes(nibbles, block,
/// half)` makes the codes of two sub-blocks from low and two from high nibbles.
///
/// # Safety
/// As for [`Linear::terms`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn terms<L: Linear, const T: usize>(
    w: *const u8,
    x: X,
    codes: impl Fn(__m512i, *const u8, usize) -> [__m512i; 2],
) -> Terms<T> {
    let zero = _mm512_setzero_si512();
    let quads = fours::<L, _>(|i| {
        let w = w.wrapping_add(4 * i * L::BYTES);
        // SAFETY: the headers of these four blocks.
        let headers = unsafe { load_lanes(w, L::BYTES) };
        let packed = unpack_scales(headers);
        let (scales, mins) = (_mm512_unpacklo_epi8(packed, zero), _mm512_unpackhi_epi8(packed, zero));
        let mut minima = [zero; T];
        for t in 0..T {
            // SAFETY: the sums of these blocks, 16 bytes each.
            minima[t] = _mm512_dpwssd_epi32(zero, mins, unsafe { load(x.part(1, t).add(64 * i)) });
        }
        let dots = four_columns(|k| {
            let block = w.wrapping_add(k * L::BYTES);
            let mut sums = [zero; T];
            for half in 0..2 {
                // SAFETY: 64 bytes of nibbles of block `k`, and 64 bytes.
                let (nibbles, spread) = unsafe {
                    (load(block.add(L::BYTES - 128 + 64 * half)), load(SPREAD.0[k][half].as_ptr().cast()))
                };
                let from = k * L::BYTES + half * (L::BYTES / 2);
                let nibbles = request::<L>(w, from, from + L::BYTES / 2, nibbles);
                let [low, high] = codes(nibbles, block, half);
                let scales = _mm512_permutexvar_epi16(spread, scales);
                for t in 0..T {
                    // SAFETY: the activations that meet these codes.
                    let (x0, x1) = unsafe {
                        let x = x.part(0, t).add((4 * i + k) * 256 + 128 * half);
                        (load(x), load(x.add(64)))
                    };
                    let (a, b) = (_mm512_dpbusd_epi32(zero, low, x0), _mm512_dpbusd_epi32(zero, high, x1));
                    // Sums of four products fit i16, so one instruction scales two sub-blocks side by side.
                    sums[t] = add_products(sums[t], _mm512_packs_epi32(a, b), scales);
                }
            }
            sums
        });
        (headers, dots, minima)
    });
    let d = first_dwords([quads[0].0, quads[1].0, quads[2].0, quads[3].0]);
    let (d, dmin) = (low_f16(d), high_f16(d));
    let (dots, minima) = (quads.map(|quad| quad.1), quads.map(|quad| quad.2));
    let mut terms = [[_mm512_setzero_ps(); 2]; T];
    for t in 0..T {
        // SAFETY: the scales of these terms.
        terms[t] =
            unsafe { [x.term(t, d, sixteen_columns(&dots, t)), x.term(t, dmin, sixteen_blocks(&minima, t))] };
    }
    terms
}

/// Headers of four blocks, one per 128-bit lane, to eight scales and eight minima as bytes in each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn unpack_scales(headers: __m512i) -> __m512i {
    let lanes = |a: u32, b: u32, c: u32, d: u32| _mm512_setr4_epi32(a as i32, b as i32, c as i32, d as i32);
    // Dwords of the packed bytes: first scales, first minima, and twice the low nibbles of the others.
    let low = _mm512_shuffle_epi8(headers, lanes(0x0706_0504, 0x0f0e_0d0c, 0x0b0a_0908, 0x0f0e_0d0c));
    let low = _mm512_srlv_epi32(low, lanes(0, 0, 0, 4));
    let low = _mm512_and_si512(low, lanes(0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f));
    let high = _mm512_shuffle_epi8(headers, lanes(0x8080_8080, 0x0706_0504, 0x8080_8080, 0x0b0a_0908));
    // low | (high >> 2 & 0x30)
    _mm512_ternarylogic_epi32::<0xf8>(low, _mm512_srli_epi32::<2>(high), _mm512_set1_epi8(0x30))
}

#[repr(align(64))]
struct Spread([[[u16; 32]; 2]; 4]);

/// For block `k` of four and half `h`: where the scale of each packed sum lies among the eight of each block. In a 128-bit
/// lane `l` the first four sums are of sub-block `4h + l / 2 * 2`, the others of the next one.
static SPREAD: Spread = {
    let mut table = [[[0; 32]; 2]; 4];
    let mut i = 0;
    while i < 4 * 2 * 32 {
        let (k, half, word) = (i / 64, i / 32 % 2, i % 32);
        table[k][half][word] = (8 * k + 4 * half + word / 16 * 2 + word % 8 / 4) as u16;
        i += 1;
    }
    Spread(table)
};
