//! `cargo xtask bench start`: from the start of a process to the first token of a 16-token prompt, ours against the
//! peer. Files are in the page cache for both, as quant has read them there: how large the pages are in which a file
//! lies there, and so what mapping it costs, depends on who read or wrote it.

use super::engine::Engine;
use super::{Options, build_ours, build_peer};
use crate::model;
use crate::report::{self, Samples, cell};
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Both engines make tokens of this and read the first 16.
const PROMPT: &str = "The quick brown fox jumps over the lazy dog, and then it goes home to write about everything \
                      that it has seen on the way: rivers, hills, a town, two other dogs and a cat.";

/// Two usual mixtures, and a vocabulary twice as large.
const MODELS: [&str; 3] = ["llama-3.2-1b:q4_k_m", "llama-3.2-1b:q8_0", "llama-3.2-1b-250k:q4_k_m"];

/// Starts each engine in turn.
pub fn run(options: &Options) -> Result<Vec<Value>> {
    let ours = build_ours()?;
    let peer = if options.peer { Some(build_peer()?) } else { None };
    let head = ["model", "threads", "quant ms", "repack on", "repack off", "quant / better"];
    let mut rows = vec![report::head(&head)];
    let mut results = Vec::new();
    for file in model::files(&options.models(&MODELS))? {
        forget(&file.path);
        for &threads in &options.threads {
            let mut starts = [const { Samples::new() }; 3];
            // One round more, which brings files and programs into memory.
            for round in 0..=options.reps {
                let mut take = |slot: usize, seconds: f64| {
                    if round > 0 {
                        starts[slot].push(1.0 / seconds);
                    }
                };
                take(0, start("quant", &ours, &["first-token"], &file.path, threads)?);
                let Some(peer) = &peer else { continue };
                for (slot, repack) in [(1, "on"), (2, "off")] {
                    take(
                        slot,
                        start("llama.cpp", peer, &["start", "--repack", repack], &file.path, threads)?,
                    );
                }
            }
            let [quant, on, off] = &starts;
            let ms = |samples: &Samples| samples.median().map(|rate| 1e3 / rate);
            let better = super::peers::better(on, off).map(|rate| 1e3 / rate);
            rows.push(vec![
                file.name.clone(),
                threads.to_string(),
                cell(ms(quant), 1),
                cell(ms(on), 1),
                cell(ms(off), 1),
                cell(report::ratio(ms(quant), better), 3),
            ]);
            results.push(report::row(
                json!({ "model": file.name, "job": "start", "threads": threads }),
                &[
                    ("quant_starts_per_s", quant),
                    ("repack_on_starts_per_s", on),
                    ("repack_off_starts_per_s", off),
                ],
            ));
        }
    }
    println!("\nprocess start to the first token after 16, ms:\n");
    report::table(&rows);
    Ok(results)
}

/// Has the system drop a file from the page cache, where there is the means: without it the file stays as it was written.
fn forget(path: &Path) {
    let mut input = std::ffi::OsString::from("if=");
    input.push(path);
    let done = |command: &mut Command| command.status().is_ok_and(|status| status.success());
    let dropped = done(Command::new("sync").arg(path))
        && done(Command::new("dd").arg(input).args(["iflag=nocache", "count=0", "status=none"]));
    if !dropped {
        eprintln!("{}: stays in the page cache as it was written", path.display());
    }
}

/// Seconds until a new process has told its first token.
fn start(name: &str, program: &Path, words: &[&str], model: &Path, threads: usize) -> Result<f64> {
    let mut command = Command::new(program);
    command.args(words).args(["--threads", &threads.to_string()]).arg(model).env("QUANT_PROMPT", PROMPT);
    let begin = Instant::now();
    let engine = Engine::start(name, &mut command)?;
    let seconds = begin.elapsed().as_secs_f64();
    drop(engine);
    Ok(seconds)
}
