//! `cargo xtask bench` and `cargo xtask peers`: kernels, models and cold starts, ours beside the machine's limits and
//! the peer; and the error of KV codecs.

mod attention;
mod engine;
mod kernels;
mod kv_peers;
mod kv_quality;
mod models;
mod neighbour;
pub mod peers;
mod plan;
mod start;

use crate::{report, tidy};
use anyhow::{Context as _, Result, bail, ensure};
use quant_kernels::GgmlType;
use std::path::PathBuf;
use std::process::Command;

/// What to measure.
pub struct Options {
    /// The parts asked for; none is all.
    parts: Vec<String>,
    /// Synthetic models, as `SHAPE:TYPE`; none is each part's own choice.
    models: Vec<String>,
    /// Types of weights; none is all.
    types: Vec<GgmlType>,
    /// Tokens of a matmul.
    tokens: Vec<usize>,
    /// Of attention: head sizes, query heads of a KV head, contexts and `KEYS:VALUES`; none is all.
    heads: Vec<usize>,
    groups: Vec<usize>,
    contexts: Vec<usize>,
    codecs: Vec<String>,
    /// Thread counts.
    threads: Vec<usize>,
    /// Rounds; medians are quoted.
    reps: usize,
    /// Tokens of a prefill.
    prefill: usize,
    /// Tokens of a decode.
    decode: usize,
    /// Whether kernels and starts are compared with the peer.
    peer: bool,
    /// `peers` measures while another thread computes.
    neighbour: bool,
    /// Where to write the figures.
    json: Option<PathBuf>,
}

impl Options {
    fn parse(args: Vec<String>) -> Result<Self> {
        use lexopt::prelude::{Long, Short, Value, ValueExt as _};
        let mut options = Self {
            parts: Vec::new(),
            models: Vec::new(),
            types: Vec::new(),
            tokens: vec![1, 2, 4, 8, 16, 512],
            heads: Vec::new(),
            groups: Vec::new(),
            contexts: Vec::new(),
            codecs: Vec::new(),
            threads: vec![1, 2],
            reps: 5,
            prefill: 512,
            decode: 64,
            peer: true,
            neighbour: false,
            json: None,
        };
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Value(part) => options.parts.push(part.string()?),
                Long("threads") => options.threads = list(&parser.value()?.string()?, number)?,
                Long("tokens") => options.tokens = list(&parser.value()?.string()?, number)?,
                Long("heads") => options.heads = list(&parser.value()?.string()?, number)?,
                Long("groups") => options.groups = list(&parser.value()?.string()?, number)?,
                Long("contexts") => options.contexts = list(&parser.value()?.string()?, number)?,
                Long("codecs") => options.codecs = list(&parser.value()?.string()?, |c| Ok(c.to_owned()))?,
                Long("types") => options.types = list(&parser.value()?.string()?, ty)?,
                Long("models") => options.models = list(&parser.value()?.string()?, |m| Ok(m.to_owned()))?,
                Long("reps") => options.reps = parser.value()?.parse()?,
                Short('p') => options.prefill = parser.value()?.parse()?,
                Short('n') => options.decode = parser.value()?.parse()?,
                Long("no-peer") => options.peer = false,
                Long("neighbour") => options.neighbour = true,
                Long("json") => options.json = Some(parser.value()?.into()),
                _ => bail!(arg.unexpected()),
            }
        }
        ensure!(options.reps > 0 && options.prefill > 0 && options.decode > 0, "counts are at least 1");
        let counts = options.threads.iter().chain(&options.tokens);
        ensure!(counts.min().is_some_and(|&least| least > 0), "counts are at least 1");
        Ok(options)
    }

    fn models<'a>(&'a self, otherwise: &[&'a str]) -> Vec<&'a str> {
        if self.models.is_empty() {
            return otherwise.to_vec();
        }
        self.models.iter().map(String::as_str).collect()
    }
}

fn list<T>(text: &str, item: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    text.split(',').map(item).collect()
}

fn number(text: &str) -> Result<usize> {
    text.parse().with_context(|| format!("'{text}' is not a number"))
}

fn ty(text: &str) -> Result<GgmlType> {
    GgmlType::from_name(text).with_context(|| format!("no ggml type '{text}'"))
}

/// A part of the benches.
type Part = fn(&Options) -> Result<Vec<serde_json::Value>>;

/// The parts by name; those of [`ON_REQUEST`] run only when asked for.
const PARTS: [(&str, Part); 6] = [
    ("kernels", kernels::run),
    ("attention", attention::run),
    ("models", models::run),
    ("start", start::run),
    ("criterion", criterion),
    ("kv-quality", kv_quality::run),
];

/// Parts that are not about this machine's speed beside its limits.
const ON_REQUEST: [&str; 2] = ["criterion", "kv-quality"];

/// Runs the parts asked for.
pub fn run(args: Vec<String>) -> Result<()> {
    let options = Options::parse(args)?;
    let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    if let Some(part) = options.parts.iter().find(|part| !names.contains(&part.as_str())) {
        bail!("no bench '{part}'; there are {}", names.join(", "));
    }
    let mut results = Vec::new();
    for (name, part) in PARTS {
        let asked = options.parts.iter().any(|asked| asked == name);
        if asked || options.parts.is_empty() && !ON_REQUEST.contains(&name) {
            results.extend(part(&options)?);
        }
    }
    options.json.as_deref().map_or(Ok(()), |path| report::save(path, "bench", results))
}

/// The micro-benchmarks of quant-kernels; criterion keeps their figures under target/criterion.
fn criterion(_: &Options) -> Result<Vec<serde_json::Value>> {
    let status = cargo().args(["bench", "-p", "quant-kernels"]).current_dir(tidy::root()).status()?;
    ensure!(status.success(), "the kernel benches failed");
    Ok(Vec::new())
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Builds the release of this very program: our engine behind a pipe.
fn build_ours() -> Result<PathBuf> {
    let root = tidy::root();
    let built = cargo().args(["build", "--release", "--quiet", "-p", "xtask"]).current_dir(&root).status()?;
    ensure!(built.success(), "building quant failed");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release").join(format!("xtask{}", std::env::consts::EXE_SUFFIX)))
}

/// Builds llama.cpp natively in its own workspace.
fn build_peer() -> Result<PathBuf> {
    let folder = tidy::root().join("xtask/peers");
    let built = cargo().args(["build", "--release", "--quiet"]).current_dir(&folder).status()?;
    ensure!(built.success(), "building llama.cpp failed: it needs cmake, a C++ compiler and libclang");
    Ok(folder.join("target/release").join(format!("quant-peers{}", std::env::consts::EXE_SUFFIX)))
}
