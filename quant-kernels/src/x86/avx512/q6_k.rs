//! Q6_K: unsigned 6-bit codes with an offset of 32, which becomes a product of scales and activation sums.

use super::columns::{self, Acc, Ahead, ByteScales, Columns, Quads};
use super::linear::{
    Linear, Terms, X, add_products, four_columns, fours, load, request, scales, sixteen_columns,
};
use super::load::{Rows, high_f16, high_nibbles, low_nibbles};
use super::panel::{self, Format, Panel, Steps};
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Q6K>(tile) }
}

struct Q6K;

impl Format for Q6K {
    const BYTES: usize = 210;
    const STEPS: Steps = Steps::Super { sub: 16, minima: false };
    const OFFSET: Option<i16> = Some(32);
    const NARROW: Option<u16> = Some(i16::MAX as u16 / 32);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, _values: usize, panel: &mut Panel) {
        // SAFETY: the caller vouches for the 210 bytes of the block in every row.
        let (d, scales) = unsafe { (rows.dword(206), rows.dwords4(192)) };
        panel.set_d(0, high_f16(d));
        for i in 0..4 {
            let s = scales[i];
            let s = [
                _mm512_srai_epi32::<24>(_mm512_slli_epi32::<24>(s)),
                _mm512_srai_epi32::<24>(_mm512_slli_epi32::<16>(s)),
                _mm512_srai_epi32::<24>(_mm512_slli_epi32::<8>(s)),
                _mm512_srai_epi32::<24>(s),
            ];
            for (j, s) in s.into_iter().enumerate() {
                panel.set_scale(4 * i + j, s);
            }
        }
        let upper = |bits| _mm512_and_si512(bits, _mm512_set1_epi8(0x30));
        for half in 0..2 {
            // SAFETY: as above.
            let (a, b, pairs) = unsafe {
                let at = 64 * half;
                (rows.dwords8(at), rows.dwords8(at + 32), rows.dwords8(128 + 32 * half))
            };
            for i in 0..8 {
                let codes = [
                    _mm512_or_si512(low_nibbles(a[i]), upper(_mm512_slli_epi32::<4>(pairs[i]))),
                    _mm512_or_si512(low_nibbles(b[i]), upper(_mm512_slli_epi32::<2>(pairs[i]))),
                    _mm512_or_si512(high_nibbles(a[i]), upper(pairs[i])),
                    _mm512_or_si512(high_nibbles(b[i]), upper(_mm512_srli_epi32::<2>(pairs[i]))),
                ];
                for (r, codes) in codes.into_iter().enumerate() {
                    panel.set_codes(32 * half + 8 * r + i, codes);
                }
            }
        }
    }
}

impl Columns for Q6K {
    const VALUES: usize = 256;
    const BYTES: usize = 210;

    fn words(sums: &[i16]) -> [[u8; 4]; 8] {
        columns::pairs::<16>(sums)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn columns<const T: usize>(rows: Rows, x: Quads<T>, ahead: Ahead, acc: &mut Acc<T>) {
        let zero = _mm512_setzero_si512();
        // SAFETY: the caller vouches for the 210 bytes of the block in every row.
        let (d, scales) = unsafe { (rows.anew().dword(206), rows.anew().dwords4(192)) };
        let scales = ByteScales(scales);
        // SAFETY: the caller vouches for the activations.
        let mut sums = unsafe { scales.offsets::<T, 5>(x) };
        let upper = |nibble, bits| _mm512_ternarylogic_epi32::<0xf8>(nibble, bits, _mm512_set1_epi8(0x30));
        for half in 0..2 {
            // SAFETY: as above.
            let pairs = unsafe { rows.anew().dwords8(128 + 32 * half) };
            // Low nibbles of 32 bytes are values 32 r.., high ones 64 + 32 r...
            for r in 0..2 {
                ahead.request::<{ 4 * 210 }>(2 * half + r);
                // SAFETY: as above.
                let nibbles = unsafe { rows.anew().dwords8(64 * half + 32 * r) };
                let by = _mm512_set1_epi32(4 - 2 * r as i32);
                for i in 0..2 {
                    let sub = 8 * half + 2 * r + i;
                    let mut dots = [[zero; T]; 2];
                    for k in 0..4 {
                        let (nibbles, pairs) = (nibbles[4 * i + k], pairs[4 * i + k]);
                        let bits = _mm512_rolv_epi32(pairs, by);
                        let low = upper(low_nibbles(nibbles), bits);
                        let high = upper(high_nibbles(nibbles), _mm512_ror_epi32::<4>(bits));
                        // SAFETY: `4 * sub + 16 + k < 64`; the caller vouches for the activations.
                        unsafe {
                            x.dot(4 * sub + k, low, &mut dots[0]);
                            x.dot(4 * sub + 16 + k, high, &mut dots[1]);
                        }
                    }
                    scales.add(sub, dots[0], &mut sums);
                    scales.add(sub + 4, dots[1], &mut sums);
                }
            }
        }
        // SAFETY: the caller vouches for the activations.
        unsafe { acc.add(x, 0, high_f16(d), sums) };
    }
}

impl Linear for Q6K {
    const VALUES: usize = 256;
    const BYTES: usize = 210;
    const MINIMA: bool = false;
    const UNROLLED: usize = 1;
    const PARTS: [usize; 3] = [256, 32, 0];

    fn few(tokens: usize, _cols: usize) -> Option<TileFn> {
        columns::tile::<Self>(tokens)
    }

    /// The codes, and -8 times their sums.
    #[inline]
    fn arrange(q: &[i8], sums: &[i16], [codes, offsets, _]: [&mut [u8]; 3]) {
        for (q, code) in q.iter().zip(codes) {
            *code = *q as u8;
        }
        for (sum, offset) in sums.iter().zip(offsets.as_chunks_mut::<2>().0) {
            *offset = (-8 * sum).to_ne_bytes();
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let quads = fours::<Self, _>(|i| {
            let w = w.wrapping_add(4 * i * 210);
            four_columns::<T>(|k| {
                // SAFETY: block `4i + k` and its activations.
                unsafe { block_sums(w, k, x, 4 * i + k) }
            })
        });
        // SAFETY: 16 blocks.
        let d = unsafe { scales::<210, 208>(w) };
        let mut terms = [[_mm512_setzero_ps(); 2]; T];
        for t in 0..T {
            // SAFETY: the scales of these terms.
            terms[t][0] = unsafe { x.term(t, d, sixteen_columns(&quads, t)) };
        }
        terms
    }
}

/// 16 partial sums of a block, the one numbered `k` from `w` on and `at` among the activations, for each token: codes times activations times sub-scales, the
/// offset of 32 taken off.
///
/// # Safety
/// The CPU has the tier; 210 bytes of the block and its activations can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn block_sums<const T: usize>(w: *const u8, k: usize, x: X, at: usize) -> [__m512i; T] {
    let block = w.wrapping_add(210 * k);
    let zero = _mm512_setzero_si512();
    // SAFETY: the caller vouches for the scales.
    let scales = unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(block.add(192).cast())) };
    let scales = _mm512_zextsi256_si512(scales);
    let fours = _mm512_slli_epi16::<2>(scales);
    let mut dots = [zero; T];
    for t in 0..T {
        // SAFETY: the caller vouches for the offsets.
        let offsets = unsafe { _mm256_loadu_si256(x.part(1, t).add(32 * at).cast()) };
        // 4 * scale times -8 * sum.
        dots[t] = _mm512_dpwssd_epi32(zero, fours, _mm512_zextsi256_si512(offsets));
    }
    for half in 0..2 {
        // SAFETY: the caller vouches for the block.
        let (nibbles, pairs) = unsafe {
            let pairs = _mm256_loadu_si256(block.add(128 + 32 * half).cast());
            (load(block.add(64 * half)), _mm512_broadcast_i64x4(pairs))
        };
        let from = 210 * k + 105 * half;
        let nibbles = request::<Q6K>(w, from, from + 105, nibbles);
        // The upper bits of values 0..32 and 32..64 (low nibbles), 64..96 and 96..128 (high ones) to places 4 and 5.
        let shift = |a, b| {
            let by = _mm512_inserti64x4::<1>(_mm512_set1_epi32(a), _mm256_set1_epi32(b));
            _mm512_rolv_epi32(pairs, by)
        };
        let join = |nibble, bits| _mm512_ternarylogic_epi32::<0xf8>(nibble, bits, _mm512_set1_epi8(0x30));
        let low = join(low_nibbles(nibbles), shift(4, 2));
        let high = join(high_nibbles(nibbles), shift(0, -2));
        // SAFETY: 64 bytes.
        let spread = unsafe { load(SPREAD.0[half].as_ptr().cast()) };
        let scales = _mm512_permutexvar_epi16(spread, scales);
        for t in 0..T {
            // SAFETY: the caller vouches for the activations.
            let (x0, x1) = unsafe {
                let x = x.part(0, t).add(256 * at + 128 * half);
                (load(x), load(x.add(64)))
            };
            let (a, b) = (_mm512_dpbusd_epi32(zero, low, x0), _mm512_dpbusd_epi32(zero, high, x1));
            // Sums of four products fit i16 (4 * 63 * 127).
            dots[t] = add_products(dots[t], _mm512_packs_epi32(a, b), scales);
        }
    }
    dots
}

#[repr(align(64))]
struct Spread([[u16; 32]; 2]);

/// Which sub-scale belongs to each packed sum of half `h`: in 128-bit lane `l` sub-blocks 8h + l and 8h + 4 + l.
static SPREAD: Spread = {
    let mut table = [[0u16; 32]; 2];
    let mut i = 0;
    while i < 64 {
        let (half, word) = (i / 32, i % 32);
        table[half][word] = (8 * half + word / 8 + word % 8 / 4 * 4) as u16;
        i += 1;
    }
    Spread(table)
};
