//! MXFP4: nibbles are 4-bit floats, the header is the exponent of a power of two.

use super::blocks32::{Blocks, Codes, repeated};
use super::panel;
use crate::isa::Avx512;
use crate::types::TileFn;
use crate::types::codebooks::FP4_LEVELS;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Blocks<Mxfp4, 17, 1>>(tile) }
}

struct Mxfp4;

impl Codes for Mxfp4 {
    const OFFSET: i16 = 12;
    const LEVELS: Option<[u8; 64]> = Some(repeated(FP4_LEVELS, Self::OFFSET));

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    unsafe fn scales(headers: __m512i) -> [__m512; 2] {
        let one = _mm512_set1_epi32(1);
        let e = _mm512_and_si512(headers, _mm512_set1_epi32(255));
        // 2^(e - 128): the exponent e - 1, or for e = 0 and e = 1 a subnormal number.
        let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, one));
        let subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x0020_0000), e);
        let d = _mm512_mask_mov_epi32(normal, _mm512_cmple_epu32_mask(e, one), subnormal);
        [_mm512_castsi512_ps(d), _mm512_setzero_ps()]
    }
}
