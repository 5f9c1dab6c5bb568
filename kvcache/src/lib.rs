//! Paged memory of sequences: what a language model remembers.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod cache;
mod error;
mod layout;
mod pool;
mod prefix_tree;

pub use cache::{KvCache, SequenceId, Stats};
pub use error::{Error, Half};
pub use layout::{KvType, LayerShape};
/// Positions in a page.
pub use quant_kernels::attention::PAGE;
