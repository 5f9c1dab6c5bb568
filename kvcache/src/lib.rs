//! Paged memory of sequences: what a language model remembers.
//!
#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod access;
mod aliases;
mod arena;
mod cache;
mod error;
mod hold;
mod layout;
mod pages;
mod plan;
mod policy;
mod prefix_tree;
mod prefixes;
pub mod presets;
mod schedule;
mod seal;
mod sequence;
mod snapshot;
mod stats;

pub use cache::{KvCache, SequenceId};
pub use error::{Error, Half};
pub use hold::PageHold;
pub use layout::{Layer, LayerShape};
pub use policy::{CodecRef, Form, Parsed, Policy, Tier};
/// Positions in a page.
pub use quant_kernels::attention::PAGE;
pub use snapshot::{Bytes, Export, ExportPart, ImportPart};
pub use stats::Stats;
