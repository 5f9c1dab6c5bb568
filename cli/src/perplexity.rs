//! `quant perplexity`: how well a model predicts a text, and how far from a reference.

use crate::engine_args::policy;
use crate::output;
use crate::progress::Progress;
use crate::quality_args::{Evaluation, QualityArgs, perplexity_json};
use quant_runtime::Policy;
use quant_runtime::quality::{Divergence, LogitsReader, LogitsWriter, Measured, Reference, measure};
use serde_json::json;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How well a model predicts a text.
///
/// The text is cut into chunks, the first token of each gives way to the begin token, and the second half of each is
/// scored: the way of llama.cpp's perplexity tool. With --kl-against also the Kullback-Leibler divergence from a
/// reference: the same model with an exact KV cache, or the logits of an earlier run, perhaps of another file of the
/// same model.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    quality: QualityArgs,
    /// How the KV cache stores keys and values.
    #[arg(long, value_name = "POLICY", default_value = "f16")]
    kv: String,
    /// The reference: `exact` for an f16 KV cache, or a file that --save-logits wrote.
    #[arg(long, value_name = "exact|FILE")]
    kl_against: Option<PathBuf>,
    /// Write the logits of all scored positions to a file.
    #[arg(long, value_name = "FILE")]
    save_logits: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let kv = policy(&args.kv)?;
    let evaluation = args.quality.open()?;
    let Evaluation { chunks, .. } = &evaluation;
    let mut exact = None;
    let mut file = None;
    match args.kl_against.as_deref() {
        None => {}
        Some(path) if path == Path::new("exact") => exact = Some(evaluation.engine(&Policy::F16)?),
        Some(path) => file = Some(LogitsReader::open(path)?),
    }
    let beside = exact.as_mut().map(Reference::Engine);
    let reference = beside.or_else(|| file.as_mut().map(Reference::File));
    let engine = evaluation.engine(&kv)?;
    let create = |path: &PathBuf| LogitsWriter::create(path, chunks, evaluation.vocabulary());
    let mut save = args.save_logits.as_ref().map(create).transpose()?;

    let mut progress = Progress::of_tokens("evaluating");
    let step = &mut |done: usize, total: usize| {
        progress.at(done as u64, total as u64);
        ControlFlow::Continue(())
    };
    let measured = measure(chunks, evaluation.vocabulary(), reference, &mut [engine], save.as_mut(), step)?;
    progress.clear();
    if let Some(save) = save {
        save.finish()?;
    }
    let Some(measured) = measured else { return Ok(ExitCode::SUCCESS) };
    report(args, &evaluation, &measured)?;
    Ok(ExitCode::SUCCESS)
}

fn report(args: &Args, evaluation: &Evaluation, measured: &Measured) -> anyhow::Result<()> {
    let Some(quality) = measured.candidates.first() else { return Ok(()) };
    let reference = args.kl_against.as_ref().zip(measured.reference);
    if args.quality.json {
        return output::print_json(&json!({
            "model": args.quality.model_name(),
            "text": evaluation.summary_json(),
            "kv": args.kv.to_string(),
            "result": evaluation.quality_json(quality),
            "reference": reference.map(|(path, quality)| json!({
                "logits": path.display().to_string(),
                "perplexity": perplexity_json(&quality.perplexity),
            })),
        }));
    }
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{name:<12}{value}");
    };
    line("text", evaluation.summary());
    let size = output::bytes(quality.kv_bytes as u64);
    line(
        "kv cache",
        format!("{}, {size} a chunk, {:.2} bits per element", args.kv, evaluation.kv_bits(quality)),
    );
    let perplexity = quality.perplexity;
    line("perplexity", format!("{:.4} +- {:.4}", perplexity.value, perplexity.standard_error));
    if let (Some((path, reference)), Some(apart)) = (reference, &quality.divergence) {
        let Divergence { perplexity_change: change, change_error: error, .. } = apart;
        let (value, change, error) = (reference.perplexity.value, 100.0 * change, 100.0 * error);
        line("reference", format!("{value:.4} ({}): {change:+.3} % +- {error:.3} %", path.display()));
        line("divergence", format!("mean {:.3e} +- {:.1e} nats", apart.mean, apart.standard_error));
        let Divergence { median, percentile_99, percentile_99_9, max, .. } = apart;
        let shares = [("median", median), ("99 %", percentile_99), ("99.9 %", percentile_99_9), ("max", max)];
        line("", shares.map(|(name, value)| format!("{name} {value:.3e}")).join(", "));
        line("same top 1", format!("{:.2} % of positions", 100.0 * apart.top1_agreement));
    }
    output::print(&text)
}
