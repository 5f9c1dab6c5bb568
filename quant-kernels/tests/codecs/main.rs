//! KV codecs: the papers' figures, the arithmetic of every codec against its own decoding, every tier, hostile input.

mod common;
mod exact;
mod figures;
mod hostile;
