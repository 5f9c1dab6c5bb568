//! `cargo xtask peers`: llama.cpp and quant on the same files, interleaved, with the ratios.

use super::engine::Engine;
use super::neighbour::Neighbour;
use super::{Options, build_ours, build_peer};
use crate::model;
use crate::report::{self, Samples, cell};
use anyhow::{Context as _, Result};
use serde_json::json;
use std::process::Command;

/// Runs the comparison and prints ratios: above 1, quant is faster than the better of the peer's two settings.
pub fn run(args: Vec<String>) -> Result<()> {
    if args.first().is_some_and(|word| word == "kv-quality") {
        return super::kv_peers::run(args);
    }
    let options = Options::parse(args)?;
    let (program, peer) = (build_ours()?, build_peer()?);
    let head = ["model", "threads", "job", "quant tok/s", "repack on", "repack off", "ratio to the better"];
    let mut rows = vec![report::head(&head)];
    let mut results = Vec::new();
    for file in model::files(&options.models(&["llama-3.2-1b:q4_k_m", "llama-3.2-1b:q8_0"]))? {
        for &threads in &options.threads {
            let mut engines = vec![Engine::ours(&program, &file.path, threads)?];
            for repack in ["on", "off"] {
                let mut command = Command::new(&peer);
                command.arg(&file.path).args(["--threads", &threads.to_string(), "--repack", repack]);
                engines.push(Engine::start(&format!("llama.cpp repack {repack}"), &mut command)?);
            }
            for (job, count) in [("prefill", options.prefill), ("decode", options.decode)] {
                let tokens = if job == "prefill" { count as f64 } else { 1.0 };
                let _neighbour = options.neighbour.then(Neighbour::start);
                let [quant, on, off] =
                    interleave(&mut engines, &format!("{job} {count}"), tokens, options.reps)?;
                let better = better(&on, &off);
                rows.push(vec![
                    file.name.clone(),
                    threads.to_string(),
                    format!("{job} {count}"),
                    cell(quant.median(), 1),
                    cell(on.median(), 1),
                    cell(off.median(), 1),
                    cell(report::ratio(quant.median(), better), 2),
                ]);
                results.push(report::row(
                    json!({ "model": file.name, "job": job, "count": count, "threads": threads }),
                    &[
                        ("quant_tokens_per_s", &quant),
                        ("repack_on_tokens_per_s", &on),
                        ("repack_off_tokens_per_s", &off),
                    ],
                ));
            }
        }
    }
    report::table(&rows);
    options.json.as_deref().map_or(Ok(()), |path| report::save(path, "peers", results))
}

/// The higher median of the peer's two settings.
pub fn better(on: &Samples, off: &Samples) -> Option<f64> {
    [on.median(), off.median()].into_iter().flatten().max_by(f64::total_cmp)
}

/// Every engine once per round, so that all see the same machine: rates in tokens per second.
fn interleave(engines: &mut [Engine], job: &str, tokens: f64, rounds: usize) -> Result<[Samples; 3]> {
    let mut rates = [const { Samples::new() }; 3];
    for _ in 0..rounds {
        for (engine, rates) in engines.iter_mut().zip(&mut rates) {
            rates.push(tokens / engine.seconds(job)?.context("an answer with seconds")?);
        }
    }
    Ok(rates)
}
