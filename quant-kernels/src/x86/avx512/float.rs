//! F32, F16 and BF16 weights: one register is the contract's 16 lanes.

use crate::isa::Avx512;
use crate::types::TileFn;
use crate::x86::avx2;
use crate::x86::float::{LANES, Micro, Step, run};
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

/// Bytes that a weight stream is fetched ahead of its use.
const AHEAD: usize = 1024;

/// A weight format.
trait Load {
    /// Bytes of a weight.
    const BYTES: usize;

    /// 16 weights.
    ///
    /// # Safety
    /// The CPU has AVX-512 F; `16 * BYTES` bytes can be read.
    unsafe fn load(weights: *const u8) -> __m512;
}

struct F32;
struct F16;
struct Bf16;

impl Load for F32 {
    const BYTES: usize = 4;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(weights: *const u8) -> __m512 {
        // SAFETY: the caller vouches for 64 bytes.
        unsafe { _mm512_loadu_ps(weights.cast()) }
    }
}

impl Load for F16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(weights: *const u8) -> __m512 {
        // SAFETY: the caller vouches for 32 bytes.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(weights.cast()) })
    }
}

impl Load for Bf16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(weights: *const u8) -> __m512 {
        // SAFETY: the caller vouches for 32 bytes.
        let halves = unsafe { _mm256_loadu_si256(weights.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
    }
}

struct Kernel<L>(PhantomData<L>);

impl<L: Load> Micro for Kernel<L> {
    const TOKENS: usize = 6;
    const BYTES: usize = L::BYTES;

    #[target_feature(enable = "avx512f")]
    unsafe fn direct(step: Step<'_>) {
        match step.tokens {
            1 => row_groups::<L, 8, 1, true>(step),
            2 => row_groups::<L, 8, 2, true>(step),
            3 => row_groups::<L, 8, 3, true>(step),
            4 => row_groups::<L, 4, 4, true>(step),
            5 => row_groups::<L, 4, 5, true>(step),
            tokens => {
                assert_eq!(tokens, 6, "tokens of a micro-tile");
                row_groups::<L, 4, 6, true>(step);
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn widened(step: Step<'_>) {
        match step.tokens {
            1 => row_groups::<F32, 8, 1, false>(step),
            2 => row_groups::<F32, 8, 2, false>(step),
            3 => row_groups::<F32, 8, 3, false>(step),
            4 => row_groups::<F32, 4, 4, false>(step),
            5 => row_groups::<F32, 4, 5, false>(step),
            tokens => {
                assert_eq!(tokens, 6, "tokens of a micro-tile");
                row_groups::<F32, 4, 6, false>(step);
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn widen(weights: &[u8], out: &mut [f32]) {
        for (weights, out) in weights.chunks(16 * L::BYTES).zip(out.as_chunks_mut::<LANES>().0) {
            let value = if weights.len() == 16 * L::BYTES {
                // SAFETY: there are `16 * BYTES` bytes.
                unsafe { L::load(weights.as_ptr()) }
            } else {
                // SAFETY: the padded copy is 64 bytes long.
                unsafe { L::load(padded(weights).as_ptr()) }
            };
            // SAFETY: `out` is 16 values long.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), value) };
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn trees(acc: &[f32; 8 * LANES]) -> [f32; 8] {
        avx2::float::trees(acc)
    }
}

/// A row's last, short step: the bytes there are, then zeros (+0.0 in every format).
fn padded(weights: &[u8]) -> [u8; 64] {
    let mut bytes = [0u8; 64];
    bytes[..weights.len()].copy_from_slice(weights);
    bytes
}

/// All rows of a step: `R` at a time, then one at a time.
#[target_feature(enable = "avx512f")]
fn row_groups<L: Load, const R: usize, const T: usize, const STREAM: bool>(step: Step<'_>) {
    step.check(L::BYTES);
    assert_eq!(step.tokens, T, "tokens of a micro-tile");
    let mut step = step;
    let whole = step.rows - step.rows % R;
    for row in (0..whole).step_by(R) {
        // SAFETY: the step is checked, and `row + R <= rows`.
        unsafe { micro::<L, R, T, STREAM>(&mut step, row) };
    }
    for row in whole..step.rows {
        // SAFETY: the step is checked, and `row < rows`.
        unsafe { micro::<L, 1, T, STREAM>(&mut step, row) };
    }
}

/// `R` rows times `T` tokens over the step's columns. `STREAM` says that the weights come from memory.
///
/// # Safety
/// The step is checked, has `T` tokens and at least `row + R` rows.
#[target_feature(enable = "avx512f")]
unsafe fn micro<L: Load, const R: usize, const T: usize, const STREAM: bool>(
    step: &mut Step<'_>,
    row: usize,
) {
    let mut acc = [[_mm512_setzero_ps(); T]; R];
    let store = &mut step.acc[row * LANES..];
    if step.resume {
        for (r, acc) in acc.iter_mut().enumerate() {
            for (t, acc) in acc.iter_mut().enumerate() {
                // SAFETY: the step is checked: accumulators of R rows and T tokens.
                *acc = unsafe { _mm512_loadu_ps(store.as_ptr().add(t * step.acc_stride + r * LANES)) };
            }
        }
    }
    let weight = step.weight[row * step.weight_stride..].as_ptr();
    let x = step.x.as_ptr();
    let whole = step.cols - step.cols % LANES;
    for col in (0..whole).step_by(LANES) {
        let mut tokens = [_mm512_setzero_ps(); T];
        for (t, x_t) in tokens.iter_mut().enumerate() {
            // SAFETY: the step is checked: T tokens, and `col + 16 <= cols`.
            *x_t = unsafe { _mm512_loadu_ps(x.add(t * step.x_stride + col)) };
        }
        for (r, acc) in acc.iter_mut().enumerate() {
            // SAFETY: the step is checked: R rows, and `col + 16 <= cols`.
            let at = unsafe { weight.add(r * step.weight_stride + col * L::BYTES) };
            if STREAM {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
            }
            // SAFETY: as above.
            let w = unsafe { L::load(at) };
            for (acc, x_t) in acc.iter_mut().zip(tokens) {
                *acc = _mm512_fmadd_ps(w, x_t, *acc);
            }
        }
    }
    if whole < step.cols {
        let rest = step.cols - whole;
        let mask = (1u16 << rest) - 1;
        for (r, acc) in acc.iter_mut().enumerate() {
            let at = (row + r) * step.weight_stride + whole * L::BYTES;
            let bytes = padded(&step.weight[at..][..rest * L::BYTES]);
            // SAFETY: the padded copy is 64 bytes long.
            let w = unsafe { L::load(bytes.as_ptr()) };
            for (t, acc) in acc.iter_mut().enumerate() {
                // SAFETY: the mask covers the columns there are.
                let x_t = unsafe { _mm512_maskz_loadu_ps(mask, x.add(t * step.x_stride + whole)) };
                *acc = _mm512_fmadd_ps(w, x_t, *acc);
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        for (t, acc) in acc.iter().enumerate() {
            // SAFETY: the step is checked: accumulators of R rows and T tokens.
            unsafe { _mm512_storeu_ps(store.as_mut_ptr().add(t * step.acc_stride + r * LANES), *acc) };
        }
    }
}
