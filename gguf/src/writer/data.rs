//! Where the bytes of a tensor come from when a file is written.

use std::fmt;
use std::io::{self, Write};

use quant_kernels::GgmlType;

use crate::tensor::swap_order;
use crate::{Bytes, Error, Result};

type Callback<'a> = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + 'a>;

/// The data of a tensor to be written, little-endian: bytes at hand, or a callback that produces them when
/// their turn comes, so that a large model need never be in memory.
pub struct Data<'a>(Source<'a>);

enum Source<'a> {
    Borrowed(&'a [u8]),
    Shared(Bytes),
    Callback(Callback<'a>),
}

impl<'a> Data<'a> {
    /// Data that is produced when the file is written. The callback must write exactly the bytes that shape and
    /// type say.
    pub fn from_fn(callback: impl FnOnce(&mut dyn Write) -> io::Result<()> + 'a) -> Self {
        Self(Source::Callback(Box::new(callback)))
    }

    /// The length, where it is known before writing.
    pub(super) fn len(&self) -> Option<u64> {
        match &self.0 {
            Source::Borrowed(bytes) => Some(bytes.len() as u64),
            Source::Shared(bytes) => Some(bytes.len() as u64),
            Source::Callback(_) => None,
        }
    }

    /// Writes exactly `expected` bytes, or fails.
    pub(super) fn write(
        self,
        out: &mut dyn Write,
        name: &str,
        ty: GgmlType,
        expected: u64,
        big_endian: bool,
    ) -> Result<()> {
        if big_endian {
            let mut data = Vec::new();
            self.write(&mut data, name, ty, expected, false)?;
            swap_order(name, ty, &mut data)?;
            return Ok(out.write_all(&data)?);
        }
        match self.0 {
            Source::Borrowed(bytes) => out.write_all(bytes)?,
            Source::Shared(bytes) => out.write_all(&bytes)?,
            Source::Callback(callback) => {
                let mut counted = Counted { out, left: expected, excess: 0 };
                let result = callback(&mut counted);
                let (left, excess) = (counted.left, counted.excess);
                if excess > 0 {
                    let found = expected.saturating_add(excess);
                    return Err(Error::DataLength { name: name.to_owned(), expected, found });
                }
                result?;
                if left > 0 {
                    let found = expected.saturating_sub(left);
                    return Err(Error::DataLength { name: name.to_owned(), expected, found });
                }
            }
        }
        Ok(())
    }
}

/// Passes on at most `left` bytes.
struct Counted<'w> {
    out: &'w mut dyn Write,
    left: u64,
    excess: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            self.excess = bytes.len() as u64 - self.left;
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "more data than the tensor's shape says",
            ));
        }
        let written = self.out.write(bytes)?;
        self.left = self.left.saturating_sub(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<'a> From<&'a [u8]> for Data<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Source::Borrowed(bytes))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Data<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self(Source::Borrowed(bytes))
    }
}

impl<'a> From<&'a Vec<u8>> for Data<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self(Source::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Data<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Source::Shared(bytes.into()))
    }
}

impl From<Bytes> for Data<'_> {
    fn from(bytes: Bytes) -> Self {
        Self(Source::Shared(bytes))
    }
}

impl fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len() {
            Some(len) => write!(f, "Data({len} bytes)"),
            None => f.write_str("Data(callback)"),
        }
    }
}
