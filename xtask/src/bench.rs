//! `cargo xtask bench`: kernel figures by criterion, model figures on synthetic models of real shape.

use crate::engine::Engine;
use crate::{model, report, tidy};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What to measure.
pub struct Options {
    /// Kernel benches.
    pub kernels: bool,
    /// Model benches.
    pub whole_models: bool,
    /// Synthetic models, as `SHAPE:TYPE`.
    pub models: Vec<String>,
    /// Thread counts.
    pub threads: Vec<usize>,
    /// Rounds; medians are quoted.
    pub reps: usize,
    /// Tokens of a prefill.
    pub prefill: usize,
    /// Tokens of a decode.
    pub decode: usize,
    /// Where to write the figures.
    pub json: Option<PathBuf>,
}

impl Options {
    /// Reads the options that `bench` and `peers` share.
    pub fn parse(args: Vec<String>) -> Result<Self> {
        use lexopt::prelude::{Long, Short, Value, ValueExt as _};
        let mut options = Self {
            kernels: true,
            whole_models: true,
            models: vec!["llama-3.2-1b:q4_k_m".to_owned(), "llama-3.2-1b:q8_0".to_owned()],
            threads: vec![1, 2],
            reps: 5,
            prefill: 512,
            decode: 64,
            json: None,
        };
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Value(what) if what == "kernels" => options.whole_models = false,
                Value(what) if what == "models" => options.kernels = false,
                Long("threads") => options.threads = list(&parser.value()?.string()?)?,
                Long("models") => {
                    options.models = parser.value()?.string()?.split(',').map(str::to_owned).collect();
                }
                Long("reps") => options.reps = parser.value()?.parse()?,
                Short('p') => options.prefill = parser.value()?.parse()?,
                Short('n') => options.decode = parser.value()?.parse()?,
                Long("json") => options.json = Some(parser.value()?.into()),
                _ => bail!(arg.unexpected()),
            }
        }
        ensure!(options.reps > 0 && options.prefill > 0 && options.decode > 0, "counts are at least 1");
        Ok(options)
    }
}

fn list(text: &str) -> Result<Vec<usize>> {
    text.split(',').map(|n| n.parse().with_context(|| format!("'{n}' is not a number"))).collect()
}

/// Runs the benches asked for.
pub fn run(args: Vec<String>) -> Result<()> {
    let options = Options::parse(args)?;
    if options.kernels {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status =
            Command::new(cargo).args(["bench", "-p", "quant-kernels"]).current_dir(tidy::root()).status()?;
        ensure!(status.success(), "the kernel benches failed");
    }
    if options.whole_models { models(&options) } else { Ok(()) }
}

fn models(options: &Options) -> Result<()> {
    let head = ["model", "threads", "job", "tok/s", "weights GB/s", "read GB/s", "percent"];
    let mut rows: Vec<Vec<String>> = vec![head.map(String::from).into()];
    let mut results = Vec::new();
    for file in model::files(&options.models)? {
        for &threads in &options.threads {
            let mut engine = ours(&file.path, threads)?;
            for (job, count) in [("prefill", options.prefill), ("decode", options.decode)] {
                let mut seconds = Vec::new();
                let mut reads = Vec::new();
                for _ in 0..options.reps {
                    seconds.push(engine.job(job, count)?);
                    reads.push(engine.job("bandwidth", 1)?);
                }
                let seconds = report::median(&mut seconds);
                let read = report::median(&mut reads);
                let rate = if job == "prefill" { count as f64 / seconds } else { 1.0 / seconds };
                let weights = file.weight_bytes as f64 / 1e9 / seconds;
                let shown = job == "decode";
                let cell =
                    |value: f64, digits: usize| if shown { format!("{value:.digits$}") } else { "-".into() };
                rows.push(vec![
                    file.name.clone(),
                    threads.to_string(),
                    format!("{job} {count}"),
                    format!("{rate:.1}"),
                    cell(weights, 1),
                    cell(read, 1),
                    cell(100.0 * weights / read, 0),
                ]);
                results.push(json!({
                    "model": file.name, "threads": threads, "job": job, "count": count, "tokens_per_s": rate,
                    "weights_gb_per_s": shown.then_some(weights), "read_gb_per_s": read,
                }));
            }
        }
    }
    report::table(&rows);
    options.json.as_deref().map_or(Ok(()), |path| report::save(path, "bench", results))
}

/// Starts our engine on a file: the release build of this very program.
pub fn ours(model: &Path, threads: usize) -> Result<Engine> {
    let root = tidy::root();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--quiet", "-p", "xtask"])
        .current_dir(&root)
        .status()?;
    ensure!(built.success(), "building quant failed");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let mut command = Command::new(target.join("release/xtask"));
    command.arg("engine").arg(model).args(["--threads", &threads.to_string()]);
    Engine::start("quant", &mut command)
}
