//! `cargo xtask peers`: llama.cpp and quant on the same files, interleaved, with the ratios.

use crate::bench::{Options, ours};
use crate::engine::Engine;
use crate::{model, report, tidy};
use anyhow::{Result, ensure};
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Runs the comparison and prints ratios: above 1, quant is faster than the better of the peer's two settings.
pub fn run(args: Vec<String>) -> Result<()> {
    let options = Options::parse(args)?;
    let peer = build_peer()?;
    let mut rows = vec![head()];
    let mut results = Vec::new();
    for file in model::files(&options.models)? {
        for &threads in &options.threads {
            let mut engines = vec![ours(&file.path, threads)?];
            for repack in ["on", "off"] {
                let mut command = Command::new(&peer);
                command.arg(&file.path).args(["--threads", &threads.to_string(), "--repack", repack]);
                engines.push(Engine::start(&format!("llama.cpp repack {repack}"), &mut command)?);
            }
            for (job, count) in [("prefill", options.prefill), ("decode", options.decode)] {
                let medians = interleave(&mut engines, job, count, options.reps)?;
                let tokens = if job == "prefill" { count as f64 } else { 1.0 };
                let rates: Vec<f64> = medians.iter().map(|seconds| tokens / seconds).collect();
                let ratio = rates[0] / rates[1].max(rates[2]);
                let mut row = vec![file.name.clone(), threads.to_string(), format!("{job} {count}")];
                row.extend(rates.iter().map(|rate| format!("{rate:.1}")));
                row.push(format!("{ratio:.2}"));
                rows.push(row);
                results.push(json!({
                    "model": file.name, "threads": threads, "job": job, "count": count, "ratio": ratio,
                    "quant_tokens_per_s": rates[0], "repack_on_tokens_per_s": rates[1],
                    "repack_off_tokens_per_s": rates[2],
                }));
            }
        }
    }
    report::table(&rows);
    options.json.as_deref().map_or(Ok(()), |path| report::save(path, "peers", results))
}

fn head() -> Vec<String> {
    ["model", "threads", "job", "quant tok/s", "repack on", "repack off", "ratio to the better"]
        .map(String::from)
        .into()
}

/// Every engine once per round, so that all see the same machine; medians of the rounds.
fn interleave(engines: &mut [Engine], job: &str, count: usize, rounds: usize) -> Result<Vec<f64>> {
    let mut figures = vec![Vec::new(); engines.len()];
    for _ in 0..rounds {
        for (engine, figures) in engines.iter_mut().zip(&mut figures) {
            figures.push(engine.job(job, count)?);
        }
    }
    Ok(figures.iter_mut().map(|figures| report::median(figures)).collect())
}

/// Builds llama.cpp natively in its own workspace.
fn build_peer() -> Result<std::path::PathBuf> {
    let folder = tidy::root().join("xtask/peers");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo).args(["build", "--release", "--quiet"]).current_dir(&folder).status()?;
    ensure!(built.success(), "building llama.cpp failed: it needs cmake, a C++ compiler and libclang");
    Ok(Path::new(&folder).join("target/release/quant-peers"))
}
