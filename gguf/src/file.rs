//! A whole model file: its parts, looked up by key and by tensor name.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::limits::MAX_PARTS;
use crate::parse::{Part, TensorEntry, duplicate};
use crate::{Bytes, Error, Result, Tensor, TensorInfo, Value, split, tensor};

/// A GGUF model, opened and checked. Clones are cheap and share everything.
///
/// Opening reads the header, the metadata and the tensor table and checks all of it; the data of tensors is not
/// touched. Of a split model the metadata is that of the first part.
#[derive(Clone)]
pub struct Gguf {
    inner: Arc<Inner>,
}

struct Inner {
    /// At least one.
    parts: Vec<Part>,
    /// Part and index of every tensor, ordered by name.
    by_name: Vec<(usize, usize)>,
}

impl Gguf {
    /// Opens a file, and all parts of a model that is split (`model-00001-of-00003.gguf`: any part will do).
    ///
    /// With the feature `mmap` (the default) files are mapped: the pages of tensors that nobody reads are never
    /// loaded. Nobody may change or cut a file while it is mapped; replace a model by renaming a new file over it.
    ///
    /// # Errors
    /// [`Error::Open`] if a file can't be read, otherwise what [`Gguf::from_bytes`] says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &mut |_, _| {})
    }

    /// [`Gguf::open`], reporting bytes done and bytes in all as parts are checked.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn open_with(path: impl AsRef<Path>, progress: &mut dyn FnMut(u64, u64)) -> Result<Self> {
        let paths = split::siblings(path.as_ref())?;
        let parts = paths.iter().map(Bytes::open).collect::<Result<Vec<_>>>()?;
        Self::parse(parts, progress)
    }

    /// Reads a model from bytes: one element for a plain file, the parts in order for a split one.
    ///
    /// # Errors
    /// Whatever is wrong with the bytes, with the key, tensor or offset.
    pub fn from_bytes(parts: Vec<Bytes>) -> Result<Self> {
        Self::parse(parts, &mut |_, _| {})
    }

    fn parse(bytes: Vec<Bytes>, progress: &mut dyn FnMut(u64, u64)) -> Result<Self> {
        let count = bytes.len();
        if count > MAX_PARTS {
            return Err(Error::TooManyParts { count });
        }
        let total = bytes.iter().map(|part| part.len() as u64).sum();
        let mut before = 0;
        let mut parts = Vec::with_capacity(count);
        for (i, bytes) in bytes.into_iter().enumerate() {
            let len = bytes.len() as u64;
            let part = Part::parse(bytes, &mut |done| progress(before + done, total));
            parts.push(part.map_err(|cause| in_part(i, count, cause))?);
            before += len;
        }
        split::check(&parts)?;
        let by_name = index_names(&parts)?;
        Ok(Self { inner: Arc::new(Inner { parts, by_name }) })
    }

    /// The version of the format: 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.first().map_or(0, |part| part.version)
    }

    /// Whether the file is in big-endian order.
    pub fn big_endian(&self) -> bool {
        self.first().is_some_and(|part| part.encoding.big_endian)
    }

    /// The alignment of tensor data, in bytes.
    pub fn alignment(&self) -> u64 {
        self.first().map_or(crate::limits::DEFAULT_ALIGNMENT, |part| part.alignment)
    }

    /// Bytes of all parts.
    pub fn file_bytes(&self) -> u64 {
        self.inner.parts.iter().map(|part| part.bytes.len() as u64).sum()
    }

    /// How many files the model is split into; 1 for a plain one.
    pub fn part_count(&self) -> usize {
        self.inner.parts.len()
    }

    /// The bytes of each file, and how many of them come before the data of tensors: header, metadata, tensor table.
    pub fn parts(&self) -> impl Iterator<Item = (&Bytes, usize)> {
        self.inner.parts.iter().map(|part| (&part.bytes, part.tables_len()))
    }

    /// Keys and values, in the order of the file.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.inner
            .parts
            .iter()
            .take(1)
            .flat_map(|part| part.entries.iter().map(|entry| (part.key(entry), part.value(entry))))
    }

    /// The value of a key, as it is in the file. See the typed accessors for one of a certain type.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.first()?.get(key)
    }

    /// All tensors, in the order of the file, part after part.
    pub fn tensors(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        self.inner
            .parts
            .iter()
            .enumerate()
            .flat_map(|(i, part)| part.tensors.iter().map(move |entry| tensor::info(part, i, entry)))
    }

    /// How many tensors there are.
    pub fn tensor_count(&self) -> usize {
        self.inner.by_name.len()
    }

    /// What the table says of a tensor, `None` if there is none of this name.
    pub fn tensor_info(&self, name: &str) -> Option<TensorInfo<'_>> {
        let (i, part, entry) = self.find(name)?;
        Some(tensor::info(part, i, entry))
    }

    /// A tensor with its data, which shares the memory or mapping of the file.
    ///
    /// The bytes are little-endian always. In a big-endian file plain numbers (floats and integers) are swapped
    /// into memory of their own on each call; blocks of quantized types are refused.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::UnknownType`], [`Error::BigEndianBlocks`].
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let (_, part, entry) =
            self.find(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
        tensor::read(part, entry)
    }

    fn first(&self) -> Option<&Part> {
        self.inner.parts.first()
    }

    fn find(&self, name: &str) -> Option<(usize, &Part, &TensorEntry)> {
        let by_name = &self.inner.by_name;
        let parts = &self.inner.parts;
        let found = by_name.binary_search_by(|&at| name_of(parts, at).cmp(name)).ok()?;
        let &(part_index, index) = by_name.get(found)?;
        let part = parts.get(part_index)?;
        Some((part_index, part, part.tensors.get(index)?))
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("version", &self.version())
            .field("parts", &self.inner.parts.len())
            .field("keys", &self.metadata().count())
            .field("tensors", &self.inner.by_name.len())
            .finish_non_exhaustive()
    }
}

/// An error says which part it is in, where there are several.
pub(crate) fn in_part(index: usize, count: usize, cause: Error) -> Error {
    if count == 1 { cause } else { Error::Part { part: index + 1, count, cause: Box::new(cause) } }
}

fn name_of(parts: &[Part], (part, tensor): (usize, usize)) -> &str {
    parts.get(part).and_then(|part| Some(part.name(part.tensors.get(tensor)?))).unwrap_or_default()
}

/// All tensors of all parts, ordered by name; no name occurs twice.
fn index_names(parts: &[Part]) -> Result<Vec<(usize, usize)>> {
    let mut order: Vec<(usize, usize)> = parts
        .iter()
        .enumerate()
        .flat_map(|(i, part)| (0..part.tensors.len()).map(move |tensor| (i, tensor)))
        .collect();
    order.sort_unstable_by_key(|&at| name_of(parts, at));
    if let Some(name) = duplicate(&order, |at| name_of(parts, at)) {
        return Err(Error::DuplicateTensor { name: name.to_owned() });
    }
    Ok(order)
}
