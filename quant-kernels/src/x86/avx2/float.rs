//! F32, F16 and BF16 weights: two registers are the contract's 16 lanes.

use crate::isa::Avx2;
use crate::types::TileFn;
use crate::x86::float::{LANES, Micro, Step, run};
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

/// Bytes that a weight stream is fetched ahead of its use.
const AHEAD: usize = 1024;

/// A weight format.
trait Load {
    /// Bytes of a weight.
    const BYTES: usize;

    /// 8 weights.
    ///
    /// # Safety
    /// The CPU has AVX2 and F16C; `8 * BYTES` bytes can be read.
    unsafe fn load(weights: *const u8) -> __m256;
}

struct F32;
struct F16;
struct Bf16;

impl Load for F32 {
    const BYTES: usize = 4;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(weights: *const u8) -> __m256 {
        // SAFETY: the caller vouches for 32 bytes.
        unsafe { _mm256_loadu_ps(weights.cast()) }
    }
}

impl Load for F16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(weights: *const u8) -> __m256 {
        // SAFETY: the caller vouches for 16 bytes.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(weights.cast()) })
    }
}

impl Load for Bf16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(weights: *const u8) -> __m256 {
        // SAFETY: the caller vouches for 16 bytes.
        let halves = unsafe { _mm_loadu_si128(weights.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
    }
}

struct Kernel<L>(PhantomData<L>);

impl<L: Load> Micro for Kernel<L> {
    const TOKENS: usize = 3;
    const BYTES: usize = L::BYTES;

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn direct(step: Step<'_>) {
        match step.tokens {
            1 => row_groups::<L, 4, 1, true>(step),
            2 => row_groups::<L, 2, 2, true>(step),
            tokens => {
                assert_eq!(tokens, 3, "tokens of a micro-tile");
                row_groups::<L, 2, 3, true>(step);
            }
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn widened(step: Step<'_>) {
        match step.tokens {
            1 => row_groups::<F32, 4, 1, false>(step),
            2 => row_groups::<F32, 2, 2, false>(step),
            tokens => {
                assert_eq!(tokens, 3, "tokens of a micro-tile");
                row_groups::<F32, 2, 3, false>(step);
            }
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn widen(weights: &[u8], out: &mut [f32]) {
        for (weights, out) in weights.chunks(16 * L::BYTES).zip(out.as_chunks_mut::<LANES>().0) {
            let bytes = padded(weights);
            for half in 0..2 {
                // SAFETY: the padded copy is 64 bytes long, `out` 16 values.
                unsafe {
                    let value = L::load(bytes.as_ptr().add(half * 8 * L::BYTES));
                    _mm256_storeu_ps(out.as_mut_ptr().add(half * 8), value);
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn trees(acc: &[f32; 8 * LANES]) -> [f32; 8] {
        trees(acc)
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

/// One step of a row: the bytes there are, then zeros (+0.0 in every format).
#[inline]
fn padded(weights: &[u8]) -> [u8; 64] {
    let mut bytes = [0u8; 64];
    bytes[..weights.len()].copy_from_slice(weights);
    bytes
}

/// All rows of a step: `R` at a time, then one at a time.
#[target_feature(enable = "avx2,fma,f16c")]
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
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn micro<L: Load, const R: usize, const T: usize, const STREAM: bool>(
    step: &mut Step<'_>,
    row: usize,
) {
    let mut acc = [[[_mm256_setzero_ps(); 2]; T]; R];
    let store = &mut step.acc[row * LANES..];
    if step.resume {
        for (r, acc) in acc.iter_mut().enumerate() {
            for (t, acc) in acc.iter_mut().enumerate() {
                for (half, acc) in acc.iter_mut().enumerate() {
                    let at = t * step.acc_stride + r * LANES + half * 8;
                    // SAFETY: the step is checked: accumulators of R rows and T tokens.
                    *acc = unsafe { _mm256_loadu_ps(store.as_ptr().add(at)) };
                }
            }
        }
    }
    let weight = step.weight[row * step.weight_stride..].as_ptr();
    let x = step.x.as_ptr();
    let whole = step.cols - step.cols % LANES;
    for col in (0..whole).step_by(LANES) {
        if STREAM {
            for r in 0..R {
                let at = weight.wrapping_add(r * step.weight_stride + col * L::BYTES + AHEAD);
                _mm_prefetch::<_MM_HINT_T0>(at.cast());
            }
        }
        for half in 0..2 {
            let col = col + half * 8;
            let mut tokens = [_mm256_setzero_ps(); T];
            for (t, x_t) in tokens.iter_mut().enumerate() {
                // SAFETY: the step is checked: T tokens, and `col + 8 <= cols`.
                *x_t = unsafe { _mm256_loadu_ps(x.add(t * step.x_stride + col)) };
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                // SAFETY: the step is checked: R rows, and `col + 8 <= cols`.
                let w = unsafe { L::load(weight.add(r * step.weight_stride + col * L::BYTES)) };
                for (acc, x_t) in acc.iter_mut().zip(tokens) {
                    acc[half] = _mm256_fmadd_ps(w, x_t, acc[half]);
                }
            }
        }
    }
    if whole < step.cols {
        let rest = step.cols - whole;
        for (r, acc) in acc.iter_mut().enumerate() {
            let at = (row + r) * step.weight_stride + whole * L::BYTES;
            let bytes = padded(&step.weight[at..][..rest * L::BYTES]);
            for (t, acc) in acc.iter_mut().enumerate() {
                let mut x_t = [0f32; LANES];
                x_t[..rest].copy_from_slice(&step.x[t * step.x_stride + whole..][..rest]);
                for (half, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: the padded copies are 64 bytes and 16 values long.
                    unsafe {
                        let w = L::load(bytes.as_ptr().add(half * 8 * L::BYTES));
                        *acc = _mm256_fmadd_ps(w, _mm256_loadu_ps(x_t.as_ptr().add(half * 8)), *acc);
                    }
                }
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        for (t, acc) in acc.iter().enumerate() {
            for (half, acc) in acc.iter().enumerate() {
                let at = t * step.acc_stride + r * LANES + half * 8;
                // SAFETY: the step is checked: accumulators of R rows and T tokens.
                unsafe { _mm256_storeu_ps(store.as_mut_ptr().add(at), *acc) };
            }
        }
    }
}
