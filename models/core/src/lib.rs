//! Loader, layers and decoder loop that every architecture is built from.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod attention;
mod balance;
mod context;
mod decoder;
mod error;
mod feed_forward;
mod info;
mod layer;
mod loader;
mod matrix;
mod probe;
mod rope;
mod rows;
mod span;

pub use attention::Attention;
pub use context::Context;
pub use decoder::{Decoder, Parts};
pub use error::Error;
pub use feed_forward::GatedMlp;
pub use info::ModelInfo;
pub use layer::{FeedForward, Layer, Mixer, RmsNorm};
pub use loader::Loader;
pub use matrix::{Linear, Matrix};
pub use probe::{NoProbe, Point, Probe};
pub use span::{LogitsWanted, Span};
