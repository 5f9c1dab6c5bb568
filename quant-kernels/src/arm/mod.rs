//! SIMD versions for ARM.

pub(crate) mod neon;
