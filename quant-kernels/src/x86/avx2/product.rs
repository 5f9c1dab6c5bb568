//! The multiplications of the two 256-bit tiers: by pairs in i16 (AVX2), by fours in i32 (AVX-VNNI). The loops are
//! written once over [`Product`] and compiled for each.

use super::format::Format;
use super::panel::{Panel, Span};
use super::{linear, panel};
use crate::matmul::Tile;
use std::arch::x86_64::*;

/// A tier's products of codes and activations, and the loops compiled for the tier.
pub(super) trait Product {
    /// Four products of bytes are summed in i32 by one instruction: unsigned codes may have all 256 values.
    const FOURS: bool;

    /// `acc` plus the sums of four products; without [`Product::FOURS`] codes are at most 128.
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn fours(acc: __m256i, codes: __m256i, x: __m256i) -> __m256i;

    /// `acc` plus the sums of two products of i16.
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn twos(acc: __m256i, a: __m256i, b: __m256i) -> __m256i;

    /// [`panel::step`].
    ///
    /// # Safety
    /// The CPU has the tier; as for [`panel::step`].
    unsafe fn step<F: Format, const P: usize, const T: usize>(
        panels: &[Panel; P],
        x: Span<'_>,
        state: &mut [f32],
    );

    /// The matmul of one token, [`linear::rows`].
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn linear<F: Format>(tile: &mut Tile<'_>);

    /// The matmul of many tokens, [`panel::tile`].
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn panels<F: Format>(tile: &mut Tile<'_>);
}

/// AVX2: `vpmaddubsw` and `vpmaddwd`.
pub(super) struct Pairs;

impl Product for Pairs {
    const FOURS: bool = false;

    #[inline(always)]
    unsafe fn fours(acc: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe { Self::twos(acc, _mm256_maddubs_epi16(codes, x), _mm256_set1_epi16(1)) }
    }

    #[inline(always)]
    unsafe fn twos(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn step<F: Format, const P: usize, const T: usize>(
        panels: &[Panel; P],
        x: Span<'_>,
        state: &mut [f32],
    ) {
        // SAFETY: as the caller promises.
        unsafe { panel::step::<F, Self, P, T>(panels, x, state) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn linear<F: Format>(tile: &mut Tile<'_>) {
        // SAFETY: as the caller promises.
        unsafe { linear::rows::<F, Self>(tile) }
    }

    unsafe fn panels<F: Format>(tile: &mut Tile<'_>) {
        // SAFETY: as the caller promises.
        unsafe {
            // Integer scales need registers of their own for the sums of pairs.
            if F::STEPS.is_super() {
                panel::tile::<F, Self, 2, 2>(tile);
            } else {
                panel::tile::<F, Self, 2, 4>(tile);
            }
        }
    }
}

/// AVX-VNNI: `vpdpbusd` and `vpdpwssd` in their VEX encodings.
pub(super) struct Vnni;

impl Product for Vnni {
    const FOURS: bool = true;

    #[inline(always)]
    unsafe fn fours(acc: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe { _mm256_dpbusd_avx_epi32(acc, codes, x) }
    }

    #[inline(always)]
    unsafe fn twos(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the tier.
        unsafe { _mm256_dpwssd_avx_epi32(acc, a, b) }
    }

    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    unsafe fn step<F: Format, const P: usize, const T: usize>(
        panels: &[Panel; P],
        x: Span<'_>,
        state: &mut [f32],
    ) {
        // SAFETY: as the caller promises.
        unsafe { panel::step::<F, Self, P, T>(panels, x, state) }
    }

    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    unsafe fn linear<F: Format>(tile: &mut Tile<'_>) {
        // SAFETY: as the caller promises.
        unsafe { linear::rows::<F, Self>(tile) }
    }

    unsafe fn panels<F: Format>(tile: &mut Tile<'_>) {
        // SAFETY: as the caller promises.
        unsafe { panel::tile::<F, Self, 2, 4>(tile) }
    }
}
