//! Mapping files into memory: the only module of this crate with unsafe code.
#![allow(unsafe_code, reason = "a mapping can't be made without it")]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};

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
        // A file that comes from disk is then read into huge pages, which stay in the page cache: mapping it the next
        // time takes a hundredth of the time, and reading it fewer misses of the TLB. A hint that systems may refuse.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self(map))
    }

    /// Asks for the pages of a range; see `Bytes::prefault`.
    pub(crate) fn prefault(&self, range: Range<usize>) {
        // Linux before 5.14 and other systems refuse: pages come at first use then.
        #[cfg(target_os = "linux")]
        let _ = self.0.advise_range(memmap2::Advice::PopulateRead, range.start, range.len());
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
