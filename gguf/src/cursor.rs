//! A reader over bytes that checks every length against what remains.

use std::str;

use crate::limits::MAX_ARRAY_DEPTH;
use crate::{Error, Result, Value, ValueType};

/// How numbers and lengths are written in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Encoding {
    /// Lengths, counts and dimensions take 8 bytes (version 2 and later), else 4.
    pub wide: bool,
    pub big_endian: bool,
}

impl Encoding {
    /// Bytes of a length field.
    pub(crate) const fn length_bytes(self) -> u64 {
        if self.wide { 8 } else { 4 }
    }

    /// The fewest bytes that one array element of this type takes.
    const fn least_bytes(self, ty: ValueType) -> u64 {
        match ty {
            ValueType::Str => self.length_bytes(),
            ValueType::Array => 4 + self.length_bytes(),
            scalar => scalar.scalar_bytes(),
        }
    }
}

/// A position in bytes.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    pub(crate) encoding: Encoding,
}

macro_rules! numbers {
    ($($name:ident)*) => {$(
        #[inline]
        pub(crate) fn $name(&mut self, what: &'static str) -> Result<$name> {
            let raw = self.fixed(what)?;
            Ok(if self.encoding.big_endian { $name::from_be_bytes(raw) } else { $name::from_le_bytes(raw) })
        }
    )*};
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], encoding: Encoding) -> Self {
        Self { bytes, at: 0, encoding }
    }

    /// Bytes read so far.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `len` bytes.
    #[inline]
    pub(crate) fn take(&mut self, len: u64, what: &'static str) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(taken) = usize::try_from(len).ok().and_then(|len| rest.get(..len)) else {
            return Err(self.truncated(what, len));
        };
        self.at += taken.len();
        Ok(taken)
    }

    #[cold]
    fn truncated(&self, what: &'static str, needed: u64) -> Error {
        Error::Truncated { what, offset: self.at as u64, needed, remaining: self.remaining() }
    }

    /// The next `N` bytes.
    #[inline]
    pub(crate) fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    numbers! { u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 }

    /// A length, count or dimension: 4 bytes in version 1, else 8.
    pub(crate) fn length(&mut self, what: &'static str) -> Result<u64> {
        if self.encoding.wide { self.u64(what) } else { self.u32(what).map(u64::from) }
    }

    /// A count of items that take at least `least` bytes each: checked against what remains.
    pub(crate) fn check_count(&self, count: u64, least: u64, what: &'static str) -> Result<()> {
        let needed = count.saturating_mul(least);
        if needed > self.remaining() {
            return Err(self.truncated(what, needed));
        }
        Ok(())
    }

    /// A string with its length before it, at most `limit` bytes.
    pub(crate) fn str(&mut self, what: &'static str, limit: u64) -> Result<&'a str> {
        let offset = self.at as u64;
        let len = self.length(what)?;
        if len > limit {
            return Err(Error::TooLong { what, offset, len, limit });
        }
        let raw = self.take(len, what)?;
        str::from_utf8(raw).map_err(|_| Error::Utf8 { what, offset })
    }

    /// A string as [`Self::str`] reads it, or `None`, and no step ahead, where that fails: a quarter of a million of
    /// them are read when a vocabulary is, and saying why one is wrong would cost more than reading it.
    #[inline]
    pub(crate) fn next_str(&mut self) -> Option<&'a str> {
        let rest = self.bytes.get(self.at..)?;
        let (len, text) = match self.encoding {
            Encoding { wide: true, big_endian: false } => {
                let (len, text) = rest.split_first_chunk()?;
                (u64::from_le_bytes(*len), text)
            }
            _ => {
                let mut cursor = self.clone();
                let len = cursor.length("").ok()?;
                (len, self.bytes.get(cursor.at..)?)
            }
        };
        let text = str::from_utf8(text.get(..usize::try_from(len).ok()?)?).ok()?;
        self.at += self.encoding.length_bytes() as usize + text.len();
        Some(text)
    }

    /// A value type.
    pub(crate) fn value_type(&mut self, key: &str) -> Result<ValueType> {
        let id = self.u32("a value type")?;
        ValueType::from_id(id).ok_or_else(|| Error::ValueType { key: key.to_owned(), id })
    }

    /// Element type and length of an array whose elements follow; the length fits in what remains.
    pub(crate) fn array_head(&mut self, key: &str) -> Result<(ValueType, usize)> {
        let what = "an array";
        let element = self.value_type(key)?;
        let len = self.length(what)?;
        self.check_count(len, self.encoding.least_bytes(element), what)?;
        // It fits: the count is at most the number of bytes that remain in memory.
        Ok((element, usize::try_from(len).unwrap_or(0)))
    }

    /// One number, boolean or string.
    ///
    /// An array has no place here: those are walked by [`Self::check_elements`].
    pub(crate) fn scalar(&mut self, ty: ValueType, key: &str) -> Result<Value<'a>> {
        let what = "a metadata value";
        Ok(match ty {
            ValueType::U8 => Value::U8(self.u8(what)?),
            ValueType::I8 => Value::I8(self.i8(what)?),
            ValueType::U16 => Value::U16(self.u16(what)?),
            ValueType::I16 => Value::I16(self.i16(what)?),
            ValueType::U32 => Value::U32(self.u32(what)?),
            ValueType::I32 => Value::I32(self.i32(what)?),
            ValueType::U64 => Value::U64(self.u64(what)?),
            ValueType::I64 => Value::I64(self.i64(what)?),
            ValueType::F32 => Value::F32(self.f32(what)?),
            ValueType::F64 => Value::F64(self.f64(what)?),
            ValueType::Bool => {
                let offset = self.at as u64;
                match self.u8(what)? {
                    0 => Value::Bool(false),
                    1 => Value::Bool(true),
                    found => return Err(Error::Bool { key: key.to_owned(), offset, found }),
                }
            }
            ValueType::Str => Value::Str(self.str("a string value", u64::MAX)?),
            ValueType::Array => {
                return Err(Error::ValueType { key: key.to_owned(), id: ValueType::Array.id() });
            }
        })
    }

    /// Walks over the elements of an array and checks each, without keeping any; `depth` is 1 for an array that
    /// lies in no other.
    pub(crate) fn check_elements(
        &mut self,
        element: ValueType,
        len: usize,
        depth: usize,
        key: &str,
    ) -> Result<()> {
        if depth > MAX_ARRAY_DEPTH {
            return Err(Error::ArrayDepth { key: key.to_owned() });
        }
        match element {
            ValueType::Array => {
                for _ in 0..len {
                    let (element, len) = self.array_head(key)?;
                    self.check_elements(element, len, depth + 1, key)?;
                }
            }
            ValueType::Str => {
                for _ in 0..len {
                    if self.next_str().is_none() {
                        self.scalar(element, key)?;
                    }
                }
            }
            ValueType::Bool => {
                for _ in 0..len {
                    self.scalar(element, key)?;
                }
            }
            number => {
                self.take((len as u64).saturating_mul(number.scalar_bytes()), "an array")?;
            }
        }
        Ok(())
    }
}
