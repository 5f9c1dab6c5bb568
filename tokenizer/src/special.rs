//! Tokens that are found in text as they are spelt, before anything else is done to it.

use crate::vocabulary::Vocabulary;

/// A set of such tokens, sorted by text, so that the longest one at a place is found by narrowing a range.
#[derive(Debug)]
pub(crate) struct Specials {
    ids: Vec<u32>,
    /// Whether a token begins with this byte.
    first: [bool; 256],
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'t> {
    Text(&'t str),
    Token(u32),
}

impl Specials {
    /// The set of `ids`, all of them tokens of `vocabulary`; an empty text is never found.
    pub(crate) fn new(vocabulary: &Vocabulary, ids: impl Iterator<Item = u32>) -> Self {
        let text = |id| vocabulary.bytes(id);
        let mut ids: Vec<u32> = ids.filter(|&id| !text(id).is_empty()).collect();
        // Stable: of two equal texts the lower id comes first.
        ids.sort_by_key(|&id| text(id));
        ids.dedup_by_key(|id| text(*id));
        let mut first = [false; 256];
        for byte in ids.iter().filter_map(|&id| text(id).first()) {
            first[usize::from(*byte)] = true;
        }
        Self { ids, first }
    }

    /// Cuts `text` at every token of the set: the leftmost first, of those at one place the longest.
    pub(crate) fn split<'t>(&self, vocabulary: &Vocabulary, text: &'t str, mut part: impl FnMut(Part<'t>)) {
        let mut start = 0;
        let mut at = 0;
        if self.ids.is_empty() {
            at = text.len();
        }
        while let Some(skip) = text.as_bytes()[at..].iter().position(|byte| self.first[usize::from(*byte)]) {
            at += skip;
            let Some((len, id)) = self.longest(vocabulary, &text.as_bytes()[at..]) else {
                at += 1;
                continue;
            };
            if at > start {
                part(Part::Text(&text[start..at]));
            }
            part(Part::Token(id));
            at += len;
            start = at;
        }
        if start < text.len() {
            part(Part::Text(&text[start..]));
        }
    }

    /// The longest token at the beginning of `text`, with its length in bytes. It begins and ends between
    /// characters, both being UTF-8.
    fn longest(&self, vocabulary: &Vocabulary, text: &[u8]) -> Option<(usize, u32)> {
        let spelling = |id: u32| vocabulary.bytes(id);
        let mut best = None;
        // All of these begin with the first `depth` bytes of the text.
        let mut range = self.ids.as_slice();
        let mut depth = 0;
        while let Some((&id, longer)) = range.split_first() {
            if spelling(id).len() == depth {
                best = Some((depth, id));
                range = longer;
                continue;
            }
            let Some(&byte) = text.get(depth) else { break };
            let from = range.partition_point(|&id| spelling(id)[depth] < byte);
            let to = range.partition_point(|&id| spelling(id)[depth] <= byte);
            range = &range[from..to];
            depth += 1;
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::TokenType;

    #[test]
    fn leftmost_longest_and_nothing_lost() {
        let mut vocabulary = Vocabulary::default();
        for text in ["<s>", "<s>x", "", "é", "<|a|>", "<s>"] {
            vocabulary.push(text, TokenType::Control, 0.0).unwrap();
        }
        let specials = Specials::new(&vocabulary, 0..6);
        let split = |text| {
            let mut parts = Vec::new();
            specials.split(&vocabulary, text, |part| parts.push(part));
            parts
        };
        use Part::{Text, Token};
        assert_eq!(split("<s>xy<s><"), [Token(1), Text("y"), Token(0), Text("<")]);
        assert_eq!(split("aéè<|a|"), [Text("a"), Token(3), Text("è<|a|")]);
        assert_eq!(split("<|a|><s"), [Token(4), Text("<s")]);
        assert_eq!(split(""), []);
        let none = Specials::new(&vocabulary, std::iter::empty());
        none.split(&vocabulary, "<s>", |part| assert_eq!(part, Text("<s>")));
    }
}
