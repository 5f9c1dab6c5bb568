//! Load, tokenize, sample, stream.
#![forbid(unsafe_code)]

mod error;
pub mod sample;

pub use error::Error;
pub use sample::{Sampler, SamplerConfig};
