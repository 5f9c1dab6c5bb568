//! Mapping files into memory: the only module of this crate with unsafe code.
#![allow(unsafe_code, reason = "a mapping can't be made without it")]

use std::fs::File;
use std::io;
use std::ops::Deref;

/// A file, mapped read-only.
pub(crate) struct Map(memmap2::Mmap);

impl Map {
    /// Maps the whole file as it is now.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is read-only and nothing in this crate writes to or resizes the file. That no other
        // process does so while it is mapped can't be checked here; `Gguf::open` passes that duty on in its docs.
        // All offsets into the mapping are checked on each use, so a changed file can yield other bytes, and a
        // shortened one ends the process by a signal, but neither leads outside the mapping.
        let map = unsafe { memmap2::Mmap::map(file) }?;
        Ok(Self(map))
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
