//! Q8_0: codes become unsigned by flipping their top bit.

use super::fields::vector;
use super::linear::{self, Linear, Terms, X, add_dword_twos, bytes, fours, load, request, sixteen_halves};
use super::load::{Rows, low_f16};
use super::panel::{self, Format, Panel, Steps};
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Q8_0>(tile) }
}

struct Q8_0;

impl Format for Q8_0 {
    const BYTES: usize = 8 * 34;
    const STEPS: Steps = Steps::Blocks { sub: 32, offset: 128, minima: false };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, values: usize, panel: &mut Panel) {
        let flip = _mm512_set1_epi8(-128);
        for j in 0..values / 32 {
            let at = j * 34;
            // SAFETY: the caller vouches for the 34 bytes of block `j` in every row.
            let (d, codes) = unsafe { (rows.dword(at), rows.dwords8(at + 2)) };
            panel.set_d(j, low_f16(d));
            for i in 0..8 {
                panel.set_codes(j * 8 + i, _mm512_xor_si512(codes[i], flip));
            }
        }
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
        // Longer activations and terms leave no room for weights in the first-level cache.
        // SAFETY: this type's matmul exists with a proof of the tier only.
        (tokens == 4 && cols <= 4096).then_some(|tile| unsafe { linear::tile::<Self, 4>(tile) })
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
        let fours = fours(|i| {
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
