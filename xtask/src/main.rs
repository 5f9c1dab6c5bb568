//! Tasks of the workspace: `cargo xtask help` lists them.
#![deny(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

mod bench;
#[allow(unsafe_code, reason = "loads and calls of CPU features that were detected")]
mod limits;
mod model;
mod report;
mod sanitize;
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
  bench [kernels] [attention] [models] [start] [criterion] [kv-quality]
                        figures beside the machine's limits and llama.cpp's; without a word the first four
      kernels           every type's matmul, in cache and from memory [--types q4_k,q8_0] [--tokens 1,4,512]
      attention         attention over KV caches of several codecs, one token and many
                        [--heads 64,128] [--groups 1,4] [--contexts 2048] [--codecs planes-4:planes-4]
      models            prefill and decode of synthetic models of real shape [-p 512] [-n 64]
      start             from the start of a process to the first token
      criterion         the micro-benchmarks of quant-kernels
      kv-quality        what each KV codec does to attention heads that are hard to store
      [--models SHAPE:TYPE,..] [--threads 1,2] [--reps N] [--no-peer] [--json FILE]
  peers                 whole models in llama.cpp and quant, interleaved, with the ratios
      [--models SHAPE:TYPE,..] [--threads 1,2] [--reps N] [-p 512] [-n 64] [--json FILE]
      [--neighbour]     while another thread keeps a core busy
  peers kv-quality [MODEL] [-f IDS,..] [--ctx 1024] [--chunks 4] [--kv POLICY;..] [--json FILE]
                        what compressed KV caches cost in quality, ours and llama.cpp's each from its own f16 cache, on
                        token ids in files; without words the bundled model on its held-out stories
  compare A.json B.json [--all] [--fail-below 0.95]
                        two saved runs, figure by figure; those beyond noise, or all
  sanitize [address] [thread] [miri] [valgrind] [CRATE..]
                        tests under the sanitizers (address finds leaks too), miri and valgrind, of some crates;
                        without a word all of them, but for tests of a model's quality, which take longest and go
                        through the same code
  model FILE [--shape llama-3.2-1b|..] [--type q4_k_m|q8_0|..] [--seed N]
                        write a synthetic model: real shapes, random weights
  help                  this text

Synthetic models are kept under target/bench-models. Whatever needs llama.cpp builds it on first use: that takes
cmake, a C++ compiler and libclang, and some minutes.
";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let task = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    if rest.iter().any(|word| word == "--help" || word == "-h") {
        print!("{HELP}");
        return Ok(());
    }
    match task.as_str() {
        "tidy" => tidy::run(),
        "targets" => targets::run(),
        "bench" => bench::run(rest),
        "peers" => bench::peers::run(rest),
        "compare" => report::compare::run(rest),
        "sanitize" => sanitize::run(rest),
        "model" => model::run(rest),
        "engine" => serve::run(rest),
        "engine-kernels" => serve::kernels::run(),
        "first-token" => serve::first_token::run(rest),
        "" | "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("unknown task '{other}'; `cargo xtask help` lists them"),
    }
}
