//! Writing GGUF files.

mod data;
mod encode;

use std::collections::{HashMap, HashSet};
use std::io::Write;

use quant_kernels::GgmlType;

pub use data::Data;
pub use encode::{Element, Encode, Encoder};

use crate::cursor::{Cursor, Encoding};
use crate::limits::{DEFAULT_ALIGNMENT, MAX_KEY_BYTES, MAX_NAME_BYTES, MAX_PARTS};
use crate::parse::{ALIGNMENT_KEY, checked_alignment, data_bytes};
use crate::{Error, Gguf, Result, ValueType, split};

/// The version and byte order to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Version 1: lengths and dimensions in 32 bits. For tests of readers.
    V1,
    /// Version 2. For tests of readers.
    V2,
    /// Version 3, little-endian: what everybody reads.
    #[default]
    V3,
    /// Version 3, big-endian. Tensors of plain numbers only.
    V3BigEndian,
}

impl Format {
    fn version(self) -> u32 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
            Self::V3 | Self::V3BigEndian => 3,
        }
    }

    fn encoding(self) -> Encoding {
        Encoding { wide: self != Self::V1, big_endian: self == Self::V3BigEndian }
    }
}

/// A GGUF file in the making: keys and tensors are written in the order in which they were added.
///
/// The layout is ggml's: the tensor table, padding up to the alignment, then the data of each tensor in order,
/// each padded. A file in that layout that is read and written again comes out byte for byte.
///
/// ```
/// use quant_gguf::{GgmlType, Gguf, Writer};
/// let mut writer = Writer::new();
/// writer.set("general.architecture", "llama")?;
/// writer.set("tokenizer.ggml.tokens", ["<s>", "hello"])?;
/// writer.tensor("output_norm.weight", GgmlType::F32, &[2], 1.5f32.to_le_bytes().repeat(2))?;
/// let mut file = Vec::new();
/// writer.write_to(&mut file)?;
/// let back = Gguf::from_bytes(vec![file.into()])?;
/// assert_eq!(back.require_str("general.architecture")?, "llama");
/// # Ok::<(), quant_gguf::Error>(())
/// ```
#[derive(Debug)]
pub struct Writer<'a> {
    format: Format,
    alignment: u64,
    entries: Vec<Entry>,
    by_key: HashMap<String, usize>,
    tensors: Vec<Pending<'a>>,
    names: HashSet<String>,
}

#[derive(Debug, Clone)]
struct Entry {
    key: String,
    ty: ValueType,
    encoded: Vec<u8>,
}

#[derive(Debug)]
struct Pending<'a> {
    name: String,
    ty: GgmlType,
    dims: Vec<u64>,
    bytes: u64,
    data: Data<'a>,
}

impl Default for Writer<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Writer<'a> {
    /// An empty file of version 3, little-endian.
    pub fn new() -> Self {
        Self::with_format(Format::V3)
    }

    /// An empty file of another version or byte order.
    pub fn with_format(format: Format) -> Self {
        Self {
            format,
            alignment: DEFAULT_ALIGNMENT,
            entries: Vec::new(),
            by_key: HashMap::new(),
            tensors: Vec::new(),
            names: HashSet::new(),
        }
    }

    /// Everything that a model holds, in the same format. A split model becomes one file: its `split.*` keys are
    /// left out.
    ///
    /// # Errors
    /// [`Error::UnknownType`] or [`Error::BigEndianBlocks`] for a tensor whose data can't be read.
    pub fn copy_of(model: &Gguf) -> Result<Self> {
        let mut writer = Self::with_format(match (model.version(), model.big_endian()) {
            (_, true) => Format::V3BigEndian,
            (1, _) => Format::V1,
            (2, _) => Format::V2,
            _ => Format::V3,
        });
        let merged = model.part_count() > 1;
        for (key, value) in model.metadata() {
            if !(merged && [split::NO_KEY, split::COUNT_KEY, split::TENSORS_KEY].contains(&key)) {
                writer.set(key, value)?;
            }
        }
        for info in model.tensors() {
            let tensor = model.tensor(info.name)?;
            writer.tensor(info.name, tensor.ty, info.dims, tensor.bytes)?;
        }
        Ok(writer)
    }

    /// Sets a key. One that is set already keeps its place and gets the new value. `general.alignment` sets the
    /// alignment of the file as well.
    ///
    /// # Errors
    /// [`Error::TooLong`] for the key, [`Error::Alignment`], [`Error::ArrayDepth`], [`Error::VersionOne`].
    pub fn set(&mut self, key: &str, value: impl Encode) -> Result<()> {
        check_len("a metadata key", key, MAX_KEY_BYTES)?;
        let ty = value.value_type();
        let mut encoder = Encoder::new(self.format.encoding());
        value.encode(&mut encoder).map_err(|error| match error {
            Error::ArrayDepth { .. } => Error::ArrayDepth { key: key.to_owned() },
            other => other,
        })?;
        if key == ALIGNMENT_KEY {
            let mut cursor = Cursor::new(&encoder.bytes, encoder.encoding);
            if ty == ValueType::Array {
                let (expected, found) = ("u32", ty.to_string());
                return Err(Error::WrongType { key: key.to_owned(), expected, found });
            }
            self.alignment = checked_alignment(&cursor.scalar(ty, key)?)?;
        }
        let entry = Entry { key: key.to_owned(), ty, encoded: encoder.bytes };
        match self.by_key.get(key).and_then(|&index| self.entries.get_mut(index)) {
            Some(old) => *old = entry,
            None => {
                self.by_key.insert(key.to_owned(), self.entries.len());
                self.entries.push(entry);
            }
        }
        Ok(())
    }

    /// Sets the alignment of tensor data, in bytes, through its key `general.alignment`.
    ///
    /// # Errors
    /// [`Error::Alignment`] if it is not a power of two or too large.
    pub fn alignment(&mut self, alignment: u32) -> Result<()> {
        self.set(ALIGNMENT_KEY, alignment)
    }

    /// Adds a tensor. `dims` is in ggml's order, the row length first; the data is little-endian.
    ///
    /// # Errors
    /// [`Error::DuplicateTensor`], [`Error::TooLong`] for the name, [`Error::Shape`], [`Error::Dimensions`],
    /// [`Error::RowLength`], [`Error::DataLength`] if the bytes are not as many as shape and type say, and
    /// [`Error::BigEndianBlocks`] for blocks in a big-endian file.
    pub fn tensor(
        &mut self,
        name: &str,
        ty: GgmlType,
        dims: &[u64],
        data: impl Into<Data<'a>>,
    ) -> Result<()> {
        let (name, data) = (name.to_owned(), data.into());
        check_len("a tensor name", &name, MAX_NAME_BYTES)?;
        let bytes = data_bytes(&name, Some(ty), dims)?.unwrap_or(0);
        if let Some(found) = data.len()
            && found != bytes
        {
            return Err(Error::DataLength { name, expected: bytes, found });
        }
        if self.format == Format::V3BigEndian && ty.block_len() != 1 {
            return Err(Error::BigEndianBlocks { name, ty });
        }
        if !self.names.insert(name.clone()) {
            return Err(Error::DuplicateTensor { name });
        }
        self.tensors.push(Pending { name, ty, dims: dims.to_vec(), bytes, data });
        Ok(())
    }

    /// Divides the file into parts of at most `max_bytes` of tensor data each (a larger tensor is a part of its
    /// own). The first part holds all metadata. Name the files with [`split::name`].
    ///
    /// # Errors
    /// [`Error::TooManyParts`].
    pub fn split(mut self, max_bytes: u64) -> Result<Vec<Self>> {
        let total = self.tensors.len();
        let mut groups: Vec<Vec<Pending<'a>>> = vec![Vec::new()];
        let mut filled = 0u64;
        for tensor in self.tensors.drain(..) {
            let after = filled.saturating_add(tensor.bytes);
            match groups.last_mut() {
                Some(group) if group.is_empty() || after <= max_bytes => {
                    group.push(tensor);
                    filled = after;
                }
                _ => {
                    filled = tensor.bytes;
                    groups.push(vec![tensor]);
                }
            }
        }
        let count = groups.len();
        let (Ok(parts), true) = (u16::try_from(count), count <= MAX_PARTS) else {
            return Err(Error::TooManyParts { count });
        };
        let (format, alignment) = (self.format, self.alignment);
        // The first part is this file without its tensors; the others begin empty, with the same alignment.
        let mut first = Some(self);
        let mut out = Vec::with_capacity(count);
        for (index, tensors) in (0..parts).zip(groups) {
            let mut part = match first.take() {
                Some(first) => first,
                None => Self::with_format(format),
            };
            if part.alignment != alignment {
                // At most MAX_ALIGNMENT, which fits.
                part.set(ALIGNMENT_KEY, alignment as u32)?;
            }
            part.names = tensors.iter().map(|tensor| tensor.name.clone()).collect();
            part.tensors = tensors;
            part.set(split::NO_KEY, index)?;
            part.set(split::COUNT_KEY, parts)?;
            part.set(split::TENSORS_KEY, i32::try_from(total).unwrap_or(i32::MAX))?;
            out.push(part);
        }
        Ok(out)
    }

    /// Writes the file and returns its length in bytes.
    ///
    /// # Errors
    /// [`Error::Write`], [`Error::DataLength`] if a callback writes more or less than its tensor holds,
    /// [`Error::VersionOne`], [`Error::TooLong`] if all data together is beyond counting.
    pub fn write_to(self, out: &mut impl Write) -> Result<u64> {
        let mut head = Encoder::new(self.format.encoding());
        head.bytes.extend_from_slice(b"GGUF");
        head.u32(self.format.version());
        head.length("the number of tensors", self.tensors.len() as u64)?;
        head.length("the number of keys", self.entries.len() as u64)?;
        for entry in &self.entries {
            head.str(&entry.key)?;
            head.u32(entry.ty.id());
            head.bytes.extend_from_slice(&entry.encoded);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            head.str(&tensor.name)?;
            // At most MAX_DIMS: `tensor` has checked it.
            head.u32(tensor.dims.len() as u32);
            for &dim in &tensor.dims {
                head.length("a dimension", dim)?;
            }
            head.u32(tensor.ty.id());
            head.u64(offset);
            offset = offset
                .checked_add(tensor.bytes)
                .and_then(|end| end.checked_next_multiple_of(self.alignment))
                .ok_or(Error::TooLong {
                    what: "the tensor data",
                    offset,
                    len: tensor.bytes,
                    limit: u64::MAX,
                })?;
        }
        let mut written = head.bytes.len() as u64;
        out.write_all(&head.bytes)?;
        written += pad(out, written, self.alignment)?;
        let big_endian = self.format == Format::V3BigEndian;
        for tensor in self.tensors {
            tensor.data.write(out, &tensor.name, tensor.ty, tensor.bytes, big_endian)?;
            written += tensor.bytes;
            written += pad(out, written, self.alignment)?;
        }
        out.flush()?;
        Ok(written)
    }
}

fn check_len(what: &'static str, text: &str, limit: u64) -> Result<()> {
    let len = text.len() as u64;
    if len > limit { Err(Error::TooLong { what, offset: 0, len, limit }) } else { Ok(()) }
}

/// Zeros up to the next multiple of the alignment; returns how many.
fn pad(out: &mut impl Write, at: u64, alignment: u64) -> Result<u64> {
    let zeros = at.next_multiple_of(alignment) - at;
    let mut left = zeros;
    while left > 0 {
        let chunk = left.min(64);
        out.write_all([0; 64].get(..chunk as usize).unwrap_or_default())?;
        left -= chunk;
    }
    Ok(zeros)
}
