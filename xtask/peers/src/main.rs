//! llama.cpp and its ggml as benchmark peers: loads once, then runs what standard input asks for.
//!
//! - `quant-peers MODEL --threads T --repack on|off [--ctx N]`: a model ([`model`]).
//! - `quant-peers start MODEL --threads T --repack on|off`: one cold start, to the first token ([`model`]).
//! - `quant-peers logits MODEL --kv TYPE`: logits of a text, with a KV cache of a type ([`model`]).
//! - `quant-peers kernels`: ggml's kernels one by one ([`kernels`]).
//!
//! Answers are JSON lines. The parent (`cargo xtask peers`, `cargo xtask bench`) interleaves the jobs with ours, so
//! that both engines see the same machine.

mod attention;
mod ggml;
mod kernels;
mod model;

use anyhow::Result;

fn main() -> Result<()> {
    let mut args: Vec<_> = std::env::args_os().skip(1).collect();
    match args.first().and_then(|first| first.to_str()) {
        Some("kernels") => kernels::serve(),
        Some("logits") => model::logits(args.split_off(1)),
        Some("start") => model::start(args.split_off(1)),
        _ => model::serve(args),
    }
}
