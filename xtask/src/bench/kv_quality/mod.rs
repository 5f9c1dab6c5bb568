//! `cargo xtask bench kv-quality`: what each KV codec does to attention on heads that are hard to store ([`heads`]).
//!
//! All tokens are encoded; scores and sums run through the codecs' own kernels, so that what they do to queries and
//! weights counts too. Beside our registry stand ggml's blocks after llama.cpp's rotation: a plain Hadamard transform of
//! the largest power of two from 64 that divides the head for keys, of 64 for values.

mod heads;

use super::Options;
use crate::report::{self, Samples};
use anyhow::{Context as _, Result};
use heads::{Head, QUERIES, TOKENS, TRAITS};
use quant_kernels::Isa;
use quant_kernels::codecs::{CodecParams, CodecScratch, KeyCodec, PAGE, ValueCodec, entry, registry};
use quant_kernels::hadamard::{Direction, Hadamard};
use serde_json::{Value, json};

const DIMS: [usize; 2] = [64, 128];
/// Heads of a trait: figures are their means.
const HEADS: u64 = 3;

/// Codecs of keys and values.
struct Recipe {
    key: &'static str,
    value: &'static str,
    how: How,
}

/// What is done around the codecs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Plain,
    /// Keys are balanced by what queries weigh.
    Balanced,
    /// llama.cpp's rotation.
    Rotated,
}

impl Recipe {
    fn name(&self) -> String {
        let codecs = if self.key == self.value {
            self.key.to_owned()
        } else {
            format!("k={},v={}", self.key, self.value)
        };
        match self.how {
            How::Plain => codecs,
            How::Balanced => format!("{codecs} balanced"),
            How::Rotated => format!("{codecs} rotated"),
        }
    }
}

/// The registry, mixed planes, and ggml's blocks rotated.
fn recipes() -> Vec<Recipe> {
    let recipe = |key, value, how| Recipe { key, value, how };
    let mut all: Vec<Recipe> = registry().iter().map(|e| recipe(e.name, e.name, How::Plain)).collect();
    for how in [How::Plain, How::Balanced] {
        for (key, value) in [
            ("planes-6", "planes-5"),
            ("planes-5", "planes-4"),
            ("planes-5", "planes-3"),
            ("planes-4", "planes-4"),
            ("planes-4", "planes-3"),
            ("planes-4", "planes-2"),
            ("planes-3", "planes-2"),
            ("planes-2", "planes-2"),
        ] {
            if how == How::Balanced || key != value {
                all.push(recipe(key, value, how));
            }
        }
    }
    all.extend(
        ["q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"].map(|name| recipe(name, name, How::Rotated)),
    );
    all
}

/// What a recipe does to some heads.
#[derive(Default)]
struct Figures {
    bits: f64,
    /// Divergence of the attention weights from the exact ones, query by query.
    divergences: Vec<f64>,
    /// Error of the output relative to its length, head by head.
    outputs: Samples,
    /// The same with exact keys.
    values: Samples,
}

/// Measures every recipe on every trait and head size.
pub fn run(_: &Options) -> Result<Vec<Value>> {
    let mut results = Vec::new();
    for dim in DIMS {
        for of in &TRAITS {
            let heads: Vec<(Head, Exact)> = (0..HEADS)
                .map(|seed| {
                    let head = Head::new(of, dim, seed);
                    let exact = Exact::new(&head);
                    (head, exact)
                })
                .collect();
            let largest: Samples = heads.iter().map(|(_, exact)| exact.largest()).collect();
            println!(
                "\n{}, head size {dim}, {TOKENS} tokens; largest weight of a query {}",
                of.name,
                report::cell(largest.median(), 2)
            );
            let mut rows =
                vec![report::head(&["codecs", "bits", "KL mean", "KL 99 %", "output error", "by values"])];
            let mut lines: Vec<(f64, Vec<String>)> = Vec::new();
            for recipe in recipes() {
                let mut figures = measure(&recipe, &heads)?;
                figures.divergences.sort_by(f64::total_cmp);
                let count = figures.divergences.len();
                let mean = figures.divergences.iter().sum::<f64>() / count as f64;
                let high = figures.divergences.get(count * 99 / 100).copied().unwrap_or(f64::NAN);
                let error = |samples: &Samples| report::cell(samples.median(), 4);
                let cells = vec![
                    recipe.name(),
                    format!("{:.3}", figures.bits),
                    format!("{mean:.3e}"),
                    format!("{high:.3e}"),
                    error(&figures.outputs),
                    error(&figures.values),
                ];
                lines.push((figures.bits, cells));
                // Reports compare rates: more is better there.
                let inverse: Samples = std::iter::once(1.0 / mean).collect();
                let mut row = report::row(
                    json!({ "case": of.name, "dim": dim, "codecs": recipe.name() }),
                    &[("per_divergence", &inverse)],
                );
                row["bits"] = json!(figures.bits);
                row["kl_mean"] = json!(mean);
                row["kl_99"] = json!(high);
                row["output_error"] = json!(figures.outputs.median());
                row["value_error"] = json!(figures.values.median());
                results.push(row);
            }
            lines.sort_by(|a, b| b.0.total_cmp(&a.0));
            rows.extend(lines.into_iter().map(|(_, cells)| cells));
            report::table(&rows);
        }
    }
    Ok(results)
}

/// Attention as it should be.
struct Exact {
    /// `[QUERIES][TOKENS]`
    weights: Vec<f64>,
    /// `[QUERIES][dim]`
    outputs: Vec<f64>,
}

impl Exact {
    fn new(head: &Head) -> Self {
        let mut scores = Vec::with_capacity(QUERIES * TOKENS);
        for query in head.queries.chunks_exact(head.dim) {
            scores.extend(
                head.keys.chunks_exact(head.dim).map(|key| {
                    query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
                }),
            );
        }
        let weights = softmax(&scores, head.dim);
        let mut outputs = vec![0f64; QUERIES * head.dim];
        for (weights, out) in weights.chunks_exact(TOKENS).zip(outputs.chunks_exact_mut(head.dim)) {
            for (weight, value) in weights.iter().zip(head.values.chunks_exact(head.dim)) {
                out.iter_mut().zip(value).for_each(|(out, v)| *out += weight * f64::from(*v));
            }
        }
        Self { weights, outputs }
    }

    /// Mean over queries of the largest weight.
    fn largest(&self) -> f64 {
        let largest = self.weights.chunks_exact(TOKENS).map(|row| row.iter().copied().fold(0.0, f64::max));
        largest.sum::<f64>() / QUERIES as f64
    }

    /// Length of the error over length.
    fn error(&self, outputs: &[f32]) -> f64 {
        let error: f64 = self.outputs.iter().zip(outputs).map(|(a, b)| (a - f64::from(*b)).powi(2)).sum();
        (error / self.outputs.iter().map(|x| x * x).sum::<f64>()).sqrt()
    }
}

/// Weights of rows of scores, divided by the root of the head size first.
fn softmax(scores: &[f64], dim: usize) -> Vec<f64> {
    let scale = 1.0 / (dim as f64).sqrt();
    let mut weights = Vec::with_capacity(scores.len());
    for row in scores.chunks_exact(TOKENS) {
        let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let start = weights.len();
        weights.extend(row.iter().map(|score| ((score - top) * scale).exp()));
        let sum: f64 = weights[start..].iter().sum();
        weights[start..].iter_mut().for_each(|weight| *weight /= sum);
    }
    weights
}

fn measure(recipe: &Recipe, heads: &[(Head, Exact)]) -> Result<Figures> {
    let mut figures = Figures::default();
    for (seed, (head, exact)) in heads.iter().enumerate() {
        let mut params = CodecParams::new(head.dim, 100 + seed as u64);
        params.balance = (recipe.how == How::Balanced).then_some(&head.balance[..]);
        let missing = || format!("no codec {}", recipe.name());
        let key = (entry(recipe.key).with_context(missing)?.key)(&params)?;
        let value = (entry(recipe.value).with_context(missing)?.value)(&params)?;
        let rotation = (recipe.how == How::Rotated).then(|| Rotation::new(head.dim)).transpose()?;
        let turned = |x: &[f32], by: fn(&Rotation) -> Hadamard| match &rotation {
            Some(rotation) => apply(by(rotation), Direction::Forward, x),
            None => x.to_vec(),
        };
        let bytes = key.page_bytes() + value.page_bytes();
        figures.bits = 8.0 * bytes as f64 / (2 * PAGE * head.dim) as f64;
        let scores = scores(&*key, &turned(&head.keys, |r| r.keys), &turned(&head.queries, |r| r.keys))?;
        let weights = softmax(&scores, head.dim);
        for (p, q) in exact.weights.chunks_exact(TOKENS).zip(weights.chunks_exact(TOKENS)) {
            let terms = p.iter().zip(q).filter(|(p, _)| **p > 0.0).map(|(p, q)| p * (p / q.max(1e-300)).ln());
            figures.divergences.push(terms.sum());
        }
        let pages = encode(&*value, &turned(&head.values, |r| r.values))?;
        let outputs = |weights: &[f64]| {
            let out = sums(&*value, &pages, weights);
            exact.error(&match &rotation {
                Some(rotation) => apply(rotation.values, Direction::Inverse, &out),
                None => out,
            })
        };
        figures.outputs.push(outputs(&weights));
        figures.values.push(outputs(&exact.weights));
    }
    Ok(figures)
}

/// llama.cpp's transforms.
struct Rotation {
    keys: Hadamard,
    values: Hadamard,
}

impl Rotation {
    fn new(dim: usize) -> Result<Self> {
        let mut size = 64;
        while dim.is_multiple_of(2 * size) {
            size *= 2;
        }
        Ok(Self { keys: Hadamard::new(size)?, values: Hadamard::new(64)? })
    }
}

fn apply(transform: Hadamard, direction: Direction, x: &[f32]) -> Vec<f32> {
    let mut x = x.to_vec();
    x.chunks_exact_mut(transform.dim()).for_each(|x| transform.apply(Isa::detect(), direction, x));
    x
}

/// Every query with every token, `[QUERIES][TOKENS]`.
fn scores(codec: &dyn KeyCodec, keys: &[f32], queries: &[f32]) -> Result<Vec<f64>> {
    let (isa, scratch, len) = (Isa::detect(), &mut CodecScratch::default(), codec.query_len());
    let mut prepared = vec![0f32; QUERIES * len];
    for (query, out) in queries.chunks_exact(codec.dim()).zip(prepared.chunks_exact_mut(len)) {
        codec.prepare(isa, query, scratch, out);
    }
    let mut scores = vec![0f32; QUERIES * TOKENS];
    let mut page = vec![0; codec.page_bytes()];
    for (first, keys) in (0..TOKENS).step_by(PAGE).zip(keys.chunks_exact(PAGE * codec.dim())) {
        codec.encode(isa, keys, scratch, &mut page)?;
        codec.score(isa, &page, &prepared, scratch, &mut scores[first..], TOKENS);
    }
    Ok(scores.into_iter().map(f64::from).collect())
}

fn encode(codec: &dyn ValueCodec, values: &[f32]) -> Result<Vec<Vec<u8>>> {
    let scratch = &mut CodecScratch::default();
    let pages = values.chunks_exact(PAGE * codec.dim()).map(|values| {
        let mut page = vec![0; codec.page_bytes()];
        codec.encode(Isa::detect(), values, scratch, &mut page)?;
        Ok(page)
    });
    pages.collect()
}

/// Values summed by weights, `[QUERIES][dim]`.
fn sums(codec: &dyn ValueCodec, pages: &[Vec<u8>], weights: &[f64]) -> Vec<f32> {
    let (isa, scratch, len) = (Isa::detect(), &mut CodecScratch::default(), codec.sum_len());
    let weights: Vec<f32> = weights.iter().map(|weight| *weight as f32).collect();
    let mut sums = vec![0f32; QUERIES * len];
    for (first, page) in (0..TOKENS).step_by(PAGE).zip(pages) {
        codec.accumulate(isa, page, &weights[first..], TOKENS, scratch, &mut sums);
    }
    let mut out = vec![0f32; QUERIES * codec.dim()];
    for (sum, out) in sums.chunks_exact(len).zip(out.chunks_exact_mut(codec.dim())) {
        codec.finish(isa, sum, scratch, out);
    }
    out
}
