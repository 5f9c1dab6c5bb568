//! Q5_1: nibbles and fifth bits are the codes; the offset of a block is a minimum.

use super::blocks32::{Blocks, Codes};
use super::load::{high_f16, low_f16};
use super::panel;
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Blocks<Q5_1, 24, 4>>(tile) }
}

struct Q5_1;

impl Codes for Q5_1 {
    const OFFSET: i16 = 0;
    const MINIMA: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    unsafe fn scales(headers: __m512i) -> [__m512; 2] {
        // What is added is a minimum of the opposite sign.
        let m = _mm512_xor_ps(high_f16(headers), _mm512_set1_ps(-0.0));
        [low_f16(headers), m]
    }
}
