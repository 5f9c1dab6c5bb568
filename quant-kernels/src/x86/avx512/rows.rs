//! Panels of types whose blocks are decoded one by one: 16 rows are staged, then transposed.

use super::load::Rows;
use super::panel::Panel;
use std::arch::x86_64::*;

/// A type's way from blocks of 256 to unsigned codes and sub-scales.
pub(super) trait Coded {
    /// What codes are too large by.
    const OFFSET: i16;
    /// Values that share a scale: 16 or 32.
    const SUB: usize;
    /// [`Coded::scales`] are larger by this power of two.
    const SCALE_SHIFT: u32 = 0;

    /// The codes of two blocks, in order.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of both blocks can be read.
    unsafe fn codes(blocks: [*const u8; 2]) -> [[__m512i; 4]; 2];

    /// The scales of half `p` of a block as words: in lane `l` first that of values `16 (8 p + l)..`, four times, then
    /// that of values `16 (8 p + 4 + l)..`.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of the block can be read.
    unsafe fn scales(block: *const u8, p: usize) -> __m512i;

    /// The float scales of 16 rows.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of a block can be read in every row.
    unsafe fn d(rows: Rows) -> __m512;
}

#[repr(C, align(64))]
struct Staged {
    codes: [[u8; 256]; 16],
    scales: [[u8; 16]; 16],
}

/// Unpacks 256 values of 16 rows.
///
/// # Safety
/// The CPU has the tier; the bytes of a block can be read in every row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn unpack<C: Coded>(rows: Rows, panel: &mut Panel) {
    let mut staged = Staged { codes: [[0; 256]; 16], scales: [[0; 16]; 16] };
    for r in (0..16).step_by(2) {
        let blocks = [r, r + 1].map(|r| rows.base.wrapping_add(r * rows.stride));
        // SAFETY: the caller vouches for these rows.
        let codes = unsafe { C::codes(blocks) };
        for i in 0..2 {
            for (codes, out) in codes[i].into_iter().zip(staged.codes[r + i].as_chunks_mut::<64>().0) {
                // SAFETY: 64 bytes.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), codes) };
            }
            for (p, out) in staged.scales[r + i].as_chunks_mut::<8>().0.iter_mut().enumerate() {
                // SAFETY: the caller vouches for this row; 8 bytes.
                unsafe {
                    let scales =
                        _mm512_srl_epi16(C::scales(blocks[i], p), _mm_cvtsi32_si128(C::SCALE_SHIFT as i32));
                    _mm_storel_epi64(out.as_mut_ptr().cast(), _mm512_cvtepi64_epi8(scales));
                }
            }
        }
    }
    // SAFETY: as the caller promises.
    panel.set_d(0, unsafe { C::d(rows) });
    let codes = Rows { base: staged.codes.as_ptr().cast(), stride: 256 };
    for i in 0..16 {
        // SAFETY: 16 staged rows of 256 bytes.
        let codes = unsafe { codes.dwords4(16 * i) };
        for j in 0..4 {
            panel.set_codes(4 * i + j, codes[j]);
        }
    }
    // SAFETY: 16 staged rows of 16 bytes.
    let scales = unsafe { Rows { base: staged.scales.as_ptr().cast(), stride: 16 }.dwords4(0) };
    // Byte 2 i of a half is the scale of 16 values number i, byte 2 i + 1 that of number 4 + i.
    let scale = |sub: usize| {
        let byte = sub / 8 * 8 + sub % 4 * 2 + sub % 8 / 4;
        let shift = _mm_cvtsi32_si128(8 * (byte as i32 % 4));
        _mm512_and_si512(_mm512_srl_epi32(scales[byte / 4], shift), _mm512_set1_epi32(0xff))
    };
    for j in 0..256 / C::SUB {
        panel.set_scale(j, scale(j * C::SUB / 16));
    }
}
