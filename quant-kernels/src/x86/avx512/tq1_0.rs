//! TQ1_0: five base-3 digits to a byte, less one, no scales inside the block.
//!
//! The next digit of a fraction `q` is `3 q >> 8`, and `3 q mod 256` is what remains. With `q'` for the remainder, 256
//! times the digit is `3 q - q'`: one token needs no digits, only products of the fractions.

use super::linear::{Linear, Terms, X, four_blocks, load, request, scales, sixteen_blocks};
use super::load::{Rows, high_f16};
use super::panel::{self, Format, Panel, Steps};
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<TQ10>(tile) }
}

struct TQ10;

impl Format for TQ10 {
    const BYTES: usize = 54;
    const STEPS: Steps = Steps::Super { sub: 256, minima: false };
    const OFFSET: Option<i16> = Some(1);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, _values: usize, panel: &mut Panel) {
        // SAFETY: the caller vouches for the 54 bytes of the block in every row.
        let (runs, last, d) = unsafe {
            ([rows.dwords4(0), rows.dwords4(16), rows.dwords4(32)], rows.dword(48), rows.dword(50))
        };
        panel.set_d(0, high_f16(d));
        for (first, step, mut fractions) in [(0, 8, runs[0]), (4, 8, runs[1]), (40, 4, runs[2])] {
            for n in 0..5 {
                for i in 0..4 {
                    panel.set_codes(first + step * n + i, digit(fractions[i]));
                    fractions[i] = thrice(fractions[i]);
                }
            }
        }
        let mut fraction = last;
        for n in 0..4 {
            panel.set_codes(60 + n, digit(fraction));
            fraction = thrice(fraction);
        }
    }
}

/// The first digits: how many of 86 (a third of 256) and 171 each byte reaches.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn digit(fractions: __m512i) -> __m512i {
    let one = _mm512_set1_epi8(1);
    let first = _mm512_cmpge_epu8_mask(fractions, _mm512_set1_epi8(86));
    let second = _mm512_cmpge_epu8_mask(fractions, _mm512_set1_epi8(171_u8 as i8));
    let digit = _mm512_maskz_mov_epi8(first, one);
    _mm512_mask_add_epi8(digit, second, digit, one)
}

/// What remains without the first digits: three times the bytes, modulo 256.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn thrice(fractions: __m512i) -> __m512i {
    _mm512_add_epi8(_mm512_add_epi8(fractions, fractions), fractions)
}

impl Linear for TQ10 {
    const VALUES: usize = 256;
    const BYTES: usize = 54;
    const MINIMA: bool = false;
    const PARTS: [usize; 3] = [320, 4, 0];

    /// The codes that meet the digits `n` of 52 bytes, 64 bytes for each `n`, and the sum of the codes.
    #[inline]
    fn arrange(q: &[i8], sums: &[i16], [codes, sum, _]: [&mut [u8]; 3]) {
        codes.fill(0);
        for (n, codes) in codes.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            let runs =
                [(0, 32 * n, 32), (32, 160 + 16 * n, 16), (48, 240 + 4 * n, if n < 4 { 4 } else { 0 })];
            for (to, from, count) in runs {
                for (code, q) in codes[to..][..count].iter_mut().zip(&q[from..from + count]) {
                    *code = *q as u8;
                }
            }
        }
        sum.copy_from_slice(&sums.iter().map(|&sum| i32::from(sum)).sum::<i32>().to_ne_bytes());
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let zero = _mm512_setzero_si512();
        let mut quads = [[[zero; T]; 4]; 2];
        for i in 0..4 {
            let mut blocks = [[[zero; T]; 4]; 2];
            for k in 0..4 {
                let at = 4 * i + k;
                // SAFETY: the 52 bytes of codes of block `at`.
                let mut q = unsafe { _mm512_maskz_loadu_epi8((1 << 52) - 1, w.add(54 * at).cast()) };
                q = request::<Self>(w, 54 * at, 54 * (at + 1), q);
                let (mut dots, mut less) = ([zero; T], [zero; T]);
                for n in 0..5 {
                    let next = thrice(q);
                    for t in 0..T {
                        // SAFETY: the activations of this block.
                        let x = unsafe { load(x.part(0, t).add(320 * at + 64 * n)) };
                        dots[t] = _mm512_dpbusd_epi32(dots[t], q, x);
                        less[t] = _mm512_dpbusd_epi32(less[t], next, x);
                    }
                    q = next;
                }
                (blocks[0][k], blocks[1][k]) = (dots, less);
            }
            for n in 0..2 {
                quads[n][i] = four_blocks(|k| blocks[n][k]);
            }
        }
        // SAFETY: 16 blocks.
        let d = unsafe { scales::<54, 52>(w) };
        let mut terms = [[_mm512_setzero_ps(); 2]; T];
        for t in 0..T {
            let (dots, rest) = (sixteen_blocks(&quads[0], t), sixteen_blocks(&quads[1], t));
            let three = _mm512_add_epi32(_mm512_add_epi32(dots, dots), dots);
            let digits = _mm512_srai_epi32::<8>(_mm512_sub_epi32(three, rest));
            // SAFETY: the sums of 16 blocks, and the scales of these terms.
            terms[t][0] = unsafe { x.term(t, d, _mm512_sub_epi32(digits, load(x.part(1, t)))) };
        }
        terms
    }
}
