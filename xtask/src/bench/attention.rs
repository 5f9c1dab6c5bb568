//! `cargo xtask bench attention`: attention over KV caches of several codecs beside ggml's flash attention over its own
//! types, in interleaved rounds. Figures for people are nanoseconds per position and KV head; for programs positions per
//! microsecond.

use super::engine::Engine;
use super::{Options, build_ours, build_peer};
use crate::report::{self, Samples, cell, ratio};
use anyhow::Result;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// KV heads.
const HEADS: usize = 8;
/// Our codecs: keys and values.
const CODECS: [[&str; 2]; 4] =
    [["planes-4", "planes-4"], ["planes-5", "planes-4"], ["planes-8", "planes-8"], ["f16", "f16"]];
/// ggml's types: what the ratios are to.
const TYPES: [&str; 3] = ["f16", "q8_0", "q4_0"];
/// Head sizes and query heads for each KV head.
const SHAPES: [[usize; 2]; 8] = [[64, 1], [64, 4], [64, 8], [96, 4], [128, 1], [128, 4], [128, 8], [256, 4]];
/// Contexts of one token.
const DECODE: [usize; 3] = [2 << 10, 32 << 10, 128 << 10];
/// The longest context at which every shape is measured; beyond it only groups of four.
const EVERY_SHAPE: usize = 32 << 10;
/// Contexts of many tokens, and how many.
const PREFILL: [usize; 2] = [4 << 10, 8 << 10];
const TOKENS: usize = 128;
/// The other engine's threads spin for a few milliseconds after its job.
const SETTLE: Duration = Duration::from_millis(5);

/// What is asked of both engines.
#[derive(Debug, Clone, Copy)]
struct Job {
    dim: usize,
    group: usize,
    context: usize,
    tokens: usize,
    threads: usize,
}

/// Measures all shapes.
pub fn run(options: &Options) -> Result<Vec<Value>> {
    let mut ours = Engine::start("quant", Command::new(build_ours()?).arg("engine-kernels"))?;
    let mut peer = match options.peer {
        true => Some(Engine::start("ggml", Command::new(build_peer()?).arg("kernels"))?),
        false => None,
    };
    let mut results = Vec::new();
    for tokens in [1, TOKENS] {
        let head = ["head", "group", "context", "threads", "codec", "quant ns", "x f16", "x q8_0", "x q4_0"];
        let mut rows = vec![report::head(&head)];
        for job in jobs(tokens, &options.threads) {
            eprintln!("{job:?}");
            measure(&mut ours, peer.as_mut(), options.reps, job, &mut rows, &mut results)?;
        }
        println!("\nattention of {tokens} tokens, ns per position and KV head; ggml's time over ours:\n");
        report::table(&rows);
    }
    Ok(results)
}

fn jobs(tokens: usize, threads: &[usize]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for [dim, group] in SHAPES {
        for &context in if tokens == 1 { &DECODE[..] } else { &PREFILL } {
            if group == 4 || tokens == 1 && context <= EVERY_SHAPE {
                jobs.extend(threads.iter().map(|&threads| Job { dim, group, context, tokens, threads }));
            }
        }
    }
    jobs
}

/// All codecs and types of one shape, every engine once per round.
fn measure(
    ours: &mut Engine,
    mut peer: Option<&mut Engine>,
    rounds: usize,
    job: Job,
    rows: &mut Vec<Vec<String>>,
    results: &mut Vec<Value>,
) -> Result<()> {
    let Job { dim, group, context, tokens, threads } = job;
    let shape = format!("{dim} {group} {HEADS} {context} {tokens} {threads}");
    // positions per microsecond
    let rate = |seconds: Option<f64>| (context * HEADS) as f64 / 1e6 / seconds.unwrap_or(f64::NAN);
    let mut quant = [const { Samples::new() }; CODECS.len()];
    let mut ggml = [const { Samples::new() }; TYPES.len()];
    for _ in 0..rounds {
        for ([keys, values], samples) in CODECS.iter().zip(&mut quant) {
            samples.push(rate(ours.seconds(&format!("attention {keys} {values} {shape}"))?));
        }
        if let Some(peer) = &mut peer {
            for (ty, samples) in TYPES.iter().zip(&mut ggml) {
                samples.push(rate(peer.seconds(&format!("attention {ty} {shape}"))?));
                std::thread::sleep(SETTLE);
            }
        }
    }
    let nanoseconds = |samples: &Samples| samples.median().map(|rate| 1e3 / rate);
    for ([keys, values], samples) in CODECS.iter().zip(&quant) {
        let codec = format!("{keys} {values}");
        let mut row: Vec<String> = [dim, group, context, threads].iter().map(ToString::to_string).collect();
        row.extend([codec.clone(), cell(nanoseconds(samples), 2)]);
        row.extend(ggml.iter().map(|ty| cell(ratio(samples.median(), ty.median()), 1)));
        rows.push(row);
        let what = json!({
            "codec": codec, "head": dim, "group": group, "context": context, "tokens": tokens, "threads": threads,
        });
        let figures = [
            ("quant_positions_per_us", samples),
            ("f16_positions_per_us", &ggml[0]),
            ("q8_0_positions_per_us", &ggml[1]),
            ("q4_0_positions_per_us", &ggml[2]),
        ];
        results.push(report::row(what, &figures));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_decodes_and_groups_of_four_go_further() {
        let decode = jobs(1, &[1, 2]);
        assert!(SHAPES.iter().all(|[dim, group]| decode.iter().any(|j| [j.dim, j.group] == [*dim, *group])));
        assert!(decode.iter().filter(|job| job.context > EVERY_SHAPE).all(|job| job.group == 4));
        assert!(jobs(TOKENS, &[1]).iter().all(|job| job.group == 4 && PREFILL.contains(&job.context)));
    }
}
