//! `quant bench`: how fast a model is here.

use crate::engine_args::EngineArgs;
use crate::{bandwidth, failure, output, source};
use quant_runtime::{Engine, KvStats, LogitsWanted, Model, threads};
use serde_json::json;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Measure a model: tokens per second of prefill and decode at depths of context, the weights read, and what share
/// of this machine's read bandwidth that is. Figures are medians.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The model's GGUF file [default: the bundled demo model].
    model: Option<PathBuf>,
    /// Tokens of prefill.
    #[arg(short = 'p', long = "prompt", value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens of decode.
    #[arg(short = 'n', long = "tokens", value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Depths: tokens that the context holds before, as 0,4096.
    #[arg(short = 'd', long = "depth", value_name = "N,..", value_delimiter = ',', default_value = "0")]
    depth: Vec<u32>,
    /// Threads, as 1,2 [default: the physical cores this process may use].
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Vec<u32>,
    /// Runs of each measurement.
    #[arg(short = 'r', long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    #[command(flatten)]
    engine: EngineArgs,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// One line of the table.
struct Row {
    threads: usize,
    depth: usize,
    prefill: f64,
    decode: f64,
    /// Bytes of weights read per second of decode.
    read: f64,
    /// What this many threads can read.
    bandwidth: f64,
    /// The KV cache after the decode.
    kv: KvStats,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let model = Model::from_gguf(source::open(args.model.as_ref())?)?;
    let counts = if args.threads.is_empty() {
        vec![u32::try_from(threads::physical_cores())?]
    } else {
        args.threads.clone()
    };
    let mut rows = Vec::new();
    for threads in counts {
        let bandwidth = bandwidth::read_rate(threads as usize);
        measure(args, &model, threads, bandwidth, &mut rows)?;
    }
    let name = source::name(args.model.as_ref());
    if args.json {
        print_json(args, &model, &name, &rows)?
    } else {
        print_table(args, &model, &name, &rows)?
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(
    args: &Args,
    model: &Arc<Model>,
    threads: u32,
    bandwidth: f64,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let (prompt, tokens) = (args.prompt as usize, args.tokens as usize);
    let deepest = args.depth.iter().copied().max().unwrap_or(0) as usize;
    let needed = deepest.saturating_add(prompt.max(tokens));
    let mut options = args.engine.options(Some(threads))?;
    let context = *options.context.get_or_insert(needed);
    args.engine.fit(&mut options, model)?;
    if context < needed {
        return Err(failure::usage(format!("--ctx {context} does not hold the {needed} tokens to measure")));
    }
    let mut engine = Engine::new(model, &options)?;
    for depth in args.depth.iter().map(|depth| *depth as usize) {
        let base = engine.open();
        evaluate(&mut engine, base, &ids(model, depth))?;
        let text = ids(model, prompt.max(tokens));
        let mut kv = engine.memory();
        let mut timed = |parts: &[&[u32]]| -> anyhow::Result<f64> {
            let session = engine.fork(base)?;
            let started = Instant::now();
            for part in parts {
                evaluate(&mut engine, session, part)?;
            }
            let seconds = started.elapsed().as_secs_f64();
            kv = engine.memory();
            engine.close(session);
            Ok(parts.iter().map(|part| part.len()).sum::<usize>() as f64 / seconds)
        };
        let one_by_one: Vec<&[u32]> = text[..tokens].chunks(1).collect();
        // Once to fill caches and buffers.
        timed(&[&text[..prompt]])?;
        let (mut prefill, mut decode) = (Vec::new(), Vec::new());
        for _ in 0..args.runs {
            prefill.push(timed(&[&text[..prompt]])?);
            decode.push(timed(&one_by_one)?);
        }
        engine.close(base);
        let decode = median(decode);
        rows.push(Row {
            threads: engine.threads(),
            depth,
            prefill: median(prefill),
            decode,
            read: decode * model.info().bytes_per_token as f64,
            bandwidth,
            kv,
        });
    }
    Ok(())
}

fn evaluate(engine: &mut Engine, session: quant_runtime::SessionId, tokens: &[u32]) -> anyhow::Result<()> {
    Ok(engine.evaluate(session, tokens, LogitsWanted::Last, &mut |_, _| ControlFlow::Continue(()))?)
}

/// Token ids all over the vocabulary: what they say does not change how long they take.
fn ids(model: &Model, count: usize) -> Vec<u32> {
    let vocab = model.info().vocab.max(1) as u64;
    (0..count as u64)
        .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % vocab)
        .map(|id| id as u32)
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        Some(upper) if values.len().is_multiple_of(2) => (upper + values[middle - 1]) / 2.0,
        Some(middle) => *middle,
        None => 0.0,
    }
}

fn print_table(args: &Args, model: &Model, name: &str, rows: &[Row]) -> anyhow::Result<()> {
    let mut text = String::new();
    let isa = args.engine.options(None)?.isa;
    let weights = output::bytes(model.info().bytes_per_token);
    // Writing to a string can't fail.
    let _ = writeln!(
        text,
        "{}, {isa}, {weights} of weights per token, median of {}",
        output::excerpt(name, 60),
        args.runs
    );
    let _ = writeln!(
        text,
        "{:>7} {:>7} {:>16} {:>15} {:>12} {:>12} {:>10} {:>7}",
        "threads",
        "depth",
        format!("prefill {} t/s", args.prompt),
        format!("decode {} t/s", args.tokens),
        "weights GB/s",
        "of bandwidth",
        "KV cache",
        "KV bits"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:>7} {:>7} {:>16.1} {:>15.1} {:>12.1} {:>11.0}% {:>10} {:>7.2}",
            row.threads,
            row.depth,
            row.prefill,
            row.decode,
            row.read / 1e9,
            100.0 * row.read / row.bandwidth,
            output::bytes(row.kv.used_bytes as u64),
            row.kv.bits_per_value()
        );
    }
    for (i, row) in rows.iter().enumerate().filter(|(i, row)| *i == 0 || rows[i - 1].threads != row.threads) {
        let _ = writeln!(
            text,
            "bandwidth read with {} threads: {:.1} GB/s",
            rows[i].threads,
            row.bandwidth / 1e9
        );
    }
    if rows.iter().any(|row| row.read > row.bandwidth) {
        text.push_str("more than 100%: the weights fit in the CPU's caches\n");
    }
    output::print(&text)
}

fn print_json(args: &Args, model: &Model, name: &str, rows: &[Row]) -> anyhow::Result<()> {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "threads": row.threads,
                "depth": row.depth,
                "prefill_tokens_per_second": row.prefill,
                "decode_tokens_per_second": row.decode,
                "weights_bytes_per_second": row.read,
                "bandwidth_bytes_per_second": row.bandwidth,
                "share_of_bandwidth": row.read / row.bandwidth,
                "kv_bytes": row.kv.used_bytes,
                "kv_f16_bytes": row.kv.f16_bytes,
                "kv_bits_per_value": row.kv.bits_per_value(),
            })
        })
        .collect();
    output::print_json(&json!({
        "model": name,
        "isa": args.engine.options(None)?.isa.name(),
        "weights_bytes_per_token": model.info().bytes_per_token,
        "prompt": args.prompt,
        "tokens": args.tokens,
        "runs": args.runs,
        "results": rows,
    }))
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![]), 0.0);
    }
}
