//! Logits of a run in a file, to compare later runs with.
//!
//! ```text
//! byte
//! 0    "QLOGITS1"
//! 8    vocabulary, tokens of a chunk, chunks: u32 each
//! 20   the ids of all chunks, u32
//!      a row of f32 for each scored position, chunk after chunk
//! ```
//!
//! Everything is little-endian. The length of the file follows from its first 20 bytes and must agree with them.

use super::Chunks;
use crate::Error;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"QLOGITS1";
const HEADER: u64 = 20;

/// Bytes of a file of `chunks` chunks of `context` tokens; `None` beyond what can be.
fn file_len(vocabulary: u32, context: u32, chunks: u32) -> Option<u64> {
    let (vocabulary, context, chunks) = (u64::from(vocabulary), u64::from(context), u64::from(chunks));
    let scored = (context - context / 2).checked_sub(1)?;
    let ids = chunks.checked_mul(context)?.checked_mul(4)?;
    let rows = chunks.checked_mul(scored)?.checked_mul(vocabulary)?.checked_mul(4)?;
    HEADER.checked_add(ids)?.checked_add(rows)
}

/// Writes a file of logits.
#[derive(Debug)]
pub struct LogitsWriter {
    path: PathBuf,
    out: BufWriter<File>,
    bytes: Vec<u8>,
}

impl LogitsWriter {
    /// Makes the file and writes all that is known before the run.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::LogitsFile`] for what the format can't hold.
    pub fn create(path: &Path, chunks: &Chunks, vocabulary: usize) -> Result<Self, Error> {
        let sizes = [vocabulary, chunks.context(), chunks.count()].map(u32::try_from);
        let [Ok(vocabulary), Ok(context), Ok(count)] = sizes else {
            return Err(bad(path, "its sizes do not fit in 32 bits"));
        };
        let file = File::create(path).map_err(|source| io_error(path, source))?;
        let mut writer = Self { path: path.to_owned(), out: BufWriter::new(file), bytes: Vec::new() };
        let mut head = MAGIC.to_vec();
        for word in [vocabulary, context, count].iter().chain(chunks.ids()) {
            head.extend(word.to_le_bytes());
        }
        writer.put(&head)?;
        Ok(writer)
    }

    pub(super) fn row(&mut self, row: &[f32]) -> Result<(), Error> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
        let result = self.put(&bytes);
        self.bytes = bytes;
        result
    }

    /// Writes what is still held back.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(mut self) -> Result<(), Error> {
        self.out.flush().map_err(|source| io_error(&self.path, source))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(|source| io_error(&self.path, source))
    }
}

/// Reads a file of logits, row after row.
#[derive(Debug)]
pub struct LogitsReader {
    path: PathBuf,
    input: BufReader<File>,
    ids: Vec<u32>,
    vocabulary: usize,
    context: usize,
    bytes: Vec<u8>,
}

impl LogitsReader {
    /// Opens a file and reads all but the rows.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::LogitsFile`] for a file that is something else, or cut off.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io_of = |source| io_error(path, source);
        let file = File::open(path).map_err(io_of)?;
        let len = file.metadata().map_err(io_of)?.len();
        let mut input = BufReader::new(file);
        let mut head = [0u8; HEADER as usize];
        input.read_exact(&mut head).map_err(|_| bad(path, "it is too short"))?;
        let (magic, words) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(bad(path, "it does not begin as one"));
        }
        let word = |i: usize| words.as_chunks::<4>().0.get(i).copied().map_or(0, u32::from_le_bytes);
        let [vocabulary, context, chunks] = [word(0), word(1), word(2)];
        if context < 4 || vocabulary == 0 || chunks == 0 {
            return Err(bad(path, "its header holds impossible sizes"));
        }
        if file_len(vocabulary, context, chunks) != Some(len) {
            return Err(bad(path, "its length is not what its header says: it was cut off or changed"));
        }
        // The length agrees, so that neither of these is larger than the file.
        let mut bytes = vec![0u8; chunks as usize * context as usize * 4];
        input.read_exact(&mut bytes).map_err(io_of)?;
        let ids = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        bytes.resize(vocabulary as usize * 4, 0);
        bytes.truncate(vocabulary as usize * 4);
        let (vocabulary, context) = (vocabulary as usize, context as usize);
        Ok(Self { path: path.to_owned(), input, ids, vocabulary, context, bytes })
    }

    /// Tokens of a chunk.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The ids of all chunks.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Logits of a row.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Checks that two files are of the same chunks.
    pub(super) fn matches(&self, other: &Self) -> Result<(), Error> {
        if (self.vocabulary, self.context, &self.ids) == (other.vocabulary, other.context, &other.ids) {
            return Ok(());
        }
        Err(bad(&self.path, "it is of another text or vocabulary than the other file"))
    }

    /// Checks that the file was made from these chunks; it may hold more.
    pub(super) fn check(&self, chunks: &Chunks, vocabulary: usize) -> Result<(), Error> {
        let mismatch = if self.vocabulary != vocabulary {
            "it is of a model with another vocabulary"
        } else if self.context != chunks.context() {
            "its chunks have another length"
        } else if !self.ids.starts_with(chunks.ids()) {
            "it is of another text, or of fewer chunks"
        } else {
            return Ok(());
        };
        Err(bad(&self.path, mismatch))
    }

    pub(super) fn row(&mut self, row: &mut [f32]) -> Result<(), Error> {
        self.input.read_exact(&mut self.bytes).map_err(|source| io_error(&self.path, source))?;
        for (x, bytes) in row.iter_mut().zip(self.bytes.as_chunks::<4>().0) {
            *x = f32::from_le_bytes(*bytes);
        }
        if row.iter().all(|x| x.is_finite()) {
            return Ok(());
        }
        Err(bad(&self.path, "it holds a logit that is no finite number"))
    }
}

fn bad(path: &Path, problem: &'static str) -> Error {
    Error::LogitsFile { path: path.to_owned(), problem }
}

fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}
