//! Float buffers of whole cache lines, so that 64-byte loads never straddle two.

use crate::simd::LANES;

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// A buffer that grows and is kept between calls.
#[derive(Debug, Default, Clone)]
pub(crate) struct Lines(Vec<Line>);

impl Lines {
    /// The first `len` lines, grown if need be; old values remain in them.
    pub(crate) fn take(&mut self, len: usize) -> &mut [[f32; LANES]] {
        if self.0.len() < len {
            self.0.resize(len, Line([0.0; LANES]));
        }
        let lines = &mut self.0[..len];
        // SAFETY: Line is repr(C) around one array of exactly its size (64 bytes), so both slices have the same
        // layout; alignment only weakens, and the exclusive borrow carries over.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len()) }
    }
}
