//! IQ4_XS: nibbles are indices into 16 levels; signed 6-bit scales of 32 values. The offset of unsigned codes becomes
//! a product of scales and activation sums.

use super::blocks32::{levels, repeated};
use super::fields::vector;
use super::linear::{Linear, X, add_dwords, add_lanes, load, request_lines, term};
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
    fn arrange(q: &[i8], sums: &[i16], [codes, pairs, _]: [&mut [u8]; 3]) {
        for (from, to) in [0, 2, 4, 6, 1, 3, 5, 7].into_iter().zip(0..) {
            for half in 0..2 {
                let to = &mut codes[128 * half + 16 * to..][..16];
                let from = &q[128 * half + 16 * from..][..16];
                to.iter_mut().zip(from).for_each(|(to, from)| *to = *from as u8);
            }
        }
        for (sums, pair) in sums.as_chunks::<2>().0.iter().zip(pairs.as_chunks_mut::<2>().0) {
            *pair = (sums[0] + sums[1]).to_ne_bytes();
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms(w: *const u8, x: X) -> [__m512; 2] {
        let zero = _mm512_setzero_si512();
        let mut quads = [zero; 4];
        let mut d = [_mm256_setzero_si256(); 2];
        for pair in 0..2 {
            // SAFETY: blocks `8 * pair..8 * pair + 8` of 16.
            let headers = unsafe { headers(w.add(8 * pair * 136)) };
            d[pair] = _mm512_cvtepi64_epi32(headers);
            let scales = unpack_scales(headers);
            let lanes = [
                _mm512_castsi512_si128(scales),
                _mm512_extracti32x4_epi32::<1>(scales),
                _mm512_extracti32x4_epi32::<2>(scales),
                _mm512_extracti32x4_epi32::<3>(scales),
            ];
            for i in 0..2 {
                let mut dots = [zero; 4];
                for (k, dot) in dots.iter_mut().enumerate() {
                    let at = 8 * pair + 4 * i + k;
                    request_lines(w, at * 136, (at + 1) * 136);
                    // Of two blocks, eight scales each.
                    let scales = _mm512_cvtepi8_epi32(lanes[2 * i + k / 2]);
                    // SAFETY: block `at` and its activations.
                    *dot =
                        unsafe { block_sums(w.add(at * 136 + 8), x.parts[0].add(at * 256), scales, k % 2) };
                }
                // SAFETY: the sums of these four blocks, 16 bytes each.
                let sums = unsafe { load(x.parts[1].add(64 * (2 * pair + i))) };
                let bytes = if i == 0 {
                    _mm512_castsi512_si256(scales)
                } else {
                    _mm512_extracti64x4_epi64::<1>(scales)
                };
                let offsets = _mm512_mullo_epi16(_mm512_cvtepi8_epi16(bytes), _mm512_set1_epi16(-OFFSET));
                quads[2 * pair + i] = _mm512_dpwssd_epi32(add_lanes(dots), offsets, sums);
            }
        }
        let d = low_f16(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(d[0]), d[1]));
        [term(d, x, add_dwords(quads)), _mm512_setzero_ps()]
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

/// 16 partial sums of a block: unsigned codes times activations times scales, which are those of block `k` of two.
///
/// # Safety
/// The CPU has the tier; 128 bytes of nibbles and 256 activations can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn block_sums(nibbles: *const u8, x: *const u8, scales: __m512i, k: usize) -> __m512i {
    let zero = _mm512_setzero_si512();
    let mut sums = [zero; 2];
    for half in 0..2 {
        // SAFETY: as the caller promises.
        let (nibbles, x0, x1) =
            unsafe { (load(nibbles.add(64 * half)), load(x.add(128 * half)), load(x.add(128 * half + 64))) };
        let [low, high] = levels(nibbles, LEVELS);
        let dot = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, low, x0), high, x1);
        // Lane `l` is sub-block `4 * half + l`.
        let scale = _mm512_permutexvar_epi32(vector(SPREAD[k][half]), scales);
        sums[half] = _mm512_mullo_epi32(dot, scale);
    }
    _mm512_add_epi32(sums[0], sums[1])
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
