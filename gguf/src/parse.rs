//! Reading one file: header, metadata and tensor table, every length checked before it is used.

use std::ops::Range;

use quant_kernels::GgmlType;

use crate::cursor::{Cursor, Encoding};
use crate::limits::{
    DEFAULT_ALIGNMENT, MAX_ALIGNMENT, MAX_DIMS, MAX_KEY_BYTES, MAX_NAME_BYTES, MAX_TENSOR_VALUES,
};
use crate::{Array, Bytes, Error, Result, Value, ValueType};

/// The key that sets the alignment of tensor data.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";

/// Tensors read between two reports of progress.
const REPORT_TENSORS: usize = 256;

/// A checked file: one part of a split model, or the whole of another.
pub(crate) struct Part {
    pub bytes: Bytes,
    pub version: u32,
    pub encoding: Encoding,
    pub alignment: u64,
    /// Keys and tensor names, one after the other; ranges into it are at character boundaries.
    names: String,
    pub entries: Vec<Entry>,
    /// Indices into `entries`, ordered by key.
    by_key: Vec<usize>,
    pub tensors: Vec<TensorEntry>,
}

/// A key and where its value is.
pub(crate) struct Entry {
    key: Range<usize>,
    value: Stored,
}

/// A value, or where it lies in the file.
enum Stored {
    Scalar(Value<'static>),
    Str(Range<usize>),
    Array { element: ValueType, len: usize, payload: Range<usize> },
}

/// A line of the tensor table.
pub(crate) struct TensorEntry {
    name: Range<usize>,
    dims: [u64; MAX_DIMS],
    n_dims: usize,
    pub type_id: u32,
    /// From the start of the file, once the data section is known.
    pub offset: u64,
    /// `None` for a type that is not known.
    pub bytes: Option<u64>,
}

impl TensorEntry {
    pub(crate) fn dims(&self) -> &[u64] {
        self.dims.get(..self.n_dims).unwrap_or_default()
    }

    pub(crate) fn ty(&self) -> Option<GgmlType> {
        GgmlType::from_id(self.type_id)
    }
}

impl Part {
    /// Reads and checks a file. `progress` is called with the bytes handled so far.
    pub(crate) fn parse(bytes: Bytes, progress: &mut dyn FnMut(u64)) -> Result<Self> {
        let (version, encoding) = version(&bytes)?;
        let mut part = Self {
            version,
            encoding,
            alignment: DEFAULT_ALIGNMENT,
            names: String::new(),
            entries: Vec::new(),
            by_key: Vec::new(),
            tensors: Vec::new(),
            bytes: bytes.clone(),
        };
        let mut cursor = Cursor::new(&bytes, encoding);
        cursor.take(8, "the header")?;
        let tensors = cursor.length("the header")?;
        let entries = cursor.length("the header")?;
        // The least that a key with its value, and a line of the tensor table with one dimension, can take.
        let wide = encoding.length_bytes();
        cursor.check_count(entries, wide + 4 + 1, "the metadata")?;
        for _ in 0..entries {
            part.read_entry(&mut cursor)?;
            progress(cursor.at() as u64);
        }
        part.index_keys()?;
        part.read_alignment()?;
        cursor.check_count(tensors, wide + 4 + wide + 4 + 8, "the tensor table")?;
        for i in 0..tensors {
            part.read_tensor(&mut cursor)?;
            if i % REPORT_TENSORS as u64 == 0 {
                progress(cursor.at() as u64);
            }
        }
        part.place_tensors(cursor.at() as u64)?;
        part.check_overlaps()?;
        progress(bytes.len() as u64);
        Ok(part)
    }

    /// Bytes before the first tensor's data.
    pub(crate) fn tables_len(&self) -> usize {
        let first = self.tensors.iter().map(|tensor| tensor.offset).min();
        first.and_then(|offset| usize::try_from(offset).ok()).unwrap_or(usize::MAX).min(self.bytes.len())
    }

    /// The key of an entry.
    pub(crate) fn key(&self, entry: &Entry) -> &str {
        self.names.get(entry.key.clone()).unwrap_or_default()
    }

    /// The name of a tensor.
    pub(crate) fn name(&self, tensor: &TensorEntry) -> &str {
        self.names.get(tensor.name.clone()).unwrap_or_default()
    }

    /// The value of an entry.
    pub(crate) fn value(&self, entry: &Entry) -> Value<'_> {
        match &entry.value {
            Stored::Scalar(value) => *value,
            Stored::Str(range) => {
                let raw = self.bytes.get(range.clone()).unwrap_or_default();
                // It was valid at opening: a mapped file that someone changed since may yield nothing.
                Value::Str(str::from_utf8(raw).unwrap_or_default())
            }
            Stored::Array { element, len, payload } => Value::Array(Array {
                key: self.key(entry),
                element: *element,
                len: *len,
                payload: self.bytes.get(payload.clone()).unwrap_or_default(),
                encoding: self.encoding,
            }),
        }
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<Value<'_>> {
        let key_at = |&i: &usize| self.entries.get(i).map(|entry| self.key(entry));
        let found = self.by_key.binary_search_by(|i| key_at(i).cmp(&Some(key))).ok()?;
        let entry = self.entries.get(*self.by_key.get(found)?)?;
        Some(self.value(entry))
    }

    fn keep_name(&mut self, name: &str) -> Range<usize> {
        let start = self.names.len();
        self.names.push_str(name);
        start..self.names.len()
    }

    fn read_entry(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let key = cursor.str("a metadata key", MAX_KEY_BYTES)?;
        let value = match cursor.value_type(key)? {
            ValueType::Array => {
                let (element, len) = cursor.array_head(key)?;
                let start = cursor.at();
                cursor.check_elements(element, len, 1, key)?;
                Stored::Array { element, len, payload: start..cursor.at() }
            }
            ty => match cursor.scalar(ty, key)? {
                Value::Str(s) => Stored::Str(cursor.at() - s.len()..cursor.at()),
                Value::U8(n) => Stored::Scalar(Value::U8(n)),
                Value::I8(n) => Stored::Scalar(Value::I8(n)),
                Value::U16(n) => Stored::Scalar(Value::U16(n)),
                Value::I16(n) => Stored::Scalar(Value::I16(n)),
                Value::U32(n) => Stored::Scalar(Value::U32(n)),
                Value::I32(n) => Stored::Scalar(Value::I32(n)),
                Value::U64(n) => Stored::Scalar(Value::U64(n)),
                Value::I64(n) => Stored::Scalar(Value::I64(n)),
                Value::F32(x) => Stored::Scalar(Value::F32(x)),
                Value::F64(x) => Stored::Scalar(Value::F64(x)),
                Value::Bool(b) => Stored::Scalar(Value::Bool(b)),
                // `scalar` yields no arrays.
                Value::Array(_) => return Err(Error::ArrayDepth { key: key.to_owned() }),
            },
        };
        let key = self.keep_name(key);
        self.entries.push(Entry { key, value });
        Ok(())
    }

    fn index_keys(&mut self) -> Result<()> {
        let key = |i: usize| self.entries.get(i).map_or("", |entry| self.key(entry));
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_unstable_by_key(|&i| key(i));
        if let Some(twice) = duplicate(&order, key) {
            return Err(Error::DuplicateKey { key: twice.to_owned() });
        }
        self.by_key = order;
        Ok(())
    }

    fn read_alignment(&mut self) -> Result<()> {
        if let Some(value) = self.get(ALIGNMENT_KEY) {
            self.alignment = checked_alignment(&value)?;
        }
        Ok(())
    }

    fn read_tensor(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let name = cursor.str("a tensor name", MAX_NAME_BYTES)?;
        let n_dims = cursor.u32("a tensor's dimensions")?;
        if n_dims == 0 || n_dims as usize > MAX_DIMS {
            return Err(Error::Dimensions { name: name.to_owned(), found: n_dims.into() });
        }
        let n_dims = n_dims as usize;
        let mut dims = [0; MAX_DIMS];
        for dim in dims.iter_mut().take(n_dims) {
            *dim = cursor.length("a tensor's dimensions")?;
        }
        let type_id = cursor.u32("a tensor's type")?;
        let offset = cursor.u64("a tensor's data offset")?;
        if !offset.is_multiple_of(self.alignment) {
            return Err(Error::Misaligned { name: name.to_owned(), offset, alignment: self.alignment });
        }
        let shape = dims.get(..n_dims).unwrap_or_default();
        let bytes = data_bytes(name, GgmlType::from_id(type_id), shape)?;
        let name = self.keep_name(name);
        self.tensors.push(TensorEntry { name, dims, n_dims, type_id, offset, bytes });
        Ok(())
    }

    /// Turns offsets in the data section into offsets in the file and checks that all data is there. Padding
    /// after the last tensor may be absent.
    fn place_tensors(&mut self, table_end: u64) -> Result<()> {
        let file_bytes = self.bytes.len() as u64;
        // No overflow: a position in memory plus at most MAX_ALIGNMENT, in 64 bits.
        let data_start = table_end.next_multiple_of(self.alignment);
        for i in 0..self.tensors.len() {
            let Some(tensor) = self.tensors.get(i) else { break };
            let least = tensor.bytes.unwrap_or(1);
            let start = data_start.checked_add(tensor.offset);
            let end = start.and_then(|start| start.checked_add(least));
            match (start, end) {
                (Some(start), Some(end)) if end <= file_bytes => {
                    if let Some(tensor) = self.tensors.get_mut(i) {
                        tensor.offset = start;
                    }
                }
                _ => {
                    return Err(Error::OutOfFile {
                        name: self.name(tensor).to_owned(),
                        offset: tensor.offset,
                        bytes: least,
                        data_start,
                        file_bytes,
                    });
                }
            }
        }
        Ok(())
    }

    /// No two tensors share a byte. One of unknown type has at least one byte.
    fn check_overlaps(&self) -> Result<()> {
        let mut order: Vec<&TensorEntry> = self.tensors.iter().collect();
        order.sort_by_key(|tensor| tensor.offset);
        for pair in order.windows(2) {
            let &[first, second] = pair else { continue };
            if second.offset - first.offset < first.bytes.unwrap_or(1) {
                let (first, second) = (self.name(first).to_owned(), self.name(second).to_owned());
                return Err(Error::Overlap { first, second });
            }
        }
        Ok(())
    }
}

/// The version and with it the byte order: the version of a file in the other order is huge.
fn version(bytes: &[u8]) -> Result<(u32, Encoding)> {
    let mut cursor = Cursor::new(bytes, Encoding { wide: true, big_endian: false });
    let found = cursor.fixed::<4>("the magic number")?;
    if &found != b"GGUF" {
        return Err(Error::Magic { found });
    }
    let raw = cursor.u32("the version")?;
    for (version, big_endian) in [(raw, false), (raw.swap_bytes(), true)] {
        if (1..=3).contains(&version) {
            return Ok((version, Encoding { wide: version > 1, big_endian }));
        }
    }
    Err(Error::Version { found: raw })
}

/// `general.alignment`: any integer that is a power of two within bounds.
pub(crate) fn checked_alignment(value: &Value<'_>) -> Result<u64> {
    let wrong =
        || Error::WrongType { key: ALIGNMENT_KEY.to_owned(), expected: "u32", found: value.type_name() };
    let integer = value.as_integer().ok_or_else(wrong)?;
    let alignment = u64::try_from(integer).unwrap_or(0);
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(Error::Alignment { found: alignment });
    }
    Ok(alignment)
}

/// Bytes of a tensor's data, `None` if its type is not known. The shape is checked either way.
pub(crate) fn data_bytes(name: &str, ty: Option<GgmlType>, dims: &[u64]) -> Result<Option<u64>> {
    let shape = || Error::Shape { name: name.to_owned(), dims: dims.to_vec() };
    if dims.is_empty() || dims.len() > MAX_DIMS {
        return Err(Error::Dimensions { name: name.to_owned(), found: dims.len() as u64 });
    }
    let values = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim)).ok_or_else(shape)?;
    if values == 0 || values > MAX_TENSOR_VALUES {
        return Err(shape());
    }
    let Some(ty) = ty else { return Ok(None) };
    let (cols, block) = (dims.first().copied().unwrap_or(0), ty.block_len() as u64);
    if !cols.is_multiple_of(block) {
        return Err(Error::RowLength { name: name.to_owned(), ty, cols, block });
    }
    ty.bytes_of(values).map(Some).ok_or_else(shape)
}

/// The first name that occurs twice among indices ordered by name.
pub(crate) fn duplicate<'a, I: Copy>(order: &[I], name: impl Fn(I) -> &'a str) -> Option<&'a str> {
    order.windows(2).find_map(|pair| match *pair {
        [a, b] if name(a) == name(b) => Some(name(a)),
        _ => None,
    })
}
