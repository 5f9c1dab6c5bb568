//! What the tests of this crate share: loading files and reading vectors.
#![allow(dead_code, reason = "each test binary uses its share")]

use std::path::Path;

use quant_gguf::Gguf;
use quant_tokenizer::{Error, Tokenizer};

pub fn load(path: &Path) -> Result<Tokenizer, Error> {
    Tokenizer::from_gguf(&Gguf::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

pub fn must_load(path: &Path) -> Tokenizer {
    load(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A line of ids with spaces or commas between.
pub fn ids(line: &str) -> Vec<u32> {
    line.split([' ', ',']).filter(|id| !id.is_empty()).map(|id| id.parse().unwrap()).collect()
}
