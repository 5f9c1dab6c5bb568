//! Metadata arrays: views that decode on iteration.

use std::fmt;

use crate::cursor::{Cursor, Encoding};
use crate::{Error, Result, Value, ValueType};

/// An array in the metadata of a file. Nothing is decoded before it is iterated, and iteration allocates nothing:
/// a vocabulary of a quarter of a million strings costs what is read of it.
///
/// The file was checked when it was opened, so iteration can't fail. The typed iterators fail at once, before
/// the first element, if the array is of another type; the error names the key.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    pub(crate) key: &'a str,
    pub(crate) element: ValueType,
    pub(crate) len: usize,
    /// The elements as they lie in the file, all of them and nothing more.
    pub(crate) payload: &'a [u8],
    pub(crate) encoding: Encoding,
}

impl<'a> Array<'a> {
    /// The type of every element.
    pub fn element_type(&self) -> ValueType {
        self.element
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements, whatever their type.
    pub fn values(&self) -> Values<'a> {
        Values {
            key: self.key,
            element: self.element,
            left: self.len,
            cursor: Cursor::new(self.payload, self.encoding),
        }
    }

    /// The strings of an array of strings.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the elements are not strings.
    pub fn strs(&self) -> Result<impl ExactSizeIterator<Item = &'a str> + Clone + use<'a>> {
        self.check(self.element == ValueType::Str, "array of string")?;
        Ok(Strs { left: self.len, cursor: Cursor::new(self.payload, self.encoding) })
    }

    /// The booleans of an array of booleans.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the elements are not booleans.
    pub fn bools(&self) -> Result<impl ExactSizeIterator<Item = bool> + Clone + use<'a>> {
        self.check(self.element == ValueType::Bool, "array of bool")?;
        Ok(self.values().map(|value| value.as_bool().unwrap_or_default()))
    }

    /// The numbers of an array of f32 or f64, as f32.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the elements are not floats.
    pub fn f32s(&self) -> Result<impl ExactSizeIterator<Item = f32> + Clone + use<'a>> {
        self.check(matches!(self.element, ValueType::F32 | ValueType::F64), "array of f32")?;
        Ok(self.values().map(|value| value.as_f32().unwrap_or_default()))
    }

    /// The numbers of an array of any integer type.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the elements are not integers, [`Error::OutOfRange`] if one does not fit (possible
    /// with u64 alone).
    pub fn ints(&self) -> Result<impl ExactSizeIterator<Item = i64> + Clone + use<'a>> {
        self.integers("array of i64")
    }

    /// The numbers of an array of any integer type, each of which fits i32.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the elements are not integers, [`Error::OutOfRange`] if one does not fit.
    pub fn i32s(&self) -> Result<impl ExactSizeIterator<Item = i32> + Clone + use<'a>> {
        self.integers("array of i32")
    }

    /// The numbers of an array of any integer type, each of which fits u32.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the elements are not integers, [`Error::OutOfRange`] if one does not fit.
    pub fn u32s(&self) -> Result<impl ExactSizeIterator<Item = u32> + Clone + use<'a>> {
        self.integers("array of u32")
    }

    /// The arrays of an array of arrays.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the elements are not arrays.
    pub fn arrays(&self) -> Result<impl ExactSizeIterator<Item = Array<'a>> + Clone + use<'a>> {
        self.check(self.element == ValueType::Array, "array of array")?;
        let empty = Array { element: ValueType::U8, len: 0, payload: &[], ..*self };
        Ok(self.values().map(move |value| value.as_array().unwrap_or(empty)))
    }

    fn check(&self, fits: bool, expected: &'static str) -> Result<()> {
        if fits {
            return Ok(());
        }
        let found = Value::Array(*self).type_name();
        Err(Error::WrongType { key: self.key.to_owned(), expected, found })
    }

    /// The integers as `T`, after a pass over them that makes sure that each fits where their type does not.
    fn integers<T: TryFrom<i128> + Default>(
        &self,
        expected: &'static str,
    ) -> Result<impl ExactSizeIterator<Item = T> + Clone + use<'a, T>> {
        self.check(self.element.is_integer(), expected)?;
        let integer = |value: Value<'a>| value.as_integer().unwrap_or_default();
        let any_fits = self
            .element
            .integers()
            .is_some_and(|(least, most)| [least, most].map(T::try_from).iter().all(Result::is_ok));
        let misfit = || self.values().map(integer).find(|&value| T::try_from(value).is_err());
        if !any_fits && let Some(value) = misfit() {
            return Err(Error::OutOfRange { key: self.key.to_owned(), expected, value });
        }
        Ok(self.values().map(move |value| T::try_from(integer(value)).unwrap_or_default()))
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array({} of {})", self.len, self.element)
    }
}

impl PartialEq for Array<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.element == other.element && self.values().eq(other.values())
    }
}

/// The elements of an [`Array`].
#[derive(Clone)]
pub struct Values<'a> {
    key: &'a str,
    element: ValueType,
    left: usize,
    cursor: Cursor<'a>,
}

impl<'a> Values<'a> {
    fn decode(&mut self) -> Result<Value<'a>> {
        if self.element != ValueType::Array {
            return self.cursor.scalar(self.element, self.key);
        }
        let (element, len) = self.cursor.array_head(self.key)?;
        let rest = self.cursor.clone();
        // The depth was checked at opening; from here it can only be smaller.
        self.cursor.check_elements(element, len, 1, self.key)?;
        let payload = rest.clone().take((self.cursor.at() - rest.at()) as u64, "an array")?;
        Ok(Value::Array(Array { key: self.key, element, len, payload, encoding: rest.encoding }))
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        // Opening the file has decoded all of this once. Only a mapped file that someone changes meanwhile can
        // fail now, and then the array ends.
        let value = self.decode().ok();
        if value.is_none() {
            self.left = 0;
        }
        value
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Values<'_> {}

/// The elements of an [`Array`] of strings, without the detour by [`Value`].
#[derive(Clone)]
struct Strs<'a> {
    left: usize,
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Strs<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        let text = self.cursor.next_str();
        // As in `Values`: only a file that someone changes meanwhile can fail now.
        if text.is_none() {
            self.left = 0;
        }
        text
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Strs<'_> {}
