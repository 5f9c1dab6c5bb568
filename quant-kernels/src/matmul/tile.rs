//! A tile: some rows of a weight times all tokens of the activations, and where the results go.

use crate::activations::Acts;
#[cfg(target_arch = "x86_64")]
use std::any::TypeId;
use std::marker::PhantomData;

/// A slice that the tasks of one parallel region fill, each its own elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared<'a, T> {
    ptr: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: a Shared gives access to elements only through `set` and `slice`, whose callers give each task elements of
// its own, so no element is reached from two threads; the exclusive borrow it was made from outlives it.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as for Send; shared references give out no element twice.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { ptr: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// The elements `start..start + len`.
    ///
    /// # Safety
    /// No other task of the region reaches these elements.
    #[inline(always)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start <= self.len && len <= self.len - start, "a shared slice out of range");
        // SAFETY: within the borrowed slice (checked), and exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(start), len) }
    }
}

/// Per-worker buffers of the tile kernels, kept between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Bytes that a kernel lays out anew: activations in its order, the last rows of a ragged tile.
    pub panel: Vec<u8>,
    /// Accumulators of a tile.
    pub acc: Vec<f32>,
    /// Where the integer sums of many tokens begin, block after block.
    #[cfg(target_arch = "x86_64")]
    pub(crate) starts: Vec<[i32; 16]>,
    /// Activations of few tokens in the order of a kernel.
    #[cfg(target_arch = "x86_64")]
    pub(crate) arranged: Arranged,
}

/// Activations in the order of one kernel, kept for the next tiles that meet the same.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Default)]
pub(crate) struct Arranged {
    /// Whose they are: [`Acts::stamp`] and the kernel.
    of: Option<(u64, TypeId)>,
    bytes: Vec<u8>,
}

#[cfg(target_arch = "x86_64")]
impl Arranged {
    /// `len` bytes from a cache line's beginning on, as `fill` left them for the kernel `K` and these activations.
    pub(crate) fn get<K: 'static>(&mut self, stamp: u64, len: usize, fill: impl FnOnce(&mut [u8])) -> &[u8] {
        let of = Some((stamp, TypeId::of::<K>()));
        let kept = stamp != 0 && self.of == of && self.bytes.len() >= len + 64;
        if self.bytes.len() < len + 64 {
            self.bytes.resize(len + 64, 0);
        }
        let start = self.bytes.as_ptr().align_offset(64).min(64);
        let bytes = &mut self.bytes[start..][..len];
        if !kept {
            self.of = None;
            fill(bytes);
            self.of = of;
        }
        bytes
    }
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
    /// The whole output, `[token][stride]`.
    pub(crate) out: Shared<'a, f32>,
    /// The bias of this tile's rows.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) first_row: usize,
    /// Rows of the whole output: the stride between tokens.
    pub(crate) stride: usize,
    /// The output row of each token; `None`: the token's number.
    pub(crate) out_tokens: Option<&'a [u32]>,
    /// The rows that this worker will probably multiply next; `None`: those that follow in memory.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only kernels that prefetch read it"))]
    pub(crate) next: Option<&'a [u8]>,
}

impl<'a> Tile<'a> {
    /// The bytes of row `row` of the tile.
    pub fn row(&self, row: usize) -> &'a [u8] {
        &self.weight[row * self.row_bytes..][..self.row_bytes]
    }

    /// Where the weights are that come `rows` rows after the first one, which may be beyond the last: to be prefetched.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn ahead(&self, rows: usize) -> *const u8 {
        match self.next {
            Some(next) if rows >= self.rows => {
                next.as_ptr().wrapping_add((rows - self.rows) * self.row_bytes)
            }
            _ => self.weight.as_ptr().wrapping_add(rows * self.row_bytes),
        }
    }

    /// Stores one dot product, with the bias added.
    pub fn set(&mut self, token: usize, row: usize, value: f32) {
        self.store(token, row, &[value]);
    }

    /// Stores the dot products of rows `row..` of the tile with one token, with the bias added.
    pub fn store(&mut self, token: usize, row: usize, values: &[f32]) {
        let (out, bias) = self.part(token, row, values.len());
        match bias {
            Some(bias) => {
                for ((out, value), bias) in out.iter_mut().zip(values).zip(bias) {
                    *out = value + bias;
                }
            }
            None => out.copy_from_slice(values),
        }
    }

    /// Where the dot products of `rows` rows from `row` on with one token go, and the bias to be added.
    #[inline(always)]
    pub(crate) fn part(&mut self, token: usize, row: usize, rows: usize) -> (&mut [f32], Option<&[f32]>) {
        assert!(
            row <= self.rows && rows <= self.rows - row && token < self.acts.tokens,
            "tile store out of range"
        );
        let token = self.out_tokens.map_or(token, |rows| rows[token] as usize);
        // SAFETY: these rows of the tile's tokens belong to it alone, and the tile is borrowed exclusively.
        let out = unsafe { self.out.slice(token * self.stride + self.first_row + row, rows) };
        (out, self.bias.map(|bias| &bias[row..][..rows]))
    }
}
