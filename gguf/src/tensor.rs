//! Tensors: what the table says, and handles with data.

use std::ops::Range;

use quant_kernels::GgmlType;

use crate::parse::{Part, TensorEntry};
use crate::{Bytes, Error, Result};

/// A line of the tensor table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo<'a> {
    /// The name.
    pub name: &'a str,
    /// One to four dimensions in ggml's order: `dims[0]` is the row length, the fastest.
    pub dims: &'a [u64],
    /// The id of the type, known or not.
    pub type_id: u32,
    /// The type, if it is known.
    pub ty: Option<GgmlType>,
    /// Where the data begins, in bytes from the start of its part.
    pub offset: u64,
    /// Bytes of data; `None` if the type is not known.
    pub bytes: Option<u64>,
    /// The part that holds it, from 0.
    pub part: usize,
}

impl TensorInfo<'_> {
    /// How many values it has.
    pub fn values(&self) -> u64 {
        self.dims.iter().product()
    }

    /// Where the data lies in its part; `None` if the type is not known.
    pub fn range(&self) -> Option<Range<u64>> {
        Some(self.offset..self.offset.checked_add(self.bytes?)?)
    }
}

/// A tensor with its data: owns its name and shape, shares the memory of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tensor {
    /// The name.
    pub name: String,
    /// The type.
    pub ty: GgmlType,
    /// One to four dimensions in ggml's order: `dims[0]` is the row length, the fastest.
    pub dims: Vec<u64>,
    /// The values, blocks in file order, little-endian.
    pub bytes: Bytes,
}

impl Tensor {
    /// Values in a row.
    pub fn cols(&self) -> u64 {
        self.dims.first().copied().unwrap_or(0)
    }

    /// Rows, all other dimensions multiplied.
    pub fn rows(&self) -> u64 {
        self.dims.iter().skip(1).product()
    }
}

pub(crate) fn info<'a>(part: &'a Part, index: usize, entry: &'a TensorEntry) -> TensorInfo<'a> {
    TensorInfo {
        name: part.name(entry),
        dims: entry.dims(),
        type_id: entry.type_id,
        ty: entry.ty(),
        offset: entry.offset,
        bytes: entry.bytes,
        part: index,
    }
}

pub(crate) fn read(part: &Part, entry: &TensorEntry) -> Result<Tensor> {
    let name = part.name(entry).to_owned();
    let (Some(ty), Some(len)) = (entry.ty(), entry.bytes) else {
        return Err(Error::UnknownType { name, id: entry.type_id });
    };
    let data = usize::try_from(entry.offset)
        .ok()
        .zip(usize::try_from(len).ok())
        .and_then(|(start, len)| part.bytes.slice(start..start.checked_add(len)?));
    let Some(mut bytes) = data else {
        // Opening has checked this range; said again so that nothing here can be out of bounds.
        let (offset, file_bytes) = (entry.offset, part.bytes.len() as u64);
        return Err(Error::OutOfFile { name, offset, bytes: len, data_start: 0, file_bytes });
    };
    if part.encoding.big_endian {
        let mut swapped = bytes.to_vec();
        swap_order(&name, ty, &mut swapped)?;
        bytes = swapped.into();
    }
    Ok(Tensor { name, ty, dims: entry.dims().to_vec(), bytes })
}

/// Turns big-endian plain numbers into little-endian ones, or back.
pub(crate) fn swap_order(name: &str, ty: GgmlType, data: &mut [u8]) -> Result<()> {
    if ty.block_len() != 1 {
        return Err(Error::BigEndianBlocks { name: name.to_owned(), ty });
    }
    for number in data.chunks_exact_mut(ty.block_bytes()) {
        number.reverse();
    }
    Ok(())
}
