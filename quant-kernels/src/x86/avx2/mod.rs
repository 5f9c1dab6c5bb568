//! 256-bit kernels: AVX2, FMA, F16C.

pub(crate) mod activations;
pub(crate) mod float;
mod int8;
pub(crate) mod q4_0;
pub(crate) mod q4_k;
pub(crate) mod q5_k;
pub(crate) mod q6_k;
pub(crate) mod q8_0;
pub(crate) mod simd;
