//! GGUF model files: read, check, split and write them.
#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]
#![cfg_attr(not(feature = "mmap"), forbid(unsafe_code))]

mod accessors;
mod array;
mod bytes;
mod cursor;
mod error;
mod file;
pub mod limits;
#[cfg(feature = "mmap")]
mod map;
mod parse;
pub mod split;
mod tensor;
mod value;
mod writer;

pub use array::{Array, Values};
pub use bytes::Bytes;
pub use error::Error;
pub use file::Gguf;
pub use quant_kernels::GgmlType;
pub use tensor::{Tensor, TensorInfo};
pub use value::{Value, ValueType};
pub use writer::{Data, Element, Encode, Encoder, Format, Writer};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
