//! The token list: texts in one arena, types, scores, and the index from text to id.

use crate::error::Error;
use crate::hash::{MAX_TOKENS, TextIndex};

/// What a token is for (`tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenType {
    /// A piece of text.
    Normal,
    /// Stands for text that no token covers.
    Unknown,
    /// Steers the model; text never becomes it unless the caller asks for that.
    Control,
    /// Added by the model's authors: found in text before anything else.
    UserDefined,
    /// A hole in the id space.
    Unused,
    /// One raw byte, spelt `<0x00>` to `<0xFF>` (SentencePiece).
    Byte,
}

impl TokenType {
    /// The type with the number that GGUF uses; 0 (undefined) counts as unused.
    pub fn from_gguf(value: i64) -> Option<Self> {
        Some(match value {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            0 | 5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// Control and unknown tokens: neither made from plain text nor shown in decoded text.
    pub(crate) fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// A token list. Ids are given in the order of [`push`](Self::push), from 0.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    text: String,
    /// End of each token's text; it begins where the one before ends.
    ends: Vec<u32>,
    types: Vec<TokenType>,
    /// Empty while every score is zero.
    scores: Vec<f32>,
    index: TextIndex,
    longest: usize,
}

impl Vocabulary {
    /// An empty list with room for `tokens` tokens.
    pub fn with_capacity(tokens: usize) -> Self {
        let tokens = tokens.min(MAX_TOKENS);
        Self {
            text: String::with_capacity(tokens * 8),
            ends: Vec::with_capacity(tokens),
            types: Vec::with_capacity(tokens),
            scores: Vec::new(),
            index: TextIndex::with_capacity(tokens),
            longest: 0,
        }
    }

    /// Adds a token; `score` orders the merges of a SentencePiece vocabulary (higher first), others ignore it.
    /// Of two tokens with the same text the first is the one that text becomes; an empty text is never found.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond 2^24 - 2 tokens or 4 GiB of text.
    pub fn push(&mut self, text: &str, token_type: TokenType, score: f32) -> Result<u32, Error> {
        let id = self.ends.len();
        if id >= MAX_TOKENS {
            return Err(Error::TooLarge { what: "tokens", limit: MAX_TOKENS });
        }
        let end = self.text.len().checked_add(text.len()).and_then(|end| u32::try_from(end).ok());
        let end = end.ok_or(Error::TooLarge { what: "bytes", limit: u32::MAX as usize })?;
        self.text.push_str(text);
        self.ends.push(end);
        self.types.push(token_type);
        if score != 0.0 && self.scores.is_empty() {
            self.scores.resize(id, 0.0);
        }
        if score != 0.0 || !self.scores.is_empty() {
            self.scores.push(score);
        }
        self.longest = self.longest.max(text.len());
        // At most MAX_TOKENS, see above.
        let id = id as u32;
        if !text.is_empty() {
            let Self { index, text: arena, ends, .. } = self;
            index.insert(text.as_bytes(), id, |id| &arena.as_bytes()[span(ends, id)]);
        }
        Ok(id)
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// A token's text as the file spells it, or `None` for an id outside the vocabulary.
    pub fn text(&self, id: u32) -> Option<&str> {
        ((id as usize) < self.ends.len()).then(|| &self.text[span(&self.ends, id)])
    }

    /// A token's type.
    pub fn token_type(&self, id: u32) -> Option<TokenType> {
        self.types.get(id as usize).copied()
    }

    /// A token's score: zero where the file has none.
    pub fn score(&self, id: u32) -> f32 {
        self.scores.get(id as usize).copied().unwrap_or(0.0)
    }

    /// The token with this text.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.id_of_bytes(text.as_bytes())
    }

    pub(crate) fn id_of_bytes(&self, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > self.longest {
            return None;
        }
        self.index.get(bytes, |id| self.bytes(id))
    }

    /// The bytes of a token's text; the caller knows the token to be there.
    pub(crate) fn bytes(&self, id: u32) -> &[u8] {
        &self.text.as_bytes()[span(&self.ends, id)]
    }

    /// Like [`id`](Self::id), for text that a user wrote: never a control, unknown or byte token.
    pub(crate) fn plain_id(&self, bytes: &[u8]) -> Option<u32> {
        self.id_of_bytes(bytes).filter(|&id| {
            !matches!(self.types[id as usize], TokenType::Control | TokenType::Unknown | TokenType::Byte)
        })
    }

    /// Every id with its type.
    pub(crate) fn types(&self) -> impl Iterator<Item = (u32, TokenType)> + '_ {
        (0..).zip(self.types.iter().copied())
    }
}

/// Where the text of token `id` lies, which the caller knows to be there.
fn span(ends: &[u32], id: u32) -> std::ops::Range<usize> {
    let id = id as usize;
    let start = if id == 0 { 0 } else { ends[id - 1] };
    start as usize..ends[id] as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_of_equal_tokens_wins_and_scores_are_lazy() {
        let mut vocabulary = Vocabulary::default();
        for text in ["", "a", "b", "a"] {
            vocabulary.push(text, TokenType::Normal, 0.0).unwrap();
        }
        assert!(vocabulary.scores.is_empty());
        vocabulary.push("c", TokenType::Control, -1.5).unwrap();
        assert_eq!((vocabulary.id("a"), vocabulary.id("b"), vocabulary.id("")), (Some(1), Some(2), None));
        assert_eq!((vocabulary.text(3), vocabulary.text(5)), (Some("a"), None));
        assert_eq!((vocabulary.score(0), vocabulary.score(4), vocabulary.score(9)), (0.0, -1.5, 0.0));
        assert_eq!((vocabulary.id("c"), vocabulary.plain_id(b"c")), (Some(4), None));
    }
}
