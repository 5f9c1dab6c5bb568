//! The logistic function and the product with it that gates an output.

use crate::Isa;
use crate::exp::exp;
use crate::simd::{self, Zip};

/// `1 / (1 + exp(-x))`, error below 2 ulp.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x[i] = x[i] * sigmoid(gate[i])`.
pub fn sigmoid_mul(isa: Isa, x: &mut [f32], gate: &[f32]) {
    simd::dispatch(isa, Zip { x, y: gate, f: gated });
}

#[inline(always)]
fn gated(x: f32, gate: f32) -> f32 {
    x * sigmoid(gate)
}
