//! F32, F16 and BF16 weights: one register is the contract's 16 lanes.

use crate::isa::Avx512;
use crate::types::TileFn;
use crate::x86::avx2;
use crate::x86::float::{LANES, Load, Micro, SHORT, Step, row_groups, run};
use crate::x86::float_panels::{Panels, Source, copy_row, multiply, pack_tokens};
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// The matmul of F32 weights.
pub(crate) fn f32_tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { run::<Kernel<F32>>(tile) }
}

/// The matmul of F16 weights.
pub(crate) fn f16_tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { run::<Kernel<F16>>(tile) }
}

/// The matmul of BF16 weights.
pub(crate) fn bf16_tile(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { run::<Kernel<Bf16>>(tile) }
}

struct F32;
struct F16;
struct Bf16;

/// What all formats share.
macro_rules! registers {
    () => {
        #[inline(always)]
        unsafe fn zero() -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn load(at: *const f32) -> __m512 {
            // SAFETY: as the caller promises.
            unsafe { _mm512_loadu_ps(at) }
        }

        #[inline(always)]
        unsafe fn store(at: *mut f32, v: __m512) {
            // SAFETY: as the caller promises.
            unsafe { _mm512_storeu_ps(at, v) }
        }

        #[inline(always)]
        unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
    };
}

impl Load<1> for F32 {
    type V = __m512;
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn weights(at: *const u8) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { _mm512_loadu_ps(at.cast()) }
    }

    registers!();
}

impl Load<1> for F16 {
    type V = __m512;
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn weights(at: *const u8) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
    }

    registers!();
}

impl Load<1> for Bf16 {
    type V = __m512;
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn weights(at: *const u8) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe {
            let halves = _mm256_loadu_si256(at.cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
        }
    }

    registers!();
}

struct Kernel<L>(PhantomData<L>);

impl<L: Load<1> + 'static> Micro for Kernel<L> {
    const TOKENS: usize = 6;
    const ROWS: usize = 4;
    const PACKED: usize = L::BYTES;

    #[target_feature(enable = "avx512f")]
    unsafe fn direct(step: Step<'_>) {
        // SAFETY: as the caller promises.
        unsafe { by_tokens::<L>(step) }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn pack_row(weights: &[u8], out: &mut [u8], ahead: usize) {
        match L::BYTES {
            2 => copy_row::<32>(weights, out, Self::ROWS, ahead),
            _ => copy_row::<64>(weights, out, Self::ROWS, ahead),
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn pack_tokens(from: Source<'_>, out: &mut [f32]) {
        pack_tokens(from, out);
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn panels(panels: Panels<'_>) {
        // More tokens than a micro-tile has are two of them or more, as even as they can be.
        // SAFETY: as the caller promises.
        unsafe {
            match panels.tokens {
                3 => multiply::<L, 1, 4, 3>(panels),
                4 => multiply::<L, 1, 4, 4>(panels),
                5 => multiply::<L, 1, 4, 5>(panels),
                _ => multiply::<L, 1, 4, 6>(panels),
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn trees(acc: &[f32; 8 * LANES]) -> [f32; 8] {
        avx2::float::trees(acc)
    }
}

/// The micro-tile for a step's tokens.
///
/// # Safety
/// The CPU has the tier, for which the caller is compiled.
#[inline(always)]
unsafe fn by_tokens<L: Load<1>>(step: Step<'_>) {
    // SAFETY: as the caller promises.
    unsafe {
        match step.tokens {
            1 if step.weight_stride <= SHORT => row_groups::<L, 1, 2, 1>(step),
            1 => row_groups::<L, 1, 4, 1>(step),
            2 if step.weight_stride <= SHORT => row_groups::<L, 1, 2, 2>(step),
            2 => row_groups::<L, 1, 4, 2>(step),
            3 if step.weight_stride <= SHORT => row_groups::<L, 1, 2, 3>(step),
            3 => row_groups::<L, 1, 4, 3>(step),
            4 => row_groups::<L, 1, 4, 4>(step),
            5 => row_groups::<L, 1, 4, 5>(step),
            tokens => {
                assert_eq!(tokens, 6, "tokens of a micro-tile");
                row_groups::<L, 1, 4, 6>(step);
            }
        }
    }
}
