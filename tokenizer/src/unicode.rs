//! The character classes that pre-tokenizers speak of: `\p{L}`, `\p{N}`, `\p{P}` and `\s`.

mod table;

/// A character's class. The four named ones don't overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\p{P}`
    Punctuation,
    /// `\s`: the property White_Space
    Space,
    Other,
}

/// A run of characters of one class.
pub(crate) struct Range {
    first: u32,
    last: u32,
    class: Class,
}

const fn range(first: u32, last: u32, class: Class) -> Range {
    Range { first, last, class }
}

static ASCII: [Class; 128] = {
    let mut classes = [Class::Other; 128];
    let mut byte = 0;
    while byte < 128 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
            b'0'..=b'9' => Class::Number,
            b'\t'..=b'\r' | b' ' => Class::Space,
            b'$' | b'+' | b'<'..=b'>' | b'^' | b'`' | b'|' | b'~' => Class::Other,
            b'!'..=b'~' => Class::Punctuation,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

/// The class of a character.
pub(crate) fn class(c: char) -> Class {
    let code = u32::from(c);
    if code < 128 {
        return ASCII[code as usize];
    }
    let after = table::RANGES.partition_point(|range| range.first <= code);
    match after.checked_sub(1).map(|i| &table::RANGES[i]) {
        Some(range) if code <= range.last => range.class,
        _ => Class::Other,
    }
}

/// The first character of `text` with its class and length in bytes.
#[inline]
pub(crate) fn first(text: &str) -> Option<(char, Class, usize)> {
    match text.as_bytes().first() {
        Some(&byte) if byte < 128 => Some((char::from(byte), ASCII[usize::from(byte)], 1)),
        _ => text.chars().next().map(|c| (c, class(c), c.len_utf8())),
    }
}

/// Bytes at the beginning of `text` whose characters are of a class that `accept` takes.
#[inline]
pub(crate) fn run(text: &str, accept: impl Fn(Class) -> bool) -> usize {
    let mut end = 0;
    while let Some((_, class, len)) = first(&text[end..]) {
        if !accept(class) {
            break;
        }
        end += len;
    }
    end
}

#[cfg(test)]
#[path = "unicode/tests.rs"]
mod tests;
