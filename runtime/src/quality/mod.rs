//! How good a model is on a text, and how far a KV cache, a quantized file or a mode strays from a reference.
//!
//! The text is cut into chunks of equal length, each evaluated from an empty cache with the begin token in its first
//! place; the second half of a chunk is scored, so that every scored position has seen at least half a chunk. That is
//! how llama.cpp's perplexity tool does it, and the figures agree with its.
//!
//! - Perplexity: `exp` of the mean negative log-likelihood of the next token, with its standard error.
//! - Divergence: the Kullback-Leibler divergence from the reference's distribution to the candidate's, in nats, position
//!   by position. Where perplexities differ by less than their errors, it still tells candidates apart.
//!
//! Reference and candidates advance side by side, some positions at a time: memory does not grow with the text.

mod chunks;
mod logits_file;
mod measure;
mod statistics;

pub use chunks::Chunks;
pub use logits_file::{LogitsReader, LogitsWriter};
pub use measure::{Measured, Quality, Reference, compare_saved, measure};
pub use statistics::{Divergence, Perplexity};
