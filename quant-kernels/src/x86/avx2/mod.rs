//! 256-bit kernels: AVX2, FMA, F16C.

pub(crate) mod float;
mod int8;
pub(crate) mod k_quants;
pub(crate) mod legacy;
