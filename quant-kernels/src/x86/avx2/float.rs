//! F32, F16 and BF16 weights: two registers are the contract's 16 lanes.

use crate::isa::Avx2;
use crate::types::TileFn;
use crate::x86::float::{LANES, Load, Micro, Step, row_groups, run};
use crate::x86::float_panels::{Panels, Source, multiply, pack_tokens, widen_row};
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// The matmul of F32 weights.
pub(crate) fn f32_tile(_: Avx2) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { run::<Kernel<F32>>(tile) }
}

/// The matmul of F16 weights.
pub(crate) fn f16_tile(_: Avx2) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { run::<Kernel<F16>>(tile) }
}

/// The matmul of BF16 weights.
pub(crate) fn bf16_tile(_: Avx2) -> TileFn {
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
        unsafe fn zero() -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn load(at: *const f32) -> __m256 {
            // SAFETY: as the caller promises.
            unsafe { _mm256_loadu_ps(at) }
        }

        #[inline(always)]
        unsafe fn store(at: *mut f32, v: __m256) {
            // SAFETY: as the caller promises.
            unsafe { _mm256_storeu_ps(at, v) }
        }

        #[inline(always)]
        unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: the caller vouches for the tier.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
    };
}

impl Load<2> for F32 {
    type V = __m256;
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn weights(at: *const u8) -> __m256 {
        // SAFETY: as the caller promises.
        unsafe { _mm256_loadu_ps(at.cast()) }
    }

    registers!();
}

impl Load<2> for F16 {
    type V = __m256;
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn weights(at: *const u8) -> __m256 {
        // SAFETY: as the caller promises.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
    }

    registers!();
}

impl Load<2> for Bf16 {
    type V = __m256;
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn weights(at: *const u8) -> __m256 {
        // SAFETY: as the caller promises.
        unsafe {
            let halves = _mm_loadu_si128(at.cast());
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
        }
    }

    registers!();
}

struct Kernel<L>(PhantomData<L>);

impl<L: Load<2> + 'static> Micro for Kernel<L> {
    const TOKENS: usize = 3;
    const ROWS: usize = 2;
    const PACKED: usize = 4;

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn direct(step: Step<'_>) {
        // SAFETY: as the caller promises.
        unsafe { by_tokens::<L>(step) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pack_row(weights: &[u8], out: &mut [u8], _ahead: usize) {
        // SAFETY: as the caller promises.
        unsafe { widen_row::<L, 2>(weights, out, Self::ROWS) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pack_tokens(from: Source<'_>, out: &mut [f32]) {
        pack_tokens(from, out);
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn panels(panels: Panels<'_>) {
        // More tokens than a micro-tile has are two of them or more, as even as they can be.
        // SAFETY: as the caller promises.
        unsafe {
            match panels.tokens {
                2 => multiply::<F32, 2, 2, 2>(panels),
                _ => multiply::<F32, 2, 2, 3>(panels),
            }
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn trees(acc: &[f32; 8 * LANES]) -> [f32; 8] {
        trees(acc)
    }
}

/// The micro-tile for a step's tokens.
///
/// # Safety
/// The CPU has the tier, for which the caller is compiled.
#[inline(always)]
unsafe fn by_tokens<L: Load<2>>(step: Step<'_>) {
    // SAFETY: as the caller promises.
    unsafe {
        match step.tokens {
            1 => row_groups::<L, 2, 4, 1>(step),
            2 => row_groups::<L, 2, 2, 2>(step),
            tokens => {
                assert_eq!(tokens, 3, "tokens of a micro-tile");
                row_groups::<L, 2, 2, 3>(step);
            }
        }
    }
}

/// Sums each of 8 accumulators by the contract's tree: +8, +4, +2, +1, eight trees side by side.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn trees(acc: &[f32; 8 * LANES]) -> [f32; 8] {
    let at = acc.as_ptr();
    let mut by8 = [_mm256_setzero_ps(); 8];
    for (i, sum) in by8.iter_mut().enumerate() {
        // SAFETY: accumulator `i` has 16 lanes from `16 * i`.
        *sum = unsafe {
            _mm256_add_ps(_mm256_loadu_ps(at.add(LANES * i)), _mm256_loadu_ps(at.add(LANES * i + 8)))
        };
    }
    // The halves of a register hold accumulators `i` and `i + 4`.
    let by4: [__m256; 4] = std::array::from_fn(|i| {
        let (a, b) = (by8[i], by8[i + 4]);
        _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
    });
    let by2: [__m256; 2] = std::array::from_fn(|i| {
        let (a, b) = (_mm256_castps_pd(by4[2 * i]), _mm256_castps_pd(by4[2 * i + 1]));
        _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)))
    });
    let by1 = _mm256_add_ps(
        _mm256_shuffle_ps::<0b10_00_10_00>(by2[0], by2[1]),
        _mm256_shuffle_ps::<0b11_01_11_01>(by2[0], by2[1]),
    );
    let mut sums = [0f32; 8];
    // SAFETY: `sums` is 8 values long.
    unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), by1) };
    sums
}
