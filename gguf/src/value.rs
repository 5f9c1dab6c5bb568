//! Metadata values and their types.

use std::fmt;

use crate::Array;

macro_rules! value_types {
    ($($(#[$doc:meta])* $id:literal $variant:ident $name:literal $bytes:literal;)*) => {
        /// The type of a metadata value. The discriminant is the id in GGUF files.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum ValueType { $($(#[$doc])* $variant = $id,)* }

        impl ValueType {
            /// The type with this id.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }

            /// A short name: `u32`, `string`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Bytes of a number or boolean; 0 for strings and arrays, which have no fixed size.
            pub(crate) const fn scalar_bytes(self) -> u64 {
                match self { $(Self::$variant => $bytes,)* }
            }
        }
    };
}

value_types! {
    /// 8-bit unsigned integer.
    0 U8 "u8" 1;
    /// 8-bit signed integer.
    1 I8 "i8" 1;
    /// 16-bit unsigned integer.
    2 U16 "u16" 2;
    /// 16-bit signed integer.
    3 I16 "i16" 2;
    /// 32-bit unsigned integer.
    4 U32 "u32" 4;
    /// 32-bit signed integer.
    5 I32 "i32" 4;
    /// 32-bit float.
    6 F32 "f32" 4;
    /// Boolean, one byte.
    7 Bool "bool" 1;
    /// UTF-8 string.
    8 Str "string" 0;
    /// Array of one type.
    9 Array "array" 0;
    /// 64-bit unsigned integer.
    10 U64 "u64" 8;
    /// 64-bit signed integer.
    11 I64 "i64" 8;
    /// 64-bit float.
    12 F64 "f64" 8;
}

impl ValueType {
    /// The id in GGUF files.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// Whether it is one of the eight integer types.
    pub const fn is_integer(self) -> bool {
        self.integers().is_some()
    }

    /// The least and the largest number of an integer type.
    pub(crate) const fn integers(self) -> Option<(i128, i128)> {
        Some(match self {
            Self::U8 => (0, u8::MAX as i128),
            Self::I8 => (i8::MIN as i128, i8::MAX as i128),
            Self::U16 => (0, u16::MAX as i128),
            Self::I16 => (i16::MIN as i128, i16::MAX as i128),
            Self::U32 => (0, u32::MAX as i128),
            Self::I32 => (i32::MIN as i128, i32::MAX as i128),
            Self::U64 => (0, u64::MAX as i128),
            Self::I64 => (i64::MIN as i128, i64::MAX as i128),
            Self::F32 | Self::F64 | Self::Bool | Self::Str | Self::Array => return None,
        })
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A metadata value, borrowed from the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// 8-bit unsigned integer.
    U8(u8),
    /// 8-bit signed integer.
    I8(i8),
    /// 16-bit unsigned integer.
    U16(u16),
    /// 16-bit signed integer.
    I16(i16),
    /// 32-bit unsigned integer.
    U32(u32),
    /// 32-bit signed integer.
    I32(i32),
    /// 32-bit float.
    F32(f32),
    /// Boolean.
    Bool(bool),
    /// String.
    Str(&'a str),
    /// Array, decoded when it is iterated.
    Array(Array<'a>),
    /// 64-bit unsigned integer.
    U64(u64),
    /// 64-bit signed integer.
    I64(i64),
    /// 64-bit float.
    F64(f64),
}

impl<'a> Value<'a> {
    /// The type of the value.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::Str(_) => ValueType::Str,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// The type in words, an array with that of its elements: `array of string`.
    pub fn type_name(&self) -> String {
        match self {
            Self::Array(array) => format!("array of {}", array.element_type()),
            other => other.value_type().to_string(),
        }
    }

    /// Any integer type, widened; `None` for what is no integer.
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(n) => n.into(),
            Self::I8(n) => n.into(),
            Self::U16(n) => n.into(),
            Self::I16(n) => n.into(),
            Self::U32(n) => n.into(),
            Self::I32(n) => n.into(),
            Self::U64(n) => n.into(),
            Self::I64(n) => n.into(),
            Self::F32(_) | Self::F64(_) | Self::Bool(_) | Self::Str(_) | Self::Array(_) => return None,
        })
    }

    /// Either float type, an f64 rounded to the nearest f32; `None` for what is no float.
    #[allow(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Self::F32(x) => Some(x),
            Self::F64(x) => Some(x as f32),
            _ => None,
        }
    }

    /// A boolean; `None` for anything else.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// A string; `None` for anything else.
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            Self::Str(s) => Some(s),
            _ => None,
        }
    }

    /// An array; `None` for anything else.
    pub fn as_array(&self) -> Option<Array<'a>> {
        match *self {
            Self::Array(array) => Some(array),
            _ => None,
        }
    }
}

/// How many elements of an array [`Value`]'s `Display` shows.
const SHOWN: usize = 6;

impl fmt::Display for Value<'_> {
    /// Numbers and booleans plainly, strings quoted and escaped, of arrays the first elements and the length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U8(n) => n.fmt(f),
            Self::I8(n) => n.fmt(f),
            Self::U16(n) => n.fmt(f),
            Self::I16(n) => n.fmt(f),
            Self::U32(n) => n.fmt(f),
            Self::I32(n) => n.fmt(f),
            Self::F32(x) => x.fmt(f),
            Self::Bool(b) => b.fmt(f),
            Self::Str(s) => write!(f, "{s:?}"),
            Self::U64(n) => n.fmt(f),
            Self::I64(n) => n.fmt(f),
            Self::F64(x) => x.fmt(f),
            Self::Array(array) => {
                f.write_str("[")?;
                for (i, value) in array.values().take(SHOWN).enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    value.fmt(f)?;
                }
                if array.len() > SHOWN {
                    write!(f, ", ... {} in all", array.len())?;
                }
                f.write_str("]")
            }
        }
    }
}
