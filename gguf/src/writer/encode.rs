//! Values on their way into a file: what may be written, and how it becomes bytes.

use crate::cursor::Encoding;
use crate::limits::MAX_ARRAY_DEPTH;
use crate::{Array, Error, Result, Value, ValueType};

/// The bytes of a value in the making.
#[derive(Debug, Clone)]
pub struct Encoder {
    pub(crate) bytes: Vec<u8>,
    pub(crate) encoding: Encoding,
    /// Arrays that are open: elements are written inside.
    depth: usize,
}

/// A number, in the byte order of the file.
macro_rules! put {
    ($encoder:expr, $number:expr) => {
        $encoder.bytes.extend(if $encoder.encoding.big_endian {
            $number.to_be_bytes()
        } else {
            $number.to_le_bytes()
        })
    };
}

impl Encoder {
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self { bytes: Vec::new(), encoding, depth: 0 }
    }

    pub(crate) fn u32(&mut self, number: u32) {
        put!(self, number);
    }

    pub(crate) fn u64(&mut self, number: u64) {
        put!(self, number);
    }

    /// A length, count or dimension: 4 bytes in version 1, else 8.
    pub(crate) fn length(&mut self, what: &'static str, value: u64) -> Result<()> {
        if self.encoding.wide {
            self.u64(value);
        } else {
            self.u32(u32::try_from(value).map_err(|_| Error::VersionOne { what, value })?);
        }
        Ok(())
    }

    pub(crate) fn str(&mut self, text: &str) -> Result<()> {
        self.length("the length of a string", text.len() as u64)?;
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// An array: element type, length, elements.
    fn array<V: Encode>(
        &mut self,
        element: ValueType,
        len: usize,
        values: impl Iterator<Item = V>,
    ) -> Result<()> {
        if self.depth == MAX_ARRAY_DEPTH {
            return Err(Error::ArrayDepth { key: String::new() });
        }
        self.depth += 1;
        self.u32(element.id());
        self.length("the length of an array", len as u64)?;
        for value in values {
            value.encode(self)?;
        }
        self.depth -= 1;
        Ok(())
    }
}

/// A metadata value that can be written: numbers, booleans, strings, slices and vectors of one type, and the
/// [`Value`]s and [`Array`]s of another file.
pub trait Encode {
    /// The type of the value.
    fn value_type(&self) -> ValueType;

    /// Appends the value, without its type.
    ///
    /// # Errors
    /// If a length does not fit the version, or arrays are nested too deep.
    fn encode(&self, out: &mut Encoder) -> Result<()>;
}

/// A value whose type is known without one at hand, so that an array of none has a type too.
pub trait Element: Encode {
    /// The type of every element.
    const TYPE: ValueType;
}

macro_rules! numbers {
    ($($number:ident $variant:ident)*) => {$(
        impl Encode for $number {
            fn value_type(&self) -> ValueType {
                ValueType::$variant
            }

            fn encode(&self, out: &mut Encoder) -> Result<()> {
                put!(out, self);
                Ok(())
            }
        }

        impl Element for $number {
            const TYPE: ValueType = ValueType::$variant;
        }
    )*};
}

numbers! { u8 U8 i8 I8 u16 U16 i16 I16 u32 U32 i32 I32 u64 U64 i64 I64 f32 F32 f64 F64 }

impl Encode for bool {
    fn value_type(&self) -> ValueType {
        ValueType::Bool
    }

    fn encode(&self, out: &mut Encoder) -> Result<()> {
        u8::from(*self).encode(out)
    }
}

impl Element for bool {
    const TYPE: ValueType = ValueType::Bool;
}

impl Encode for str {
    fn value_type(&self) -> ValueType {
        ValueType::Str
    }

    fn encode(&self, out: &mut Encoder) -> Result<()> {
        out.str(self)
    }
}

impl Element for str {
    const TYPE: ValueType = ValueType::Str;
}

impl Encode for String {
    fn value_type(&self) -> ValueType {
        ValueType::Str
    }

    fn encode(&self, out: &mut Encoder) -> Result<()> {
        out.str(self)
    }
}

impl Element for String {
    const TYPE: ValueType = ValueType::Str;
}

impl<T: Element> Encode for [T] {
    fn value_type(&self) -> ValueType {
        ValueType::Array
    }

    fn encode(&self, out: &mut Encoder) -> Result<()> {
        out.array(T::TYPE, self.len(), self.iter())
    }
}

impl<T: Element> Element for [T] {
    const TYPE: ValueType = ValueType::Array;
}

impl<T: Element> Encode for Vec<T> {
    fn value_type(&self) -> ValueType {
        ValueType::Array
    }

    fn encode(&self, out: &mut Encoder) -> Result<()> {
        self.as_slice().encode(out)
    }
}

impl<T: Element> Element for Vec<T> {
    const TYPE: ValueType = ValueType::Array;
}

impl<T: Element, const N: usize> Encode for [T; N] {
    fn value_type(&self) -> ValueType {
        ValueType::Array
    }

    fn encode(&self, out: &mut Encoder) -> Result<()> {
        self.as_slice().encode(out)
    }
}

impl<T: Element, const N: usize> Element for [T; N] {
    const TYPE: ValueType = ValueType::Array;
}

impl<T: Encode + ?Sized> Encode for &T {
    fn value_type(&self) -> ValueType {
        (**self).value_type()
    }

    fn encode(&self, out: &mut Encoder) -> Result<()> {
        (**self).encode(out)
    }
}

impl<T: Element + ?Sized> Element for &T {
    const TYPE: ValueType = T::TYPE;
}

impl Encode for Array<'_> {
    fn value_type(&self) -> ValueType {
        ValueType::Array
    }

    fn encode(&self, out: &mut Encoder) -> Result<()> {
        out.array(self.element_type(), self.len(), self.values())
    }
}

impl Encode for Value<'_> {
    fn value_type(&self) -> ValueType {
        Value::value_type(self)
    }

    fn encode(&self, out: &mut Encoder) -> Result<()> {
        match self {
            Self::U8(n) => n.encode(out),
            Self::I8(n) => n.encode(out),
            Self::U16(n) => n.encode(out),
            Self::I16(n) => n.encode(out),
            Self::U32(n) => n.encode(out),
            Self::I32(n) => n.encode(out),
            Self::U64(n) => n.encode(out),
            Self::I64(n) => n.encode(out),
            Self::F32(x) => x.encode(out),
            Self::F64(x) => x.encode(out),
            Self::Bool(b) => b.encode(out),
            Self::Str(s) => s.encode(out),
            Self::Array(array) => array.encode(out),
        }
    }
}
