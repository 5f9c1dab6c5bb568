//! Metadata by type: errors name the key, the type asked for and the type found.

use crate::{Array, Error, Gguf, Result, Value};

/// Accessors of one kind: the optional one and the one that requires its key.
macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident $require:ident -> $ty:ty, |$value:ident, $key:ident| $convert:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// `Ok(None)` if the key is absent.
        ///
        /// # Errors
        /// [`Error::WrongType`] for a value of another type, [`Error::OutOfRange`] for an integer that does not fit.
        pub fn $name(&self, $key: &str) -> Result<Option<$ty>> {
            self.get($key).map(|$value| $convert).transpose()
        }

        $(#[$doc])*
        ///
        /// # Errors
        /// [`Error::MissingKey`] if the key is absent, [`Error::WrongType`] for a value of another type,
        /// [`Error::OutOfRange`] for an integer that does not fit.
        pub fn $require(&self, key: &str) -> Result<$ty> {
            self.$name(key)?.ok_or_else(|| Error::MissingKey { key: key.to_owned() })
        }
    )*};
}

impl Gguf {
    accessors! {
        /// A string.
        str require_str -> &str, |value, key| value.as_str().ok_or_else(|| wrong(key, "string", value));
        /// A u32, from any integer type whose value fits.
        u32 require_u32 -> u32, |value, key| integer(key, "u32", value);
        /// A u64, from any integer type whose value fits.
        u64 require_u64 -> u64, |value, key| integer(key, "u64", value);
        /// An i32, from any integer type whose value fits.
        i32 require_i32 -> i32, |value, key| integer(key, "i32", value);
        /// An f32; an f64 is rounded to the nearest.
        f32 require_f32 -> f32, |value, key| value.as_f32().ok_or_else(|| wrong(key, "f32", value));
        /// A boolean.
        bool require_bool -> bool, |value, key| value.as_bool().ok_or_else(|| wrong(key, "bool", value));
        /// An array of any type; its own iterators check the type of the elements.
        array require_array -> Array<'_>, |value, key| value.as_array().ok_or_else(|| wrong(key, "array", value));
    }
}

fn wrong(key: &str, expected: &'static str, value: Value<'_>) -> Error {
    Error::WrongType { key: key.to_owned(), expected, found: value.type_name() }
}

fn integer<T: TryFrom<i128>>(key: &str, expected: &'static str, value: Value<'_>) -> Result<T> {
    let value = value.as_integer().ok_or_else(|| wrong(key, expected, value))?;
    T::try_from(value).map_err(|_| Error::OutOfRange { key: key.to_owned(), expected, value })
}
