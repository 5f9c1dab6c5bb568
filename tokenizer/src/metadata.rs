//! From a GGUF file to a tokenizer.

use quant_gguf::Gguf;

use crate::config::{Config, Kind};
use crate::error::Error;
use crate::tokenizer::Tokenizer;
use crate::vocabulary::{TokenType, Vocabulary};

impl Tokenizer {
    /// Reads the `tokenizer.ggml.*` keys of a file.
    ///
    /// # Errors
    /// If a key is missing or of the wrong type, if the arrays contradict each other, or if the file names an
    /// algorithm that isn't supported: see [`Error`].
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, Error> {
        let config = Config {
            model: gguf.require_str("tokenizer.ggml.model")?.to_owned(),
            pre: gguf.str("tokenizer.ggml.pre")?.map(str::to_owned),
            bos: id(gguf, "tokenizer.ggml.bos_token_id")?,
            eos: id(gguf, "tokenizer.ggml.eos_token_id")?,
            eot: id(gguf, "tokenizer.ggml.eot_token_id")?,
            eom: id(gguf, "tokenizer.ggml.eom_token_id")?,
            unknown: id(gguf, "tokenizer.ggml.unknown_token_id")?,
            padding: id(gguf, "tokenizer.ggml.padding_token_id")?,
            add_bos: gguf.bool("tokenizer.ggml.add_bos_token")?,
            add_eos: gguf.bool("tokenizer.ggml.add_eos_token")?,
            add_space_prefix: gguf.bool("tokenizer.ggml.add_space_prefix")?,
        };
        match config.kind()? {
            Kind::Spm => Self::new(&config, vocabulary(gguf)?, []),
            Kind::Bpe(..) => {
                let merges = gguf.require_array("tokenizer.ggml.merges")?.strs()?;
                Self::new(&config, vocabulary(gguf)?, merges)
            }
        }
    }
}

/// The id under `key`; -1, which some converters write for "none", is none.
fn id(gguf: &Gguf, key: &str) -> Result<Option<u32>, Error> {
    if gguf.get(key).and_then(|value| value.as_integer()) == Some(-1) {
        return Ok(None);
    }
    Ok(gguf.u32(key)?)
}

fn vocabulary(gguf: &Gguf) -> Result<Vocabulary, Error> {
    let tokens = gguf.require_array("tokenizer.ggml.tokens")?.strs()?;
    let len = tokens.len();
    let same =
        |key, found| if found == len { Ok(()) } else { Err(Error::Length { key, found, tokens: len }) };

    const TYPES: &str = "tokenizer.ggml.token_type";
    let types = gguf.array(TYPES)?.map(|array| array.ints()).transpose()?;
    if let Some(types) = &types {
        same(TYPES, types.len())?;
    }
    const SCORES: &str = "tokenizer.ggml.scores";
    // A few converters wrote whole numbers.
    let (mut floats, mut integers) = (None, None);
    if let Some(array) = gguf.array(SCORES)? {
        same(SCORES, array.len())?;
        match array.element_type().is_integer() {
            true => integers = Some(array.i32s()?),
            false => floats = Some(array.f32s()?),
        }
    }
    let mut scores =
        floats.into_iter().flatten().chain(integers.into_iter().flatten().map(|score| score as f32));
    let mut types = types.into_iter().flatten();

    let mut vocabulary = Vocabulary::with_capacity(len);
    for (index, text) in tokens.enumerate() {
        let token_type = match types.next() {
            None => TokenType::Normal,
            Some(value) => TokenType::from_gguf(value).ok_or(Error::TokenType { index, value })?,
        };
        vocabulary.push(text, token_type, scores.next().unwrap_or(0.0))?;
    }
    Ok(vocabulary)
}
