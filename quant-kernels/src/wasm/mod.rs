//! SIMD versions for WebAssembly.

pub(crate) mod simd128;
