//! `quant logits`: rows of logits for given tokens, the tool of parity checks.

use crate::engine_args::EngineArgs;
use crate::progress::Progress;
use crate::{source, text_input};
use anyhow::Context;
use quant_runtime::{Engine, LogitsWanted, Model};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

/// Which positions get a row.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Positions {
    /// Every one.
    All,
    /// The last one.
    Last,
}

/// Write the logits after given tokens to a file: little-endian f32, one row of vocabulary size per position.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The model's GGUF file.
    model: PathBuf,
    /// Token ids as whitespace-separated text, taken as they are.
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
    /// Where the rows go.
    #[arg(long, value_name = "FILE.f32")]
    out: PathBuf,
    /// Which positions get a row.
    #[arg(long, value_enum, default_value = "all")]
    positions: Positions,
    /// Tokens evaluated at once; the logits do not depend on it.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    chunk: u32,
    #[command(flatten)]
    engine: EngineArgs,
    /// Threads [default: the physical cores this process may use].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut options = args.engine.options(args.threads)?;
    options.chunk = args.chunk as usize;
    let tokens = text_input::read_tokens(&args.tokens)?;
    let model = Model::from_gguf(source::open(Some(&args.model))?)?;
    let mut engine = Engine::new(&model, &options)?;

    let cannot_write = || format!("can't write {}", args.out.display());
    let mut out = BufWriter::new(File::create(&args.out).with_context(cannot_write)?);
    let wanted = match args.positions {
        Positions::All => LogitsWanted::All,
        Positions::Last => LogitsWanted::Last,
    };
    let mut progress = Progress::of_tokens("evaluating");
    let mut written = Ok(());
    let session = engine.open();
    engine.evaluate(session, &tokens, wanted, &mut |position, row| {
        progress.at(position as u64 + 1, tokens.len() as u64);
        written = row.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()));
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written.and_then(|()| out.flush()).with_context(cannot_write)?;
    Ok(ExitCode::SUCCESS)
}
