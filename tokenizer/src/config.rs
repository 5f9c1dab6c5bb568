//! What a file says about its vocabulary, apart from the tokens themselves.

use crate::error::Error;
use crate::pre::{self, PreTokenizer};

/// The `tokenizer.ggml.*` values that aren't arrays. `None` is an absent key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// `model`: `gpt2` is byte-level BPE, `llama` SentencePiece BPE.
    pub model: String,
    /// `pre`: the pre-tokenizer of byte-level BPE.
    pub pre: Option<String>,
    /// `bos_token_id`: begins a text.
    pub bos: Option<u32>,
    /// `eos_token_id`: ends a text.
    pub eos: Option<u32>,
    /// `eot_token_id`: ends a turn.
    pub eot: Option<u32>,
    /// `eom_token_id`: ends a message.
    pub eom: Option<u32>,
    /// `unknown_token_id`: stands for what no token covers.
    pub unknown: Option<u32>,
    /// `padding_token_id`: fills batches up.
    pub padding: Option<u32>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`.
    pub add_eos: Option<bool>,
    /// `add_space_prefix`: a text begins with a space that isn't there (SentencePiece).
    pub add_space_prefix: Option<bool>,
}

/// The algorithm that a configuration asks for.
pub(crate) enum Kind {
    /// Byte-level BPE with that pre-tokenizer, under the name that the file gives it.
    Bpe(&'static PreTokenizer, &'static str),
    /// SentencePiece BPE.
    Spm,
}

impl Config {
    /// The algorithm, or why there is none: known before a single token is read.
    pub(crate) fn kind(&self) -> Result<Kind, Error> {
        match self.model.as_str() {
            "llama" => Ok(Kind::Spm),
            "gpt2" => {
                let name = self.pre.as_deref().unwrap_or("default");
                let (pre, name) = pre::by_name(name)
                    .ok_or_else(|| Error::UnsupportedPre { pre: name.to_owned(), supported: pre::names() })?;
                Ok(Kind::Bpe(pre, name))
            }
            _ => Err(Error::UnsupportedModel { model: self.model.clone(), supported: "gpt2, llama" }),
        }
    }
}
