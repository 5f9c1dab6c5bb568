//! SentencePiece BPE as in Llama 2: characters merged by the score of what they make, bytes for the rest.

use crate::hash::NONE;
use crate::merge::{Merger, stretches};
use crate::vocabulary::Vocabulary;

/// What a space is in the vocabulary: U+2581.
pub(crate) const SPACE: &str = "\u{2581}";

#[derive(Debug)]
pub(crate) struct Spm {
    /// The token of each byte, or [`NONE`].
    bytes: [u32; 256],
    /// Stands for a character that has neither a token nor bytes; without it such a character is left out.
    unknown: Option<u32>,
    /// No token goes on after a word with the space before the next one: then words can be merged one by one, with
    /// the same result.
    by_word: bool,
}

impl Spm {
    pub(crate) fn new(vocabulary: &Vocabulary, unknown: Option<u32>) -> Self {
        let mut bytes = [NONE; 256];
        for (byte, slot) in (0..=u8::MAX).zip(&mut bytes) {
            // An ASCII character that is a token serves where there's no byte token.
            let raw = || if byte.is_ascii() { vocabulary.plain_id(&[byte]) } else { None };
            *slot = vocabulary.id(&format!("<0x{byte:02X}>")).or_else(raw).unwrap_or(NONE);
        }
        let crosses = |(id, _)| vocabulary.text(id).is_some_and(|text| word_end(text) < text.len());
        let by_word = !vocabulary.types().any(crosses);
        Self { bytes, unknown, by_word }
    }

    /// Appends the tokens of `text`, to which a space is put in front if `prefix` says so.
    pub(crate) fn encode(&self, text: &str, prefix: bool, vocabulary: &Vocabulary, out: &mut Vec<u32>) {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2 + SPACE.len());
        if prefix {
            escaped.push_str(SPACE);
        }
        for (i, part) in text.split(' ').enumerate() {
            if i > 0 {
                escaped.push_str(SPACE);
            }
            escaped.push_str(part);
        }
        let mut merger = Merger::default();
        for mut text in stretches(&escaped) {
            while !text.is_empty() {
                let (word, rest) = text.split_at(if self.by_word { word_end(text) } else { text.len() });
                self.merge(word, &mut merger, vocabulary, out);
                text = rest;
            }
        }
    }

    fn merge(&self, text: &str, merger: &mut Merger, vocabulary: &Vocabulary, out: &mut Vec<u32>) {
        let bytes = text.as_bytes();
        merger.clear();
        let mut buffer = [0; 4];
        for c in text.chars() {
            let c = c.encode_utf8(&mut buffer).as_bytes();
            merger.push(vocabulary.plain_id(c).unwrap_or(NONE), c.len() as u32);
        }
        merger.merge(|left, right| {
            let both = &bytes[left.start as usize..right.start as usize + right.len as usize];
            let id = vocabulary.plain_id(both)?;
            Some((descending(vocabulary.score(id)), id))
        });
        for symbol in merger.symbols() {
            if symbol.id != NONE {
                out.push(symbol.id);
                continue;
            }
            let start = symbol.start as usize;
            let ids =
                bytes[start..start + symbol.len as usize].iter().map(|&byte| self.bytes[usize::from(byte)]);
            if ids.clone().all(|id| id != NONE) {
                out.extend(ids);
            } else {
                out.extend(self.unknown);
            }
        }
    }
}

/// Where the first word of `text` ends: before the first space that doesn't follow another one.
fn word_end(text: &str) -> usize {
    let spaces = text.len() - text.trim_start_matches(SPACE).len();
    text[spaces..].find(SPACE).map_or(text.len(), |end| spaces + end)
}

/// A number that is the lower, the higher the score; NaN comes last.
fn descending(score: f32) -> u32 {
    if score.is_nan() {
        return u32::MAX;
    }
    // IEEE bits order like integers once negative ones are flipped; adding zero makes -0 and 0 one.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

/// The byte that a token of type byte stands for: `<0x0A>`, or a text of one byte.
pub(crate) fn byte_of(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [b'<', b'0', b'x', _, _, b'>'] => u8::from_str_radix(text.get(3..5)?, 16).ok(),
        [byte] => Some(*byte),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::TokenType;

    #[test]
    fn priorities_follow_scores_downwards() {
        let scores = [f32::INFINITY, 3.5, 1e-40, 0.0, -1e-40, -2.0, -1e9, f32::NEG_INFINITY, f32::NAN];
        assert!(scores.map(descending).is_sorted());
        assert_eq!(descending(0.0), descending(-0.0));
    }

    #[test]
    fn merging_by_word_changes_nothing() {
        let mut vocabulary = Vocabulary::default();
        let tokens = [
            ("\u{2581}", -1.0),
            ("a", -2.0),
            ("b", -3.0),
            ("\u{2581}a", -4.0),
            ("ab", -3.5),
            ("\u{2581}ab", -9.0),
        ];
        for (text, score) in
            tokens.into_iter().chain([("\u{2581}\u{2581}", -1.5), ("\u{2581}\u{2581}\u{2581}", -8.0)])
        {
            vocabulary.push(text, TokenType::Normal, score).unwrap();
        }
        let words = Spm::new(&vocabulary, None);
        assert!(words.by_word);
        let whole = Spm { by_word: false, ..Spm::new(&vocabulary, None) };
        let encode = |spm: &Spm, text: &str| {
            let mut out = Vec::new();
            spm.encode(text, true, &vocabulary, &mut out);
            out
        };
        for code in 0..3_u32.pow(9) {
            let text: String = (0..9).map(|i| [' ', 'a', 'b'][(code / 3_u32.pow(i) % 3) as usize]).collect();
            assert_eq!(encode(&words, &text), encode(&whole, &text), "{text:?}");
        }
        vocabulary.push("b\u{2581}", TokenType::Normal, -1.0).unwrap();
        assert!(!Spm::new(&vocabulary, None).by_word);
    }

    #[test]
    fn byte_tokens() {
        assert_eq!(
            ["<0x0A>", "<0xfF>", "a", "<0x0G>", "<0x>", "ab", "<0xé>"].map(byte_of),
            [Some(10), Some(255), Some(b'a'), None, None, None, None]
        );
    }
}
