//! Where the planes go that pages lose when memory is short, so that they can come back.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// Names what a store keeps.
pub type SpillKey = u64;

/// Keeps bytes outside the cache's budget.
pub trait SpillStore: fmt::Debug + Send + Sync {
    /// Keeps some bytes; `None` if there is no room for them: then they are lost.
    fn put(&mut self, bytes: &[u8]) -> Option<SpillKey>;

    /// Reads what is kept, as long as `out`.
    ///
    /// # Errors
    /// What the system says.
    fn get(&mut self, key: SpillKey, out: &mut [u8]) -> io::Result<()>;

    /// Forgets what is kept.
    fn remove(&mut self, key: SpillKey);

    /// Bytes kept.
    fn bytes(&self) -> usize;
}

/// A store in a file, up to so many bytes.
///
/// What lies in the file means nothing without the cache, so the file may be unlinked as soon as it is open.
#[derive(Debug)]
pub struct SpillFile {
    file: File,
    limit: usize,
    end: u64,
    kept: usize,
    /// Free pieces by their size, which is that of some page's planes: a few sizes only.
    free: Vec<(usize, u64)>,
    /// Of each key, its size.
    sizes: std::collections::BTreeMap<SpillKey, usize>,
}

impl SpillFile {
    /// Writes to a file, from its beginning on, and reads back; the file does not grow past `limit` bytes.
    pub fn new(file: File, limit: usize) -> Self {
        Self { file, limit, end: 0, kept: 0, free: Vec::new(), sizes: Default::default() }
    }

    fn place(&mut self, len: usize) -> Option<u64> {
        if let Some(at) = self.free.iter().position(|(size, _)| *size == len) {
            return Some(self.free.swap_remove(at).1);
        }
        let end = self.end.checked_add(len as u64).filter(|&end| end <= self.limit as u64)?;
        Some(std::mem::replace(&mut self.end, end))
    }
}

impl SpillStore for SpillFile {
    fn put(&mut self, bytes: &[u8]) -> Option<SpillKey> {
        let at = self.place(bytes.len())?;
        let written = self.file.seek(SeekFrom::Start(at)).and_then(|_| self.file.write_all(bytes));
        if written.is_err() {
            // A full disk: these planes are lost, the place is not.
            self.free.push((bytes.len(), at));
            return None;
        }
        self.sizes.insert(at, bytes.len());
        self.kept += bytes.len();
        Some(at)
    }

    fn get(&mut self, key: SpillKey, out: &mut [u8]) -> io::Result<()> {
        if self.sizes.get(&key) != Some(&out.len()) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the spill file keeps no such planes"));
        }
        self.file.seek(SeekFrom::Start(key)).and_then(|_| self.file.read_exact(out))
    }

    fn remove(&mut self, key: SpillKey) {
        if let Some(len) = self.sizes.remove(&key) {
            self.kept -= len;
            self.free.push((len, key));
        }
    }

    fn bytes(&self) -> usize {
        self.kept
    }
}
