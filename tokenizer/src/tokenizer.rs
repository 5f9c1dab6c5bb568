//! The tokenizer: a vocabulary, its algorithm and its special tokens.

use std::borrow::Cow;

use crate::bpe::Bpe;
use crate::bytes::unspell;
use crate::config::{Config, Kind};
use crate::decoder::{Decoder, DecoderState};
use crate::error::Error;
use crate::special::{Part, Specials};
use crate::spm::{SPACE, Spm, byte_of};
use crate::vocabulary::{TokenType, Vocabulary};

/// Text to tokens and back. It doesn't change once built, so threads share it.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    algorithm: Algorithm,
    model: &'static str,
    pre: &'static str,
    bos: Option<u32>,
    eos: Option<u32>,
    eot: Option<u32>,
    eom: Option<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
    stop: Vec<u32>,
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
    /// Always found in text.
    user_defined: Specials,
    /// Those and control tokens, when the caller trusts the text.
    all_specials: Specials,
}

#[derive(Debug)]
enum Algorithm {
    Bpe(Box<Bpe>),
    Spm(Box<Spm>),
}

impl Tokenizer {
    /// Builds a tokenizer from its parts. `merges` are lines of two tokens with a space between, best first;
    /// SentencePiece has none.
    ///
    /// # Errors
    /// If the model or pre-tokenizer isn't supported, or the parts contradict each other: see [`Error`].
    pub fn new<'a, M>(config: &Config, vocabulary: Vocabulary, merges: M) -> Result<Self, Error>
    where
        M: IntoIterator<Item = &'a str, IntoIter: ExactSizeIterator>,
    {
        if vocabulary.is_empty() {
            return Err(Error::Empty);
        }
        let kind = config.kind()?;
        let is_spm = matches!(kind, Kind::Spm);
        let id = |key, id: Option<u32>, default: Option<(u32, TokenType)>| {
            special_id(&vocabulary, key, id, default.filter(|_| is_spm))
        };
        // SentencePiece files may leave out the usual three, which every Llama 2 vocabulary has.
        let unknown = id(UNKNOWN_KEY, config.unknown, Some((0, TokenType::Unknown)))?;
        let bos = id(BOS_KEY, config.bos, Some((1, TokenType::Control)))?;
        let eos = id(EOS_KEY, config.eos, Some((2, TokenType::Control)))?;
        let eot = id("tokenizer.ggml.eot_token_id", config.eot, None)?;
        let eom = id("tokenizer.ggml.eom_token_id", config.eom, None)?;
        let padding = id("tokenizer.ggml.padding_token_id", config.padding, None)?;

        let (algorithm, model, pre, default_add_bos) = match kind {
            Kind::Spm => (Algorithm::Spm(Box::new(Spm::new(&vocabulary, unknown))), "llama", "", true),
            Kind::Bpe(pre, name) => {
                let bpe = Bpe::new(&vocabulary, merges.into_iter(), pre, unknown)?;
                (Algorithm::Bpe(Box::new(bpe)), "gpt2", name, pre.add_bos)
            }
        };
        let adds = |flag, wish: Option<bool>, default: bool, key, id: Option<u32>| match (wish, id) {
            (Some(true), None) => Err(Error::MissingSpecial { flag, key }),
            _ => Ok(wish.unwrap_or(default) && id.is_some()),
        };
        let add_bos = adds("tokenizer.ggml.add_bos_token", config.add_bos, default_add_bos, BOS_KEY, bos)?;
        let add_eos = adds("tokenizer.ggml.add_eos_token", config.add_eos, false, EOS_KEY, eos)?;

        let mut stop: Vec<u32> = [eos, eot, eom].into_iter().flatten().collect();
        stop.sort_unstable();
        stop.dedup();
        let of = |accept: fn(TokenType) -> bool| {
            vocabulary.types().filter(move |(_, token_type)| accept(*token_type)).map(|(id, _)| id)
        };
        let user_defined = Specials::new(&vocabulary, of(|t| t == TokenType::UserDefined));
        let all_specials = Specials::new(&vocabulary, of(|t| t == TokenType::UserDefined || t.is_special()));
        Ok(Self {
            algorithm,
            model,
            pre,
            bos,
            eos,
            eot,
            eom,
            unknown,
            padding,
            stop,
            add_bos,
            add_eos,
            add_space_prefix: is_spm && config.add_space_prefix.unwrap_or(true),
            user_defined,
            all_specials,
            vocabulary,
        })
    }

    /// The tokens of `text`.
    ///
    /// `add_special` puts BOS in front and EOS behind where the file wants that. `parse_special` makes control
    /// tokens of their spelling in the text: only for text that the caller trusts, such as a chat template.
    /// User-defined tokens are found always.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<u32> {
        let mut out = Vec::with_capacity(text.len() / 3 + 2);
        if add_special && self.add_bos {
            out.extend(self.bos);
        }
        let specials = if parse_special { &self.all_specials } else { &self.user_defined };
        // SentencePiece puts its space before the text and after each token that was found in it.
        let mut fresh = true;
        specials.split(&self.vocabulary, text, |part| match part {
            Part::Token(id) => {
                out.push(id);
                fresh = true;
            }
            Part::Text(text) => {
                match &self.algorithm {
                    Algorithm::Bpe(bpe) => bpe.encode(text, &self.vocabulary, &mut out),
                    Algorithm::Spm(spm) => {
                        spm.encode(text, self.add_space_prefix && fresh, &self.vocabulary, &mut out);
                    }
                }
                fresh = false;
            }
        });
        if add_special && self.add_eos {
            out.extend(self.eos);
        }
        out
    }

    /// The text of `ids`, taken as a whole text: the space that SentencePiece puts in front is taken away again.
    /// Control and unknown tokens and ids outside the vocabulary give nothing; bytes that aren't UTF-8 give U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.decode_with(ids, DecoderState::new())
    }

    /// Like [`decode`](Self::decode), with control and unknown tokens as the vocabulary spells them.
    pub fn decode_special(&self, ids: &[u32]) -> String {
        self.decode_with(ids, DecoderState::new().show_special(true))
    }

    fn decode_with(&self, ids: &[u32], mut state: DecoderState) -> String {
        let mut text = String::with_capacity(ids.len() * 4);
        for &id in ids {
            state.push_into(self, id, &mut text);
        }
        text + &state.finish()
    }

    /// A streaming decoder for a whole text, from its first token.
    pub fn decoder(&self) -> Decoder<'_> {
        Decoder::new(self, DecoderState::new())
    }

    /// A streaming decoder for what follows `prompt`: " a time" after "Once upon" keeps its space.
    pub fn decoder_after(&self, prompt: &[u32]) -> Decoder<'_> {
        Decoder::new(self, DecoderState::after(self, prompt))
    }

    /// The bytes that a token stands for: raw ones, which needn't be UTF-8 alone; for special and user-defined
    /// tokens their spelling. `None` outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        let text = self.vocabulary.text(id)?;
        let token_type = self.vocabulary.token_type(id)?;
        if token_type == TokenType::Byte
            && let Some(byte) = byte_of(text)
        {
            return Some(Cow::Owned(vec![byte]));
        }
        if token_type != TokenType::Normal {
            return Some(Cow::Borrowed(text.as_bytes()));
        }
        Some(match self.algorithm {
            Algorithm::Spm(_) if !text.contains(SPACE) => Cow::Borrowed(text.as_bytes()),
            Algorithm::Spm(_) => Cow::Owned(text.replace(SPACE, " ").into_bytes()),
            Algorithm::Bpe(_) => {
                let mut bytes = Vec::with_capacity(text.len());
                unspell(text, &mut bytes);
                Cow::Owned(bytes)
            }
        })
    }

    /// A token as the file spells it.
    pub fn token_text(&self, id: u32) -> Option<&str> {
        self.vocabulary.text(id)
    }

    /// A token's type.
    pub fn token_type(&self, id: u32) -> Option<TokenType> {
        self.vocabulary.token_type(id)
    }

    /// The token that the file spells so (in the spelling of [`token_text`](Self::token_text)).
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.vocabulary.id(text)
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// Whether a token steers the model and is no text.
    pub fn is_control(&self, id: u32) -> bool {
        self.token_type(id) == Some(TokenType::Control)
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token that ends a turn.
    pub fn eot(&self) -> Option<u32> {
        self.eot
    }

    /// The token that ends a message.
    pub fn eom(&self) -> Option<u32> {
        self.eom
    }

    /// The token for text that no other covers.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// The token that fills batches up.
    pub fn padding(&self) -> Option<u32> {
        self.padding
    }

    /// The tokens after which generation stops, by the file's own metadata: EOS, EOT and EOM, ascending.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop
    }

    /// Whether [`encode`](Self::encode) begins with BOS when asked to add special tokens.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether [`encode`](Self::encode) ends with EOS when asked to add special tokens.
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }

    /// Whether a text begins with a space that isn't there.
    pub fn add_space_prefix(&self) -> bool {
        self.add_space_prefix
    }

    /// `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
    pub fn model(&self) -> &str {
        self.model
    }

    /// The pre-tokenizer's name; empty for SentencePiece, which has none.
    pub fn pre(&self) -> &str {
        self.pre
    }
}

const BOS_KEY: &str = "tokenizer.ggml.bos_token_id";
const EOS_KEY: &str = "tokenizer.ggml.eos_token_id";
const UNKNOWN_KEY: &str = "tokenizer.ggml.unknown_token_id";

/// Checks an id from the file. Converters write -1 for "none". An absent one falls back to `default` if that token
/// has the type that belongs there.
fn special_id(
    vocabulary: &Vocabulary,
    key: &'static str,
    id: Option<u32>,
    default: Option<(u32, TokenType)>,
) -> Result<Option<u32>, Error> {
    match id {
        None => Ok(default.filter(|&(id, kind)| vocabulary.token_type(id) == Some(kind)).map(|(id, _)| id)),
        Some(u32::MAX) => Ok(None),
        Some(id) if (id as usize) < vocabulary.len() => Ok(Some(id)),
        Some(id) => Err(Error::SpecialId { key, id, vocab: vocabulary.len() }),
    }
}
