//! `cargo xtask bench models`: prefill and decode on synthetic models of real shape, beside the read bandwidth.

use super::engine::Engine;
use super::{Options, build_ours};
use crate::model;
use crate::report::{self, Samples, cell};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Measures each model at each number of threads.
pub fn run(options: &Options) -> Result<Vec<Value>> {
    let program = build_ours()?;
    let mut rows =
        vec![report::head(&["model", "threads", "job", "tok/s", "weights GB/s", "read GB/s", "percent"])];
    let mut results = Vec::new();
    for file in model::files(&options.models(&["llama-3.2-1b:q4_k_m", "llama-3.2-1b:q8_0"]))? {
        for &threads in &options.threads {
            let mut engine = Engine::ours(&program, &file.path, threads)?;
            for (job, count) in [("prefill", options.prefill), ("decode", options.decode)] {
                let (mut rate, mut read) = (Samples::default(), Samples::default());
                let tokens = if job == "prefill" { count as f64 } else { 1.0 };
                for _ in 0..options.reps {
                    let seconds = engine.seconds(&format!("{job} {count}"))?.context("our engine answers")?;
                    rate.push(tokens / seconds);
                    read.push(engine.seconds("bandwidth 1")?.context("our engine answers")?);
                }
                // A prefill reads the weights once for all its tokens.
                let decode = job == "decode";
                let weights: Option<f64> =
                    rate.median().filter(|_| decode).map(|rate| rate * file.weight_bytes as f64 / 1e9);
                let percent = report::ratio(weights, read.median()).map(|ratio| 100.0 * ratio);
                rows.push(vec![
                    file.name.clone(),
                    threads.to_string(),
                    format!("{job} {count}"),
                    cell(rate.median(), 1),
                    cell(weights, 1),
                    cell(read.median().filter(|_| decode), 1),
                    cell(percent, 0),
                ]);
                let what = json!({ "model": file.name, "job": job, "count": count, "threads": threads });
                results.push(report::row(
                    what,
                    &[("quant_tokens_per_s", &rate), ("limit_read_gb_per_s", &read)],
                ));
            }
        }
    }
    report::table(&rows);
    Ok(results)
}
