//! Q5_K: Q4_K with a fifth bit from a plane of its own.

use super::columns::{self, Acc, Ahead, Columns, Quads};
use super::linear::{Linear, Terms, X};
use super::load::{Rows, high_nibbles, low_nibbles};
use super::panel::{self, Format, Panel, Steps};
use super::q4_k;
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Q5K>(tile) }
}

struct Q5K;

impl Format for Q5K {
    const BYTES: usize = 176;
    const STEPS: Steps = Steps::Super { sub: 32, minima: true };
    const NARROW: Option<u16> = Some(i16::MAX as u16 / 31);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, _values: usize, panel: &mut Panel) {
        // SAFETY: the caller vouches for the 176 bytes of the block in every row.
        unsafe { q4_k::header(rows, panel) };
        // SAFETY: as above.
        let mut plane = unsafe { rows.dwords8(16) };
        for g in 0..4 {
            // SAFETY: as above.
            let codes = unsafe { rows.dwords8(48 + 32 * g) };
            for i in 0..8 {
                // Bits 0 and 1 of the plane belong to the low and the high nibbles of this group.
                let fifth = |bits| _mm512_and_si512(bits, _mm512_set1_epi8(16));
                let (low, high) =
                    (fifth(_mm512_slli_epi32::<4>(plane[i])), fifth(_mm512_slli_epi32::<3>(plane[i])));
                panel.set_codes(16 * g + i, _mm512_or_si512(low_nibbles(codes[i]), low));
                panel.set_codes(16 * g + 8 + i, _mm512_or_si512(high_nibbles(codes[i]), high));
                plane[i] = _mm512_srli_epi32::<2>(plane[i]);
            }
        }
    }
}

impl Columns for Q5K {
    const VALUES: usize = 256;
    const BYTES: usize = 176;
    const MINIMA: bool = true;

    fn words(sums: &[i16]) -> [[u8; 4]; 8] {
        columns::pairs::<32>(sums)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn columns<const T: usize>(rows: Rows, x: Quads<T>, ahead: Ahead, acc: &mut Acc<T>) {
        // SAFETY: the fifth bits.
        let plane = unsafe { rows.anew().dwords8(16) };
        let codes = |nibbles, g: usize, i: usize| {
            // Bits 2g and 2g + 1 move to place 4.
            let bits = _mm512_rolv_epi32(plane[i], _mm512_set1_epi32(4 - 2 * g as i32));
            let join = |nibble, bits| _mm512_ternarylogic_epi32::<0xf8>(nibble, bits, _mm512_set1_epi8(16));
            [join(low_nibbles(nibbles), bits), join(high_nibbles(nibbles), _mm512_ror_epi32::<1>(bits))]
        };
        // SAFETY: as the caller promises.
        unsafe { q4_k::columns::<176, { 4 * 176 }, T, 0>(rows, x, ahead, acc, codes) }
    }
}

impl Linear for Q5K {
    const VALUES: usize = 256;
    const BYTES: usize = 176;
    const MINIMA: bool = true;
    const PARTS: [usize; 3] = [256, 16, 0];

    fn few(tokens: usize, _cols: usize) -> Option<TileFn> {
        columns::tile::<Self>(tokens)
    }

    #[inline]
    fn arrange(q: &[i8], sums: &[i16], parts: [&mut [u8]; 3]) {
        q4_k::arrange(q, sums, parts);
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let codes = |nibbles, block: *const u8, half| {
            // SAFETY: the 32 bytes of fifth bits of a block that the caller of `terms` vouches for.
            let plane = unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(block.add(16).cast())) };
            // Bits 4h and 4h + 1 (first 32 bytes), 4h + 2 and 4h + 3 (the others) move to place 4 of their bytes.
            let (low, high) = if half == 0 { ((4, 2), (3, 1)) } else { ((0, -2), (-1, -3)) };
            let fifth = |(a, b): (i32, i32)| {
                let by = _mm512_inserti64x4::<1>(_mm512_set1_epi32(a), _mm256_set1_epi32(b));
                _mm512_rolv_epi32(plane, by)
            };
            // nibble | (bits & 16)
            let join = |nibble, bits| _mm512_ternarylogic_epi32::<0xf8>(nibble, bits, _mm512_set1_epi8(16));
            [join(low_nibbles(nibbles), fifth(low)), join(high_nibbles(nibbles), fifth(high))]
        };
        // SAFETY: as the caller promises.
        unsafe { q4_k::terms::<Self, T>(w, x, codes) }
    }
}
