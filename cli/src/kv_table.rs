//! `quant kv-table`: what each way to store keys and values costs in quality, and what it saves.

use crate::engine_args::policy;
use crate::progress::Progress;
use crate::quality_args::{Evaluation, QualityArgs};
use crate::{output, plot};
use anyhow::Context;
use quant_runtime::quality::{Quality, Reference, measure};
use quant_runtime::{Engine, Policy, presets};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

/// Compare KV caches on a text: size, perplexity and divergence from the f16 cache.
///
/// All of them read the text side by side. Bits per element are counted, not computed: the cache's bytes when a chunk
/// is full, with scales, windows and padding, over the numbers that it holds.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    quality: QualityArgs,
    /// KV caches to compare: a policy, or names with commas between them; may be repeated [default: every preset].
    #[arg(long, value_name = "POLICY")]
    kv: Vec<String>,
    /// Write a plot of divergence against size.
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
}

/// One line of the table.
struct Row {
    name: String,
    bits: f64,
    quality: Quality,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let evaluation = args.quality.open()?;
    let mut list = policies(&args.kv)?;
    list.retain(|kv| *kv != Policy::F16);
    let mut exact = evaluation.engine(&Policy::F16)?;
    let mut engines = list.iter().map(|kv| evaluation.engine(kv)).collect::<anyhow::Result<Vec<Engine>>>()?;

    let mut progress = Progress::of_tokens("comparing");
    let step = &mut |done: usize, total: usize| {
        progress.at(done as u64, total as u64);
        ControlFlow::Continue(())
    };
    let (chunks, vocabulary) = (&evaluation.chunks, evaluation.vocabulary());
    let measured =
        measure(chunks, vocabulary, Some(Reference::Engine(&mut exact)), &mut engines, None, step)?;
    progress.clear();
    let Some(measured) = measured else { return Ok(ExitCode::SUCCESS) };
    let names = std::iter::once(Policy::F16).chain(list).map(|policy| policy.to_string());
    let rows: Vec<Row> = names
        .zip(measured.reference.into_iter().chain(measured.candidates))
        .map(|(name, quality)| Row { name, bits: evaluation.kv_bits(&quality), quality })
        .collect();
    if let Some(path) = &args.svg {
        let title = format!("{}: {}", args.quality.model_name(), evaluation.summary());
        let points: Vec<plot::Point> = rows.iter().filter_map(point).collect();
        std::fs::write(path, plot::svg(&title, &points))
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    if args.quality.json {
        output::print_json(&json!({
            "model": args.quality.model_name(),
            "text": evaluation.summary_json(),
            "rows": rows.iter().map(|row| row_json(&evaluation, row)).collect::<Vec<Value>>(),
        }))?;
    } else {
        output::print(&format!("{}\n\n{}", evaluation.summary(), table(&rows)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What `--kv` lists.
fn policies(given: &[String]) -> anyhow::Result<Vec<Policy>> {
    if given.is_empty() {
        return presets::PRESETS.iter().map(|preset| policy(preset.name)).collect();
    }
    let texts = given.iter().flat_map(|text| match text.contains('=') {
        true => vec![text.as_str()],
        false => text.split(',').collect(),
    });
    texts.map(policy).collect()
}

fn point(row: &Row) -> Option<plot::Point> {
    let apart = row.quality.divergence?;
    Some(plot::Point {
        name: row.name.clone(),
        bits: row.bits,
        mean: apart.mean,
        high: apart.percentile_99_9,
    })
}

fn row_json(evaluation: &Evaluation, row: &Row) -> Value {
    let mut value = evaluation.quality_json(&row.quality);
    if let Some(object) = value.as_object_mut() {
        object.insert("kv".to_owned(), json!(row.name));
    }
    value
}

/// Columns as wide as their widest cell, numbers to the right.
fn table(rows: &[Row]) -> String {
    let head = [
        "kv",
        "bits",
        "of f16",
        "perplexity",
        "change %",
        "+-",
        "KL mean",
        "median",
        "99 %",
        "99.9 %",
        "max",
        "top 1 %",
    ];
    let mut cells: Vec<Vec<String>> = vec![head.map(str::to_owned).to_vec()];
    for row in rows {
        let mut line = vec![
            row.name.clone(),
            format!("{:.2}", row.bits),
            format!("{:.1} %", 100.0 * row.bits / 16.0),
            format!("{:.4}", row.quality.perplexity.value),
        ];
        if let Some(apart) = row.quality.divergence {
            line.push(format!("{:+.3}", 100.0 * apart.perplexity_change));
            line.push(format!("{:.3}", 100.0 * apart.change_error));
            let shares = [apart.mean, apart.median, apart.percentile_99, apart.percentile_99_9, apart.max];
            line.extend(shares.map(|share| format!("{share:.2e}")));
            line.push(format!("{:.2}", 100.0 * apart.top1_agreement));
        }
        cells.push(line);
    }
    let width = |column: usize| cells.iter().filter_map(|line| line.get(column)).map(|c| c.len()).max();
    let mut text = String::new();
    for line in &cells {
        let mut out = String::new();
        for (column, cell) in line.iter().enumerate() {
            let width = width(column).unwrap_or(0);
            out += &if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        text += out.trim_end();
        text.push('\n');
    }
    text
}
