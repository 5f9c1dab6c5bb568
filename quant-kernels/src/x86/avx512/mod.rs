//! 512-bit kernels: AVX-512 F, BW, VL, DQ, VNNI, VBMI.
#![allow(clippy::needless_range_loop, reason = "register tiles: one index walks several arrays")]

pub(crate) mod activations;
pub(crate) mod float;
mod linear;
mod load;
mod panel;
pub(crate) mod q4_0;
pub(crate) mod q4_k;
pub(crate) mod q5_k;
pub(crate) mod q6_k;
pub(crate) mod q8_0;
pub(crate) mod simd;
