//! `cargo xtask bench attention`: attention over KV caches of several codecs beside ggml's flash attention over its own
//! types, in interleaved rounds. Figures for people are nanoseconds per position and KV head; for programs positions per
//! microsecond. A table of its own has what sealing costs: keys and values encoded, per position and KV head, one thread.
//! `--heads`, `--groups`, `--contexts` and `--codecs` choose a part of the grid.

use super::engine::Engine;
use super::{Options, build_ours, build_peer};
use crate::report::{self, Samples, cell, ratio};
use anyhow::{Context as _, Result};
use quant_kernels::attention::PAGE;
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
/// Head sizes.
const SIZES: [usize; 4] = [64, 96, 128, 256];
/// Query heads for each KV head.
const GROUPS: [usize; 3] = [1, 4, 8];
/// Contexts of one token.
const DECODE: [usize; 3] = [2 << 10, 32 << 10, 128 << 10];
/// Contexts of many tokens, and how many.
const PREFILL: [usize; 2] = [4 << 10, 8 << 10];
const TOKENS: usize = 128;
/// The group that is measured with many tokens, and the context beyond which it is the only one, unless groups are named.
const PREFILL_GROUP: usize = 4;
const EVERY_GROUP: usize = 32 << 10;
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
    let codecs = codecs(&options.codecs)?;
    let mut results = Vec::new();
    for tokens in [1, TOKENS] {
        let head = ["head", "group", "context", "threads", "codec", "quant ns", "x f16", "x q8_0", "x q4_0"];
        let mut rows = vec![report::head(&head)];
        for job in jobs(tokens, options) {
            eprintln!("{job:?}");
            measure(&mut ours, peer.as_mut(), options.reps, (job, &codecs), &mut rows, &mut results)?;
        }
        if rows.len() > 1 {
            println!("\nattention of {tokens} tokens, ns per position and KV head; ggml's time over ours:\n");
            report::table(&rows);
        }
    }
    encoding(&mut ours, options, &codecs, &mut results)?;
    Ok(results)
}

/// What sealing costs: nanoseconds for each position of a KV head, its key and its value.
fn encoding(
    ours: &mut Engine,
    options: &Options,
    codecs: &[[String; 2]],
    results: &mut Vec<Value>,
) -> Result<()> {
    let mut rows = vec![report::head(&["head", "codec", "encode ns"])];
    for dim in SIZES.into_iter().filter(|dim| options.heads.is_empty() || options.heads.contains(dim)) {
        for [keys, values] in codecs.iter().filter(|pair| pair.iter().all(|codec| codec != "f16")) {
            let mut samples = Samples::new();
            for _ in 0..options.reps {
                let seconds = ours.seconds(&format!("encode {keys} {values} {dim}"))?;
                samples.push(PAGE as f64 / 1e6 / seconds.unwrap_or(f64::NAN));
            }
            let codec = format!("{keys} {values}");
            rows.push(vec![dim.to_string(), codec.clone(), cell(samples.median().map(|rate| 1e3 / rate), 1)]);
            let what = json!({ "codec": codec, "head": dim, "encode": true });
            results.push(report::row(what, &[("quant_positions_per_us", &samples)]));
        }
    }
    println!("\nencoding keys and values, ns per position and KV head, one thread:\n");
    report::table(&rows);
    Ok(())
}

/// Codecs of keys and values, as `KEYS:VALUES`; none is all of [`CODECS`].
fn codecs(asked: &[String]) -> Result<Vec<[String; 2]>> {
    if asked.is_empty() {
        return Ok(CODECS.map(|pair| pair.map(str::to_owned)).to_vec());
    }
    let pair = |text: &String| {
        let (keys, values) = text.split_once(':').context("codecs are KEYS:VALUES")?;
        Ok([keys.to_owned(), values.to_owned()])
    };
    asked.iter().map(pair).collect()
}

fn jobs(tokens: usize, options: &Options) -> Vec<Job> {
    let asked = |these: &[usize], item: usize| these.is_empty() || these.contains(&item);
    let mut jobs = Vec::new();
    for dim in SIZES.into_iter().filter(|dim| asked(&options.heads, *dim)) {
        for group in GROUPS.into_iter().filter(|group| asked(&options.groups, *group)) {
            let contexts = if tokens == 1 { &DECODE[..] } else { &PREFILL };
            for &context in contexts.iter().filter(|context| asked(&options.contexts, **context)) {
                let every = tokens == 1 && (context <= EVERY_GROUP || !options.groups.is_empty());
                if group == PREFILL_GROUP || every {
                    let of = |&threads| Job { dim, group, context, tokens, threads };
                    jobs.extend(options.threads.iter().map(of));
                }
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
    (job, codecs): (Job, &[[String; 2]]),
    rows: &mut Vec<Vec<String>>,
    results: &mut Vec<Value>,
) -> Result<()> {
    let Job { dim, group, context, tokens, threads } = job;
    let shape = format!("{dim} {group} {HEADS} {context} {tokens} {threads}");
    // positions per microsecond
    let rate = |seconds: Option<f64>| (context * HEADS) as f64 / 1e6 / seconds.unwrap_or(f64::NAN);
    let mut quant: Vec<Samples> = codecs.iter().map(|_| Samples::new()).collect();
    let mut ggml = [const { Samples::new() }; TYPES.len()];
    for _ in 0..rounds {
        for ([keys, values], samples) in codecs.iter().zip(&mut quant) {
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
    for ([keys, values], samples) in codecs.iter().zip(&quant) {
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
    fn every_shape_decodes_and_parts_can_be_named() {
        let parse = |args: &[&str]| Options::parse(args.iter().map(|arg| (*arg).to_owned()).collect());
        let all = parse(&["--threads", "1"]).unwrap();
        let decode = jobs(1, &all);
        assert_eq!(decode.len(), SIZES.len() * (2 * GROUPS.len() + 1));
        assert!(decode.iter().all(|job| job.context <= EVERY_GROUP || job.group == PREFILL_GROUP));
        assert!(jobs(TOKENS, &all).iter().all(|job| job.group == 4 && PREFILL.contains(&job.context)));
        let args = ["--heads", "64,128", "--groups", "1", "--contexts", "131072", "--codecs", "f16:planes-4"];
        let part = parse(&args).unwrap();
        assert_eq!(jobs(1, &part).len(), 2 * part.threads.len());
        assert!(jobs(TOKENS, &part).is_empty());
        assert_eq!(codecs(&part.codecs).unwrap(), [["f16", "planes-4"]]);
        assert!(codecs(&["f16".to_owned()]).is_err());
    }
}
