//! IQ4_NL: nibbles are indices into 16 levels.

use super::blocks32::{Blocks, Codes, repeated};
use super::load::low_f16;
use super::panel;
use crate::isa::Avx512;
use crate::types::TileFn;
use crate::types::codebooks::IQ4_LEVELS;
use std::arch::x86_64::*;

/// The matmul of this type.
pub(crate) fn tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Blocks<Iq4Nl, 18, 2>>(tile) }
}

struct Iq4Nl;

impl Codes for Iq4Nl {
    const OFFSET: i16 = 127;
    const LEVELS: Option<[u8; 64]> = Some(repeated(IQ4_LEVELS, Self::OFFSET));

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    unsafe fn scales(headers: __m512i) -> [__m512; 2] {
        [low_f16(headers), _mm512_setzero_ps()]
    }
}
