//! KV codecs: the papers' figures, the arithmetic of every codec against its own decoding, every tier, hostile input.
#![allow(clippy::print_stdout, reason = "the figures, for --nocapture")]

mod common;
mod exact;
mod figures;
mod hostile;
