//! Text to tokens and back, from the vocabulary in a GGUF file.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod bpe;
mod bytes;
mod config;
mod decoder;
mod error;
mod hash;
mod merge;
mod metadata;
mod pre;
mod special;
mod spm;
mod tokenizer;
mod unicode;
mod vocabulary;

pub use config::Config;
pub use decoder::{Decoder, DecoderState};
pub use error::Error;
pub use tokenizer::Tokenizer;
pub use vocabulary::{TokenType, Vocabulary};
