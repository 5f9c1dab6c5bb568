//! Placeholder until this crate lands.
#![forbid(unsafe_code)]
