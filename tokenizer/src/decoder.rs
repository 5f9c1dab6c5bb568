//! Tokens to text one at a time, never splitting a character.

use crate::tokenizer::Tokenizer;
use crate::vocabulary::TokenType;

/// What a streaming decoder remembers. It borrows nothing, so it can live beside the tokenizer; [`Decoder`] is the
/// same with the tokenizer at hand.
#[derive(Debug, Clone)]
pub struct DecoderState {
    /// The beginning of a character whose end is still to come: at most three bytes.
    pending: Vec<u8>,
    /// The next piece begins a stretch of text, to which encoding put a space in front.
    fresh: bool,
    show_special: bool,
}

impl Default for DecoderState {
    fn default() -> Self {
        Self::new()
    }
}

impl DecoderState {
    /// For a whole text, from its first token.
    pub fn new() -> Self {
        Self { pending: Vec::new(), fresh: true, show_special: false }
    }

    /// For what follows `prompt`.
    pub fn after(tokenizer: &Tokenizer, prompt: &[u32]) -> Self {
        let fresh = prompt.last().is_none_or(|&id| begins_stretch(tokenizer, id));
        Self { fresh, ..Self::new() }
    }

    /// Whether control and unknown tokens appear as the vocabulary spells them; else they give nothing.
    #[must_use]
    pub fn show_special(mut self, show: bool) -> Self {
        self.show_special = show;
        self
    }

    /// The text that is certain after one more token: often empty in the middle of a character.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        let mut text = String::new();
        self.push_into(tokenizer, id, &mut text);
        text
    }

    /// Like [`push`](Self::push), appending to `text`.
    pub fn push_into(&mut self, tokenizer: &Tokenizer, id: u32, text: &mut String) {
        let Some(token_type) = tokenizer.token_type(id) else { return };
        let fresh = std::mem::replace(&mut self.fresh, begins_stretch(tokenizer, id));
        let hidden = token_type == TokenType::Unused || (token_type.is_special() && !self.show_special);
        if hidden {
            return;
        }
        let Some(bytes) = tokenizer.token_bytes(id) else { return };
        let mut bytes = &*bytes;
        if fresh && tokenizer.add_space_prefix() && token_type == TokenType::Normal {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        if self.pending.is_empty() {
            let used = emit(bytes, text);
            self.pending.extend_from_slice(&bytes[used..]);
        } else {
            self.pending.extend_from_slice(bytes);
            let used = emit(&self.pending, text);
            self.pending.drain(..used);
        }
    }

    /// Ends the text: a character that never became whole is U+FFFD.
    pub fn finish(&mut self) -> String {
        self.fresh = true;
        let rest = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// Whether encoding puts a space in front of the text after this token.
fn begins_stretch(tokenizer: &Tokenizer, id: u32) -> bool {
    tokenizer.token_type(id).is_some_and(|t| t.is_special() || t == TokenType::UserDefined)
}

/// Appends what is certain of `bytes` to `text` and returns how many bytes that took: all but the beginning of a
/// character at the end. Wrong bytes give U+FFFD as in [`String::from_utf8_lossy`].
fn emit(bytes: &[u8], text: &mut String) -> usize {
    let mut used = 0;
    loop {
        match std::str::from_utf8(&bytes[used..]) {
            Ok(valid) => {
                text.push_str(valid);
                return bytes.len();
            }
            Err(error) => {
                let valid = used + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[used..valid]));
                let Some(wrong) = error.error_len() else { return valid };
                text.push(char::REPLACEMENT_CHARACTER);
                used = valid + wrong;
            }
        }
    }
}

/// A streaming decoder.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    tokenizer: &'a Tokenizer,
    state: DecoderState,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer, state: DecoderState) -> Self {
        Self { tokenizer, state }
    }

    /// Whether control and unknown tokens appear as the vocabulary spells them; else they give nothing.
    #[must_use]
    pub fn show_special(mut self, show: bool) -> Self {
        self.state = self.state.show_special(show);
        self
    }

    /// The text that is certain after one more token: often empty in the middle of a character.
    pub fn push(&mut self, id: u32) -> String {
        self.state.push(self.tokenizer, id)
    }

    /// Ends the text: a character that never became whole is U+FFFD.
    pub fn finish(&mut self) -> String {
        self.state.finish()
    }
}
