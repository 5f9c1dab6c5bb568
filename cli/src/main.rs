//! The `quant` command: language models from GGUF files, on the CPU you have.
#![forbid(unsafe_code)]

mod bandwidth;
mod bench;
mod engine_args;
mod failure;
mod inspect;
mod kv_table;
mod logits;
mod output;
mod perplexity;
mod plot;
mod progress;
mod quality_args;
mod run;
mod sampling_args;
mod source;
mod text_input;
mod tokenize;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  quant run                                     the bundled demo model tells a story
  quant run model.gguf -p 'Once upon a time'    go on with a text of your own
  quant run model.gguf -f notes.txt --temp 0    always the most likely token
  quant inspect model.gguf --tensors            what is in a file
  quant bench model.gguf -d 0,4096              how fast it is
  quant perplexity model.gguf -f text.txt       how well it predicts a text
  quant kv-table model.gguf -f text.txt         what compressed KV caches cost in quality

Exit codes:
  0    done (also when the reader of a pipe went away)
  1    the work failed: a file that is missing or damaged, a prompt that is too long, a full disk
  2    wrong usage
  130  ended with Ctrl-C

Environment:
  QUANT_ISA   pins the SIMD tier: scalar, avx2, avxvnni or avx512; results do not depend on it
  QUANT_LOG   what is logged to standard error: error, warn (default), info, debug or off
  NO_COLOR    no colours";

/// Runs GGUF language models on the CPU you have.
///
/// The same file, prompt and seed give the same text for any number of threads, any batch and any CPU.
#[derive(Debug, Parser)]
#[command(name = "quant", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Args>),
    Inspect(inspect::Args),
    Tokenize(tokenize::Args),
    Logits(logits::Args),
    Bench(bench::Args),
    Perplexity(perplexity::Args),
    KvTable(kv_table::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are output like any other: a full disk is an error, a closed pipe is not.
            return match error.print() {
                Err(broken) => failure::report(&broken.into()),
                Ok(()) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE)),
            };
        }
    };
    let result = logging().and_then(|()| match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Logits(args) => logits::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::KvTable(args) => kv_table::run(&args),
    });
    result.unwrap_or_else(|error| failure::report(&error))
}

/// Warnings of the libraries go to standard error.
fn logging() -> anyhow::Result<()> {
    let level = std::env::var("QUANT_LOG").unwrap_or_else(|_| "warn".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(&level).map_err(|_| {
        failure::usage(format!("QUANT_LOG is {level:?}; give error, warn, info, debug or off"))
    })?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    Ok(())
}
