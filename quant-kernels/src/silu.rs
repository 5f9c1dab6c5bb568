//! SiLU (swish) and the gated product of SwiGLU.

use crate::Isa;
use crate::exp::exp;
use crate::simd::{self, Zip};

/// `x / (1 + exp(-x))`, error below 2.1 ulp where the result is normal; minus infinity gives NaN.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `gate[i] = silu(gate[i]) * up[i]`.
pub fn silu_mul(isa: Isa, gate: &mut [f32], up: &[f32]) {
    simd::dispatch(isa, Zip { x: gate, y: up, f: gated });
}

#[inline(always)]
fn gated(gate: f32, up: f32) -> f32 {
    silu(gate) * up
}
