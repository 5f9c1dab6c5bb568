//! Q5_0: nibbles and fifth bits are unsigned codes with an offset of 16.

use super::blocks32::{Blocks, Codes};
use super::load::low_f16;
use super::panel;
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Blocks<Q5_0, 22, 2>>(tile) }
}

struct Q5_0;

impl Codes for Q5_0 {
    const OFFSET: i16 = 16;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    unsafe fn scales(headers: __m512i) -> [__m512; 2] {
        [low_f16(headers), _mm512_setzero_ps()]
    }
}
