//! IQ4_XS: nibbles are indices into 16 levels; signed 6-bit scales of 32 values. The offset of unsigned codes becomes
//! a product of scales and activation sums.

use super::blocks32::{levels, repeated};
use super::fields::vector;
use super::linear::{Linear, Terms, X, four_blocks, fours, load, request, sixteen_blocks};
use super::load::{Rows, low_f16};
use super::panel::{self, Format, Panel, Steps};
use crate::isa::Avx512;
use crate::types::TileFn;
use crate::types::codebooks::IQ4_LEVELS;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Iq4Xs>(tile) }
}

struct Iq4Xs;

/// What the unsigned codes are too large by.
const OFFSET: i16 = 127;
/// The unsigned codes.
const LEVELS: [u8; 64] = repeated(IQ4_LEVELS, OFFSET);

impl Format for Iq4Xs {
    const BYTES: usize = 136;
    const STEPS: Steps = Steps::Wide;
    const OFFSET: Option<i16> = Some(OFFSET);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, _values: usize, panel: &mut Panel) {
        // SAFETY: the caller vouches for the 136 bytes of the block in every row.
        let [head, low, ..] = unsafe { rows.dwords4(0) };
        panel.set_d(0, low_f16(head));
        for j in 0..8 {
            let shift = |v, by: usize| _mm512_srlv_epi32(v, _mm512_set1_epi32(by as i32));
            let low = _mm512_and_si512(shift(low, 4 * j), _mm512_set1_epi32(15));
            let high = _mm512_and_si512(shift(head, 16 + 2 * j), _mm512_set1_epi32(3));
            let scale = _mm512_or_si512(low, _mm512_slli_epi32::<4>(high));
            panel.set_scale(j, _mm512_sub_epi32(scale, _mm512_set1_epi32(32)));
            // SAFETY: as above.
            let nibbles = unsafe { rows.dwords4(8 + 16 * j) };
            for i in 0..4 {
                let [low, high] = levels(nibbles[i], LEVELS);
                panel.set_codes(8 * j + i, low);
                panel.set_codes(8 * j + 4 + i, high);
            }
        }
    }
}

impl Linear for Iq4Xs {
    const VALUES: usize = 256;
    const BYTES: usize = 136;
    const MINIMA: bool = false;
    const PARTS: [usize; 3] = [256, 16, 0];

    /// The codes that meet the low nibbles of 64 bytes, those that meet the high ones, twice; the sums of 32.
    #[inline]
    fn arrange(q: &[i8], sums: &[i16], [codes, pairs, _]: [&mut [u8]; 3]) {
        let (q, codes) = (q.as_chunks::<16>().0, codes.as_chunks_mut::<16>().0);
        for (from, to) in [0, 2, 4, 6, 1, 3, 5, 7].into_iter().zip(0..) {
            for half in [0, 8] {
                codes[half + to] = q[half + from].map(|q| q as u8);
            }
        }
        for (sums, pair) in sums.as_chunks::<2>().0.iter().zip(pairs.as_chunks_mut::<2>().0) {
            *pair = (sums[0] + sums[1]).to_ne_bytes();
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        // SAFETY: eight times two blocks.
        let headers = unsafe { [headers(w), headers(w.add(8 * 136))] };
        let d = headers.map(|headers| _mm512_cvtepi64_epi32(headers));
        let scales = headers.map(|headers| unpack_scales(headers));
        let quads = fours::<Self, _>(|i| {
            let scales = if i % 2 == 0 {
                _mm512_castsi512_si256(scales[i / 2])
            } else {
                _mm512_extracti64x4_epi64::<1>(scales[i / 2])
            };
            // Of two blocks, eight scales each.
            let pairs = [
                _mm512_cvtepi8_epi32(_mm256_castsi256_si128(scales)),
                _mm512_cvtepi8_epi32(_mm256_extracti128_si256::<1>(scales)),
            ];
            let mut dots = four_blocks::<T>(|k| {
                let at = 4 * i + k;
                // SAFETY: block `at` and its activations.
                unsafe { block_sums(w, x, at, pairs[k / 2]) }
            });
            let offsets = _mm512_mullo_epi16(_mm512_cvtepi8_epi16(scales), _mm512_set1_epi16(-OFFSET));
            for t in 0..T {
                // SAFETY: the sums of these four blocks, 16 bytes each.
                dots[t] = _mm512_dpwssd_epi32(dots[t], offsets, unsafe { load(x.part(1, t).add(64 * i)) });
            }
            dots
        });
        let d = low_f16(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(d[0]), d[1]));
        let mut terms = [[_mm512_setzero_ps(); 2]; T];
        for t in 0..T {
            // SAFETY: the scales of these terms.
            terms[t][0] = unsafe { x.term(t, d, sixteen_blocks(&quads, t)) };
        }
        terms
    }
}

/// The first eight bytes of eight blocks. Block `b`'s are at byte `8 * b` of 64 that begin `128 * b` bytes on.
///
/// # Safety
/// The CPU has the tier; the blocks can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn headers(w: *const u8) -> __m512i {
    let mut headers = _mm512_setzero_si512();
    for b in 0..8 {
        // SAFETY: only the eight bytes of the block are read.
        headers = unsafe { _mm512_mask_loadu_epi64(headers, 1 << b, w.add(128 * b).cast()) };
    }
    headers
}

/// Eight scales, as bytes, of each header.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn unpack_scales(headers: __m512i) -> __m512i {
    // Low bits are nibbles from bit 32 on; high bits are pairs from bit 16 on, which go to places 4 and 5.
    let low = _mm512_set1_epi64(i64::from_le_bytes([32, 36, 40, 44, 48, 52, 56, 60]));
    let high = _mm512_set1_epi64(i64::from_le_bytes([12, 14, 16, 18, 20, 22, 24, 26]));
    let low = _mm512_and_si512(_mm512_multishift_epi64_epi8(low, headers), _mm512_set1_epi8(15));
    let high = _mm512_multishift_epi64_epi8(high, headers);
    // low | (high & 0x30)
    let scales = _mm512_ternarylogic_epi32::<0xf8>(low, high, _mm512_set1_epi8(0x30));
    _mm512_sub_epi8(scales, _mm512_set1_epi8(32))
}

/// 16 partial sums of the block numbered `at` for each token: unsigned codes times activations times scales, which are
/// those of two blocks.
///
/// # Safety
/// The CPU has the tier; 128 bytes of nibbles and 256 activations can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn block_sums<const T: usize>(w: *const u8, x: X, at: usize, scales: __m512i) -> [__m512i; T] {
    let zero = _mm512_setzero_si512();
    let mut sums = [zero; T];
    for half in 0..2 {
        // SAFETY: as the caller promises.
        let nibbles = unsafe { load(w.add(136 * at + 8 + 64 * half)) };
        let from = 136 * at + 68 * half;
        let [low, high] = levels(request::<Iq4Xs>(w, from, from + 68, nibbles), LEVELS);
        // Lane `l` is sub-block `4 * half + l`.
        let scale = _mm512_permutexvar_epi32(vector(SPREAD[at % 2][half]), scales);
        for t in 0..T {
            // SAFETY: as the caller promises.
            let (x0, x1) = unsafe {
                let x = x.part(0, t).add(256 * at + 128 * half);
                (load(x), load(x.add(64)))
            };
            let dot = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, low, x0), high, x1);
            sums[t] = _mm512_add_epi32(sums[t], _mm512_mullo_epi32(dot, scale));
        }
    }
    sums
}

/// For block `k` of two and half `h`: the number of each lane's scale, in every dword of it.
static SPREAD: [[[u8; 64]; 2]; 2] = {
    let mut table = [[[0; 64]; 2]; 2];
    let mut i = 0;
    while i < 2 * 2 * 16 {
        let (k, half, dword) = (i / 32, i / 16 % 2, i % 16);
        table[k][half][4 * dword] = (8 * k + 4 * half + dword / 4) as u8;
        i += 1;
    }
    table
};
