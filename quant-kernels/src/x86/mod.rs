//! SIMD versions for x86-64, one folder per tier; same file names as the scalar code they equal.
#![allow(clippy::needless_range_loop, reason = "register tiles: one index walks several arrays")]

pub(crate) mod avx2;
pub(crate) mod avx512;
mod float;
mod float_panels;

/// Asks for memory that will be read soon.
pub(crate) fn request(bytes: &[u8]) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    for line in bytes.chunks(64) {
        // SAFETY: every x86-64 has SSE; a request does nothing but fetch.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
}
