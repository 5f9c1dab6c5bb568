//! 256-bit kernels: AVX2, FMA, F16C.

pub(crate) mod simd;
