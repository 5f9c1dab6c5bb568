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
mod mass;
mod pages;
mod plan;
mod policy;
mod prefix_tree;
mod prefixes;
pub mod presets;
mod pressure;
mod reuse;
mod schedule;
mod seal;
mod sequence;
mod shift;
mod snapshot;
mod spill;
mod state;
mod stats;

pub use cache::{KvCache, SequenceId};
pub use error::{Error, Half};
pub use hold::PageHold;
pub use layout::{Layer, LayerShape};
pub use mass::Observed;
pub use policy::{CodecRef, Form, Parsed, Policy, Tier};
/// Positions in a page.
pub use quant_kernels::attention::PAGE;
pub use shift::{Turn, offset_of};
pub use snapshot::{Bytes, Export, ExportPart, ImportPart, Past};
pub use spill::{SpillFile, SpillKey, SpillStore};
pub use state::Checkpoints;
pub use stats::Stats;
