//! `cargo xtask peers kv-quality`: what compressed KV caches cost on a trained model, ours beside llama.cpp's. Each is
//! judged against the f16 cache of its own engine, on the same token ids in the same chunks.

use super::build_peer;
use crate::{report, tidy};
use anyhow::{Context as _, Result, bail, ensure};
use quant_runtime::quality::{
    Chunks, LogitsReader, LogitsWriter, Quality, Reference, compare_saved, measure,
};
use quant_runtime::{Engine, EngineOptions, Model, Policy};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Codecs alone, so that every position counts, and presets as they are.
const OURS: [&str; 8] =
    ["near", "auto", "4", "k=5,v=4", "k=4,v=4", "k=4,v=3", "k=q8_0,v=q8_0", "k=q4_0,v=q4_0"];
/// The peer's KV types.
const THEIRS: [(&str, f64); 4] = [("q8_0", 8.5), ("q5_0", 5.5), ("q4_0", 4.5), ("iq4_nl", 4.5)];

/// Tokens that the peer reads at once.
const MOST: usize = 2048;

struct Options {
    model: PathBuf,
    texts: Vec<PathBuf>,
    context: usize,
    chunks: usize,
    policies: Vec<String>,
    json: Option<PathBuf>,
}

impl Options {
    fn parse(args: Vec<String>) -> Result<Self> {
        use lexopt::prelude::{Long, Short, Value, ValueExt as _};
        let demo = tidy::root().join("cli/demo");
        let mut options = Self {
            model: demo.join("demo-q8_0.gguf"),
            texts: vec![demo.join("heldout/stories.ids.txt")],
            context: 1024,
            chunks: 4,
            policies: OURS.map(str::to_owned).to_vec(),
            json: None,
        };
        let mut parser = lexopt::Parser::from_args(args.into_iter().skip(1));
        while let Some(arg) = parser.next()? {
            match arg {
                Value(path) => options.model = path.into(),
                Short('f') => {
                    options.texts = parser.value()?.string()?.split(',').map(PathBuf::from).collect();
                }
                Long("ctx") => options.context = parser.value()?.parse()?,
                Long("chunks") => options.chunks = parser.value()?.parse()?,
                Long("kv") => {
                    options.policies = parser.value()?.string()?.split(';').map(str::to_owned).collect();
                }
                Long("json") => options.json = Some(parser.value()?.into()),
                _ => bail!(arg.unexpected()),
            }
        }
        ensure!(options.context <= MOST, "chunks have at most {MOST} tokens, the peer's batch");
        Ok(options)
    }
}

/// Runs the comparison and prints a table for each text.
pub fn run(args: Vec<String>) -> Result<()> {
    let options = Options::parse(args)?;
    let peer = build_peer()?;
    let model = Model::load(&options.model)?;
    let mut results = Vec::new();
    for path in &options.texts {
        let words = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let ids = words.split_ascii_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        let chunks = Chunks::new(&model, ids, options.context, Some(options.chunks))?;
        let text = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        println!("\n{text}: {} chunks of {} tokens\n", chunks.count(), chunks.context());
        let mut rows = vec![report::head(&[
            "KV cache",
            "bits",
            "KL mean",
            "99.9 %",
            "perplexity %",
            "+-",
            "same top 1 %",
        ])];
        let mut take = |engine: &str, kv: &str, bits: f64, quality: &Quality| -> Result<()> {
            let apart = quality.divergence.context("a run beside a reference")?;
            rows.push(vec![
                format!("{engine} {kv}"),
                format!("{bits:.2}"),
                format!("{:.2e}", apart.mean),
                format!("{:.1e}", apart.percentile_99_9),
                format!("{:+.3}", 100.0 * apart.perplexity_change),
                format!("{:.3}", 100.0 * apart.change_error),
                format!("{:.2}", 100.0 * apart.top1_agreement),
            ]);
            results.push(what(&text, engine, kv, bits, quality));
            Ok(())
        };
        for (kv, bits, quality) in ours(&model, &chunks, &options.policies)? {
            take("quant", &kv, bits, &quality)?;
        }
        let theirs = Theirs { program: &peer, model: &options.model, first: first_token(&model) };
        let exact = theirs.saved("f16", &chunks, model.info().vocab)?;
        for (kv, bits) in THEIRS {
            let candidate = theirs.saved(kv, &chunks, model.info().vocab)?;
            let measured = compare_saved(&mut exact.reader()?, &mut candidate.reader()?)?;
            take("llama.cpp", kv, bits, measured.candidates.first().context("a candidate")?)?;
        }
        report::table(&rows);
    }
    options.json.as_deref().map_or(Ok(()), |path| report::save(path, "kv-quality of peers", results))
}

/// For programs. Figures of reports are rates, of which more is better: errors go in as their reciprocals.
fn what(text: &str, engine: &str, kv: &str, bits: f64, quality: &Quality) -> Value {
    let apart = quality.divergence.map(|apart| {
        json!({
            "mean": apart.mean,
            "percentile_99_9": apart.percentile_99_9,
            "perplexity_change": apart.perplexity_change,
            "top1_agreement": apart.top1_agreement,
        })
    });
    let exactness = quality.divergence.map_or(0.0, |apart| 1.0 / apart.mean);
    report::row(
        json!({ "text": text, "engine": engine, "kv": kv, "bits": bits, "divergence": apart }),
        &[("reciprocal_divergence", &[exactness].into_iter().collect())],
    )
}

fn first_token(model: &Model) -> i64 {
    let tokenizer = model.tokenizer().ok().filter(|tokenizer| tokenizer.add_bos());
    tokenizer.and_then(|tokenizer| tokenizer.bos()).map_or(-1, i64::from)
}

/// Our policies beside our f16 cache: name, bits of a sealed page, result.
fn ours(model: &Arc<Model>, chunks: &Chunks, policies: &[String]) -> Result<Vec<(String, f64, Quality)>> {
    let engine = |kv: Policy| {
        let options = EngineOptions { kv, context: Some(chunks.context()), ..EngineOptions::default() };
        Engine::new(model, &options)
    };
    let parsed = policies.iter().map(|text| text.parse()).collect::<Result<Vec<Policy>, _>>()?;
    let mut engines = parsed.iter().cloned().map(engine).collect::<Result<Vec<_>, _>>()?;
    let mut exact = engine(Policy::F16)?;
    let reference = Some(Reference::Engine(&mut exact));
    let step = &mut |_, _| ControlFlow::Continue(());
    let measured = measure(chunks, model.info().vocab, reference, &mut engines, None, step)?;
    let candidates = measured.context("a whole run")?.candidates;
    let bits = |kv: &Policy| {
        let bytes = |kv: &Policy| {
            anyhow::Ok(quant_kvcache::KvCache::new(model.decoder().kv_layout(), kv, 0)?.page_bytes())
        };
        anyhow::Ok(16.0 * bytes(kv)? as f64 / bytes(&Policy::F16)? as f64)
    };
    let rows = policies.iter().zip(&parsed).zip(candidates);
    rows.map(|((name, kv), quality)| Ok((name.clone(), bits(kv)?, quality))).collect()
}

/// llama.cpp on a model.
struct Theirs<'a> {
    program: &'a Path,
    model: &'a Path,
    /// First token of every chunk, -1 for its own.
    first: i64,
}

/// Logits in a file that goes when this does.
struct Saved(PathBuf);

impl Saved {
    fn reader(&self) -> Result<LogitsReader> {
        Ok(LogitsReader::open(&self.0)?)
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        // What can't be removed is under target.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Theirs<'_> {
    /// Runs the chunks with a KV cache of a type.
    fn saved(&self, kv: &str, chunks: &Chunks, vocabulary: usize) -> Result<Saved> {
        let folder = tidy::root().join("target/kv-peers");
        std::fs::create_dir_all(&folder)?;
        let saved = Saved(folder.join(format!("{kv}-{}.logits", std::process::id())));
        LogitsWriter::create(&saved.0, chunks, vocabulary)?.finish()?;
        let out = File::options().append(true).open(&saved.0)?;
        let mut command = Command::new(self.program);
        command.arg("logits").arg(self.model).args(["--kv", kv]);
        let mut child = command.stdin(Stdio::piped()).stdout(out).spawn()?;
        let mut input = child.stdin.take().context("a piped input")?;
        let ids: Vec<String> = chunks.ids().iter().map(u32::to_string).collect();
        writeln!(input, "{} {} {}", chunks.context(), self.first, ids.join(" "))?;
        drop(input);
        ensure!(child.wait()?.success(), "llama.cpp failed with a KV cache of {kv}");
        Ok(saved)
    }
}
