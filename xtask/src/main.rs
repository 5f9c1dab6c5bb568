//! Tasks of the workspace: `cargo xtask tidy|targets|bench|peers|model|help`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

mod bench;
mod engine;
mod model;
mod peers;
mod report;
mod serve;
mod targets;
mod tidy;

use anyhow::{Result, bail};

const HELP: &str = "\
Tasks of the quant workspace.

Usage: cargo xtask TASK [OPTIONS]

Tasks:
  tidy                  check the invariants that a program can check
  targets               test other instruction sets (NEON under qemu, WebAssembly under node) and check that the
                        libraries compile for other systems; installs what it can, says what it could not do
  bench [kernels|models] [--json FILE] [--threads 1,2] [--reps N]
                        kernel figures (criterion) and model figures on synthetic models of real shape
  peers [--json FILE] [--threads 1,2] [--reps N]
                        the same files in llama.cpp, interleaved, with the ratios
  model FILE [--shape llama-3.2-1b|tiny] [--type q4_k_m|q8_0] [--seed N]
                        write a synthetic model: real shapes, random weights
  help                  this text

Synthetic models are kept under target/bench-models. `peers` builds llama.cpp on first use: it needs cmake, a
C++ compiler and libclang.
";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let task = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    match task.as_str() {
        "tidy" => tidy::run(),
        "targets" => targets::run(),
        "bench" => bench::run(rest),
        "peers" => peers::run(rest),
        "model" => model::run(rest),
        "engine" => serve::run(rest),
        "" | "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("unknown task '{other}'; `cargo xtask help` lists them"),
    }
}
