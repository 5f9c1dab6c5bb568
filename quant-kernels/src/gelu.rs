//! GELU (Hendrycks and Gimpel, arXiv 1606.08415) in the three forms that model files mean by it.

use crate::Isa;
use crate::exp::exp;
use crate::simd::{self, Map, Zip};

/// Which formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// [`gelu_tanh`]: ggml's `gelu`.
    Tanh,
    /// [`gelu_quick`]: ggml's `gelu_quick`.
    Quick,
    /// [`gelu_erf`]: ggml's `gelu_erf`.
    Erf,
}

/// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, computed as `x / (1 + exp(-2u))`, which cancels nothing.
///
/// Error below 6e-8 absolute for negative x, below 2 ulp for positive x.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    /// 2 sqrt(2/pi), and 0.044715 times it.
    const LINEAR: f32 = 1.595_769;
    const CUBIC: f32 = 0.071_354_814;
    let u = x * (CUBIC * (x * x) + LINEAR);
    x / (1.0 + exp(-u))
}

/// `x / (1 + exp(-1.702 x))`; error below 5e-8 absolute for negative x, below 2 ulp for positive x.
#[inline(always)]
pub fn gelu_quick(x: f32) -> f32 {
    x / (1.0 + exp(-(1.702 * x)))
}

/// `x/2 (1 + erf(x / sqrt 2))`; error below 1e-7 absolute for negative x, below 10 ulp for positive x.
///
/// The normal distribution's tail is `exp(-x^2/2)` times a polynomial in `t = 1 / (1 + 0.2316419 |x|)` (the form of
/// Abramowitz and Stegun 26.2.17, fitted anew with nine terms).
#[inline(always)]
pub fn gelu_erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (0.231_641_9 * a + 1.0);
    let mut p = -1.337_400_5e-4;
    p = p * t - 7.079_278e-2;
    p = p * t + 2.505_946e-1;
    p = p * t - 2.074_917_8e-1;
    p = p * t + 2.310_518_9e-1;
    p = p * t + 1.030_597_1e-2;
    p = p * t + 1.036_869_9e-1;
    p = p * t + 9.024_437e-2;
    p = p * t + 9.253_448e-2;
    let tail = (p * t) * exp((a * a) * -0.5);
    let below = if x < 0.0 { tail } else { 1.0 - tail };
    x * below
}

/// The chosen form of every element.
pub fn gelu(isa: Isa, form: Gelu, x: &mut [f32]) {
    match form {
        Gelu::Tanh => simd::dispatch(isa, Map { x, f: gelu_tanh }),
        Gelu::Quick => simd::dispatch(isa, Map { x, f: gelu_quick }),
        Gelu::Erf => simd::dispatch(isa, Map { x, f: gelu_erf }),
    }
}

/// `gate[i] = gelu(gate[i]) * up[i]` (GeGLU).
pub fn gelu_mul(isa: Isa, form: Gelu, gate: &mut [f32], up: &[f32]) {
    let (x, y) = (gate, up);
    match form {
        Gelu::Tanh => simd::dispatch(isa, Zip { x, y, f: |x, y| gelu_tanh(x) * y }),
        Gelu::Quick => simd::dispatch(isa, Zip { x, y, f: |x, y| gelu_quick(x) * y }),
        Gelu::Erf => simd::dispatch(isa, Zip { x, y, f: |x, y| gelu_erf(x) * y }),
    }
}
