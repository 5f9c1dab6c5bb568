//! A shared, read-only range of bytes: mapped, owned or static.

use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;
use std::{fmt, fs, io};

use crate::{Error, Result};

/// Read-only bytes that are cheap to clone and to slice: a clone shares the memory, and the memory (or the
/// mapping) lives as long as its last slice.
///
/// ```
/// use quant_gguf::Bytes;
/// let all = Bytes::from(vec![1, 2, 3, 4]);
/// let tail = all.slice(2..4).unwrap();
/// drop(all);
/// assert_eq!(&*tail, [3, 4]);
/// ```
#[derive(Clone)]
pub struct Bytes {
    memory: Memory,
    range: Range<usize>,
}

#[derive(Clone)]
enum Memory {
    Static(&'static [u8]),
    Owned(Arc<Vec<u8>>),
    #[cfg(feature = "mmap")]
    Mapped(Arc<crate::map::Map>),
}

impl Memory {
    fn all(&self) -> &[u8] {
        match self {
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
            #[cfg(feature = "mmap")]
            Self::Mapped(map) => map,
        }
    }
}

impl Bytes {
    fn new(memory: Memory) -> Self {
        let range = 0..memory.all().len();
        Self { memory, range }
    }

    /// A whole file: mapped with the feature `mmap`, else read into memory. Nobody may change or cut a file while
    /// it is mapped.
    ///
    /// # Errors
    /// [`Error::Open`] if the file can't be opened, mapped or read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::read(path).map_err(|cause| Error::Open { path: path.to_owned(), cause })
    }

    #[cfg(feature = "mmap")]
    fn read(path: &Path) -> io::Result<Self> {
        let map = crate::map::Map::new(&fs::File::open(path)?)?;
        Ok(Self::new(Memory::Mapped(Arc::new(map))))
    }

    #[cfg(not(feature = "mmap"))]
    fn read(path: &Path) -> io::Result<Self> {
        fs::read(path).map(Self::from)
    }

    /// A part of these bytes that shares their memory; `None` if the range is not within them.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        // No overflow: both ends are at most `self.range.end`.
        let range = self.range.start + range.start..self.range.start + range.end;
        Some(Self { memory: self.memory.clone(), range })
    }

    /// Whether the bytes lie in a mapped file rather than in memory of their own.
    pub fn is_mapped(&self) -> bool {
        match self.memory {
            Memory::Static(_) | Memory::Owned(_) => false,
            #[cfg(feature = "mmap")]
            Memory::Mapped(_) => true,
        }
    }
}

impl Bytes {
    /// Asks the system to map all pages of these bytes now, reading from disk what is not in memory yet. For bytes
    /// that are about to be read from end to end: one call costs a fraction of the faults of a first use. A hint:
    /// it can't fail, and does nothing for memory of one's own or where the system has no such call.
    pub fn prefault(&self) {
        #[cfg(feature = "mmap")]
        if let Memory::Mapped(map) = &self.memory {
            map.prefault(self.range.clone());
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // The range was checked when it was made; were it not within, nothing is the safe answer.
        self.memory.all().get(self.range.clone()).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self::from(&[][..])
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(Memory::Owned(Arc::new(bytes)))
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self::new(Memory::Static(bytes))
    }
}

impl<const N: usize> From<&'static [u8; N]> for Bytes {
    fn from(bytes: &'static [u8; N]) -> Self {
        Self::from(&bytes[..])
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.memory {
            Memory::Static(_) => "static",
            Memory::Owned(_) => "owned",
            #[cfg(feature = "mmap")]
            Memory::Mapped(_) => "mapped",
        };
        write!(f, "Bytes({} {kind})", self.len())
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Bytes {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_stay_within() {
        let bytes = Bytes::from(&b"abcdef"[..]);
        let middle = bytes.slice(1..5).unwrap();
        assert_eq!(&*middle, b"bcde");
        assert_eq!(&*middle.slice(1..2).unwrap(), b"c");
        assert!(middle.slice(0..5).is_none());
        #[allow(clippy::reversed_empty_ranges, reason = "the case under test")]
        let reversed = 3..2;
        assert!(middle.slice(reversed).is_none());
        assert_eq!(middle.slice(4..4).unwrap().len(), 0);
    }

    #[test]
    fn prefault_leaves_bytes_as_they_are() {
        let path = std::env::temp_dir().join(format!("quant-gguf-prefault-{}", std::process::id()));
        let content: Vec<u8> = (0..100_000u32).map(|i| (i * 7) as u8).collect();
        fs::write(&path, &content).unwrap();
        let all = Bytes::open(&path).unwrap();
        for range in [0..0, 5..5000, 4096..8192, 99_999..100_000, 0..100_000] {
            let part = all.slice(range.clone()).unwrap();
            part.prefault();
            assert_eq!(*part, content[range]);
        }
        fs::remove_file(&path).unwrap();
        Bytes::from(content).prefault();
    }

    #[test]
    fn clones_share_memory() {
        let bytes = Bytes::from(vec![7; 100]);
        assert_eq!(bytes.clone().as_ptr(), bytes.as_ptr());
        assert!(!bytes.is_mapped());
    }
}
