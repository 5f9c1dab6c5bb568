//! What the loops ask of an unpacked block.

use crate::types::blocks32::{CodeBlock, OffsetBlock};
use crate::types::blocks256::{Block256, MinBlock256};
use crate::types::nvfp4::Nvfp4Block;

/// A contract block of 256 values.
pub(super) trait SuperBlock {
    /// Whether there are minima.
    const MINS: bool;

    /// Codes and scales.
    fn scaled(&self) -> &Block256;
    /// The minima, at most 63 each, and their scale.
    fn mins(&self) -> (&[u8; 16], f32);
}

impl SuperBlock for Block256 {
    const MINS: bool = false;

    #[inline(always)]
    fn scaled(&self) -> &Block256 {
        self
    }

    #[inline(always)]
    fn mins(&self) -> (&[u8; 16], f32) {
        (&[0; 16], 0.0)
    }
}

impl SuperBlock for MinBlock256 {
    const MINS: bool = true;

    #[inline(always)]
    fn scaled(&self) -> &Block256 {
        &self.scaled
    }

    #[inline(always)]
    fn mins(&self) -> (&[u8; 16], f32) {
        (&self.mins, self.dmin)
    }
}

/// A stored block of one or more contract blocks of 16 or 32 values.
pub(super) trait Units {
    /// Values in a stored block.
    const LEN: usize;
    /// Values in a contract block.
    const UNIT: usize = 32;
    /// Whether [`Units::min`] is anything but zero.
    const OFFSET: bool = false;

    /// The codes.
    fn codes(&self) -> &[i8];
    /// The scale of a contract block.
    fn d(&self, unit: usize) -> f32;
    /// The minimum of every value.
    #[inline(always)]
    fn min(&self) -> f32 {
        0.0
    }
}

impl<const LEN: usize> Units for CodeBlock<LEN> {
    const LEN: usize = LEN;

    #[inline(always)]
    fn codes(&self) -> &[i8] {
        &self.q
    }

    #[inline(always)]
    fn d(&self, _: usize) -> f32 {
        self.d
    }
}

impl Units for OffsetBlock {
    const LEN: usize = 32;
    const OFFSET: bool = true;

    #[inline(always)]
    fn codes(&self) -> &[i8] {
        &self.q
    }

    #[inline(always)]
    fn d(&self, _: usize) -> f32 {
        self.d
    }

    #[inline(always)]
    fn min(&self) -> f32 {
        -self.m
    }
}

impl Units for Nvfp4Block {
    const LEN: usize = 64;
    const UNIT: usize = 16;

    #[inline(always)]
    fn codes(&self) -> &[i8] {
        self.q.as_flattened()
    }

    #[inline(always)]
    fn d(&self, unit: usize) -> f32 {
        self.d[unit]
    }
}
