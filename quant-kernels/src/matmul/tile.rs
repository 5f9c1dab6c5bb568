//! A tile: some rows of a weight times all tokens of the activations, and where the results go.

use crate::activations::Acts;

/// A matmul output that several workers fill, each its own elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutPtr {
    ptr: *mut f32,
    len: usize,
}

// SAFETY: an OutPtr is only written through tiles, and the matmul driver gives each tile rows of its own, so no
// two threads write the same element; the exclusive borrow it was made from outlives the parallel region.
unsafe impl Send for OutPtr {}
// SAFETY: as for Send; shared references give out no element twice.
unsafe impl Sync for OutPtr {}

impl OutPtr {
    pub(crate) fn new(out: &mut [f32]) -> Self {
        Self { ptr: out.as_mut_ptr(), len: out.len() }
    }
}

/// Per-worker buffers of the tile kernels, kept between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Unpacked weight panel.
    pub panel: Vec<u8>,
    /// Accumulators of a tile.
    pub acc: Vec<f32>,
}

/// Rows `first_row..first_row + rows` of a weight times all tokens.
#[derive(Debug)]
pub struct Tile<'a> {
    /// The rows' bytes, row after row.
    pub weight: &'a [u8],
    /// Bytes of a row.
    pub row_bytes: usize,
    /// Rows in this tile.
    pub rows: usize,
    /// The activations.
    pub acts: &'a Acts,
    /// This worker's buffers.
    pub scratch: &'a mut Scratch,
    pub(crate) out: OutPtr,
    pub(crate) first_row: usize,
    /// Rows of the whole output: the stride between tokens.
    pub(crate) stride: usize,
}

impl<'a> Tile<'a> {
    /// The bytes of row `row` of the tile.
    pub fn row(&self, row: usize) -> &'a [u8] {
        &self.weight[row * self.row_bytes..][..self.row_bytes]
    }

    /// Stores one output element.
    pub fn set(&mut self, token: usize, row: usize, value: f32) {
        let index = token * self.stride + self.first_row + row;
        assert!(
            row < self.rows && token < self.acts.tokens && index < self.out.len,
            "tile store out of range"
        );
        // SAFETY: index is within the output, and this row belongs to this tile alone.
        unsafe { self.out.ptr.add(index).write(value) }
    }

    /// Stores consecutive rows of one token.
    pub fn set_rows(&mut self, token: usize, row: usize, values: &[f32]) {
        let index = token * self.stride + self.first_row + row;
        assert!(
            row + values.len() <= self.rows
                && token < self.acts.tokens
                && index + values.len() <= self.out.len,
            "tile store out of range"
        );
        // SAFETY: the range is within the output, these rows belong to this tile alone, and `values` is a live
        // shared borrow, so it can't be the exclusively borrowed output.
        unsafe { self.out.ptr.add(index).copy_from_nonoverlapping(values.as_ptr(), values.len()) }
    }
}
