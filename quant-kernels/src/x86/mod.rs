//! SIMD versions for x86-64, one folder per tier; same file names as the scalar code they equal.
#![allow(clippy::needless_range_loop, reason = "register tiles: one index walks several arrays")]

pub(crate) mod avx2;
pub(crate) mod avx512;
mod float;
mod float_panels;
