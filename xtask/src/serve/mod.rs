//! Our engine behind the benchmark protocol of `bench/engine.rs` (the hidden task `engine`).

pub mod first_token;
pub mod kernels;

use anyhow::{Context as _, Result, bail};
use quant_gguf::{Bytes, Gguf};
use quant_kernels::parallel::Team;
use quant_kernels::{Activations, Isa, Kernels, Parallel};
use quant_kvcache::{KvCache, Policy};
use quant_models::{Context, Decoder, LogitsWanted, NoProbe, Span};
use std::io::BufRead as _;
use std::sync::Arc;
use std::time::Instant;

/// A loaded model and what it runs with.
struct Ours {
    decoder: Decoder,
    context: Context,
    cache: KvCache,
    logits: Vec<f32>,
    /// The file's first bytes, on which the read bandwidth is measured.
    bytes: Bytes,
}

/// `xtask engine MODEL --threads T`: jobs come by standard input.
pub fn run(args: Vec<String>) -> Result<()> {
    use lexopt::prelude::{Long, Value, ValueExt as _};
    let (mut model, mut threads) = (None, 1);
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Value(path) if model.is_none() => model = Some(path),
            Long("threads") => threads = parser.value()?.parse()?,
            _ => bail!(arg.unexpected()),
        }
    }
    let start = Instant::now();
    let path = model.context("a model")?;
    let bytes = Bytes::open(&path)?;
    let bytes = bytes.slice(0..bytes.len().min(512 << 20)).context("a part of the file")?;
    let file = Gguf::open(path)?;
    let decoder = quant_models::load(&file)?;
    let parallel: Arc<dyn Parallel + Send> = Arc::new(Team::new(threads)?);
    let context = Context::new(Arc::new(Kernels::new(isa()?)), parallel, Activations::Auto);
    let cache = KvCache::new(decoder.kv_layout(), Policy::F16, 2 << 30)?;
    let mut ours = Ours { decoder, context, cache, logits: Vec::new(), bytes };
    println!("{}", serde_json::json!({ "ready": true, "load_s": start.elapsed().as_secs_f64() }));
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (job, count) =
            line.split_once(' ').context("a job is `prefill N`, `decode N` or `bandwidth N`")?;
        let count: usize = count.trim().parse()?;
        let seconds = match job {
            "prefill" => ours.prefill(count)?,
            "decode" => ours.decode(count.max(1))?,
            "bandwidth" => ours.bandwidth(),
            other => bail!("unknown job {other}"),
        };
        println!("{}", serde_json::json!({ "job": job, "count": count, "seconds": seconds }));
    }
    Ok(())
}

/// The tier that `QUANT_ISA` names, or the best.
fn isa() -> Result<Isa> {
    Ok(std::env::var("QUANT_ISA").map_or_else(|_| Ok(Isa::detect()), |name| Isa::from_name(&name))?)
}

impl Ours {
    fn tokens(&self, count: usize) -> Vec<u32> {
        let vocabulary = self.decoder.info().vocab as u64;
        (0..count as u64).map(|i| ((i * 7919 + 13) % vocabulary) as u32).collect()
    }

    fn feed(&mut self, sequence: quant_kvcache::SequenceId, tokens: &[u32]) -> Result<f64> {
        let start = Instant::now();
        let span = Span { sequence, tokens, logits: LogitsWanted::Last };
        self.decoder.forward(&mut self.context, &mut self.cache, &[span], &mut self.logits, &mut NoProbe)?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn prefill(&mut self, count: usize) -> Result<f64> {
        let sequence = self.cache.create();
        let tokens = self.tokens(count);
        let seconds = self.feed(sequence, &tokens);
        self.cache.release(sequence)?;
        seconds
    }

    fn decode(&mut self, count: usize) -> Result<f64> {
        let sequence = self.cache.create();
        let tokens = self.tokens(16.max(count));
        self.feed(sequence, &tokens[..16])?;
        let mut seconds =
            tokens[..count].iter().map(|&t| self.feed(sequence, &[t])).collect::<Result<Vec<_>>>()?;
        self.cache.release(sequence)?;
        Ok(crate::report::median(&mut seconds))
    }

    /// Reads as much of the file as no cache holds; the answer is in GB/s.
    fn bandwidth(&self) -> f64 {
        crate::limits::read_bandwidth(&**self.context.parallel(), &self.bytes)
    }
}
