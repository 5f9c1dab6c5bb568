//! 512-bit kernels: AVX-512 F, BW, VL, DQ, VNNI, VBMI.

pub(crate) mod simd;
