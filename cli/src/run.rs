//! `quant run`: goes on with a text.

use crate::engine_args::EngineArgs;
use crate::failure::INTERRUPTED;
use crate::progress::Progress;
use crate::sampling_args::SamplingArgs;
use crate::text_input::TextInput;
use crate::{output, source};
use anyhow::Context;
use quant_runtime::{
    Binding, Engine, Event, Finish, FinishReason, GenerateOptions, Generation, Model, SamplerConfig, Stats,
};
use serde_json::json;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the model goes on with when it is given nothing.
const PROMPT: &str = "Once upon a time";
/// Tokens at the most, unless `-n` says otherwise.
const TOKENS: u32 = 512;

/// Go on with a text.
///
/// The text is streamed to standard output as the model writes it; the last line, on standard error, tells the seed
/// and what it took. The prompt is the raw text: no chat template is applied. On a terminal, and if it is the
/// built-in one, the prompt is shown in front of its continuation.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The model's GGUF file [default: the bundled demo model].
    model: Option<PathBuf>,
    #[command(flatten)]
    input: TextInput,
    /// Tokens at the most [default: until the end token, at most 512].
    #[arg(short = 'n', long = "tokens", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    tokens: Option<u32>,
    /// End when this text comes (it is not shown); may be repeated.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Go on after tokens that end a text.
    #[arg(long)]
    ignore_end: bool,
    /// When the context is full, forget half of it, all but its first N tokens (rounded up to 128), and go on.
    #[arg(long, value_name = "N")]
    context_shift: Option<u32>,
    /// Read special tokens in the prompt, such as <|begin_of_text|>, as what they stand for.
    #[arg(long)]
    parse_special: bool,
    /// One JSON object on standard output, at the end, in place of the text and the last line.
    #[arg(long)]
    json: bool,
    /// Go on with a session that --save wrote; the prompt, if there is one, is put behind its text.
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// Save the session: its tokens and the KV cache. It loads with the same model and KV policy only.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// With --save or --load: compare every byte of the model, not samples of it.
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Threads [default: the physical cores this process may use].
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let interrupted = on_interrupt()?;
    let mut options = args.engine.options(args.threads)?;
    // Wrong sampler flags are found before a large file is opened.
    args.sampling.over(SamplerConfig::default())?;
    let given = args.input.read()?;
    let prompt = given.as_deref().unwrap_or(if args.load.is_some() { "" } else { PROMPT });

    let model = Model::from_gguf(source::open(args.model.as_ref())?)?;
    let sampler = args.sampling.over(model.sampler_defaults()?)?;
    let seed = sampler.seed;
    let tokens = model.tokenizer()?.encode(prompt, args.load.is_none(), args.parse_special);
    args.engine.fit(&mut options, &model)?;
    let mut engine = Engine::new(&model, &options)?;
    let binding = if args.verify { Binding::Verified } else { Binding::Sampled };
    let session = match &args.load {
        Some(path) => engine.load(path, binding)?,
        None => engine.open(),
    };
    engine.append(session, &tokens)?;
    let request = GenerateOptions {
        sampler,
        max_tokens: Some(args.tokens.unwrap_or(TOKENS) as usize),
        stop_strings: args.stop.clone(),
        ignore_end: args.ignore_end,
        context_shift: args.context_shift.map(|n| n as usize),
        ..GenerateOptions::default()
    };
    let generation = engine.resume(session, &request)?;
    let mut text = Text::new(args.json);
    if given.is_none() || io::stdout().is_terminal() {
        text.prompt(prompt)?;
    }
    let finish = stream(generation, &interrupted, &mut text)?;
    if let Some(path) = &args.save {
        engine.save(session, path, binding)?;
    }
    if args.json {
        output::print_json(&json!({
            "model": source::name(args.model.as_ref()),
            "seed": seed,
            "prompt": prompt,
            "prompt_tokens": tokens,
            "text": text.all,
            "tokens": text.tokens,
            "finish_reason": finish.reason.name(),
            "stats": stats_json(&finish.stats),
        }))?;
    } else {
        text.end()?;
        last_line(seed, &finish);
    }
    let cancelled = finish.reason == FinishReason::Cancelled;
    Ok(if cancelled { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Shows the text as it comes.
fn stream(
    mut generation: Generation<'_>,
    interrupted: &AtomicBool,
    text: &mut Text,
) -> anyhow::Result<Finish> {
    let mut progress = Progress::of_tokens("reading the prompt");
    let finish = loop {
        if interrupted.load(Ordering::Relaxed) {
            progress.clear();
            break generation.cancel();
        }
        match generation.next().transpose()? {
            Some(Event::Prefill { done, total }) => progress.at(done as u64, total as u64),
            Some(Event::Token { token, text: more }) => {
                progress.clear();
                text.tokens.push(token);
                text.show(&more)?;
            }
            Some(Event::Finished(finish)) => break Some(finish),
            Some(_) => {}
            None => break None,
        }
    };
    let finish = finish.context("the generation ended without a result")?;
    text.show(&finish.text)?;
    Ok(finish)
}

/// The text on its way to standard output.
struct Text {
    /// Collected for the end rather than shown.
    quiet: bool,
    all: String,
    tokens: Vec<u32>,
    ends_line: bool,
}

impl Text {
    fn new(quiet: bool) -> Self {
        Self { quiet, all: String::new(), tokens: Vec::new(), ends_line: true }
    }

    /// The prompt in front of it, dim on a terminal.
    fn prompt(&mut self, prompt: &str) -> anyhow::Result<()> {
        if self.quiet {
            return Ok(());
        }
        let dim = anstyle::Style::new().dimmed();
        let mut out = anstream::stdout().lock();
        write!(out, "{dim}{prompt}{dim:#}")
            .and_then(|()| out.flush())
            .context("can't write to standard output")?;
        self.ends_line = prompt.ends_with('\n');
        Ok(())
    }

    fn show(&mut self, more: &str) -> anyhow::Result<()> {
        self.all.push_str(more);
        if self.quiet || more.is_empty() {
            return Ok(());
        }
        self.ends_line = more.ends_with('\n');
        output::print(more)
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if self.ends_line { Ok(()) } else { output::print("\n") }
    }
}

/// What it took, on standard error.
fn last_line(seed: u64, finish: &Finish) {
    let stats = &finish.stats;
    let mut parts = vec![
        format!("seed {seed}"),
        format!("prompt {} tokens, {} tokens/s", stats.prompt_tokens, output::digits(stats.prefill_rate())),
        format!("text {} tokens, {} tokens/s", stats.generated_tokens, output::digits(stats.decode_rate())),
    ];
    parts.extend(stats.first_token.map(|time| format!("first token {}", output::duration(time))));
    let kv = kv_text(stats);
    parts.push(match peak_memory() {
        Some(peak) => format!("memory {} (KV cache {kv})", output::bytes(peak)),
        None => format!("KV cache {kv}"),
    });
    if stats.reduced {
        let pages = stats.kv_reduced_pages;
        parts.push(format!("not reproducible: memory was short, {pages} pages of the KV cache lack planes"));
    }
    parts.extend(
        match finish.reason {
            FinishReason::Length => Some("ended by -n"),
            FinishReason::ContextFull => Some("ended: the context is full, --ctx makes it larger"),
            FinishReason::Cancelled => Some("ended by Ctrl-C"),
            _ => None,
        }
        .map(str::to_owned),
    );
    let dim = anstyle::Style::new().dimmed();
    // The text is out; a closed standard error is no reason to fail.
    let _ = writeln!(anstream::stderr(), "{dim}{}{dim:#}", parts.join("; "));
}

/// `1.20 MiB, 36% of f16`.
fn kv_text(stats: &Stats) -> String {
    let bytes = output::bytes(stats.kv_bytes as u64);
    match stats.kv_f16_bytes {
        0 => bytes,
        f16 => format!("{bytes}, {:.0}% of f16", 100.0 * stats.kv_bytes as f64 / f16 as f64),
    }
}

fn stats_json(stats: &Stats) -> serde_json::Value {
    json!({
        "prompt_tokens": stats.prompt_tokens,
        "reused_tokens": stats.reused_tokens,
        "moved_tokens": stats.moved_tokens,
        "shifted_tokens": stats.shifted_tokens,
        "generated_tokens": stats.generated_tokens,
        "prefill_seconds": stats.prefill.as_secs_f64(),
        "prefill_tokens_per_second": stats.prefill_rate(),
        "decode_seconds": stats.decode.as_secs_f64(),
        "decode_tokens_per_second": stats.decode_rate(),
        "first_token_seconds": stats.first_token.map(|time| time.as_secs_f64()),
        "kv_bytes": stats.kv_bytes,
        "kv_peak_bytes": stats.kv_peak_bytes,
        "kv_f16_bytes": stats.kv_f16_bytes,
        "kv_reduced_pages": stats.kv_reduced_pages,
        "reproducible": !stats.reduced,
        "peak_memory_bytes": peak_memory(),
    })
}

/// The most memory this process had at once, the mapped parts of the model included.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The first Ctrl-C ends the text, the second one the process.
fn on_interrupt() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    })
    .context("can't watch for Ctrl-C")?;
    Ok(flag)
}
