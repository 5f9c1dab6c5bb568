//! What the commands that judge quality have in common: a text in chunks, and engines to run it.

use crate::engine_args::{ActivationsArg, isa};
use crate::{failure, source, text_input};
use quant_runtime::quality::{Chunks, Divergence, Perplexity, Quality};
use quant_runtime::{Engine, EngineOptions, Model, Policy};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// The text and how it is evaluated.
#[derive(Debug, clap::Args)]
pub struct QualityArgs {
    /// The model's GGUF file.
    model: PathBuf,
    /// The text; - is standard input.
    #[arg(short = 'f', long = "file", value_name = "FILE", conflicts_with = "tokens")]
    file: Option<PathBuf>,
    /// The text as token ids, separated by white space, taken as they are.
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Tokens of a chunk; its second half is scored.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(4..))]
    ctx: u32,
    /// Chunks at the most [default: all that the text fills].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    chunks: Option<u32>,
    /// How activations are treated.
    #[arg(long, value_enum, default_value = "auto")]
    activations: ActivationsArg,
    /// Threads [default: the physical cores this process may use].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// One JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

/// A model with a text.
pub struct Evaluation {
    pub model: Arc<Model>,
    pub chunks: Chunks,
    options: EngineOptions,
}

impl QualityArgs {
    /// Opens the model and cuts the text.
    pub fn open(&self) -> anyhow::Result<Evaluation> {
        let options = EngineOptions {
            isa: isa()?,
            threads: self.threads.map(|n| n as usize),
            activations: self.activations.into(),
            context: Some(self.ctx as usize),
            ..EngineOptions::default()
        };
        let given = match (&self.file, &self.tokens) {
            (Some(path), _) => Ok(text_input::read_text(path)?),
            (None, Some(path)) => Err(text_input::read_tokens(path)?),
            (None, None) => {
                return Err(failure::usage("there is no text: give -f FILE or --tokens FILE"));
            }
        };
        let model = Model::from_gguf(source::open(Some(&self.model))?)?;
        let ids = match given {
            Ok(text) => model.tokenizer()?.encode(&text, true, false),
            Err(ids) => ids,
        };
        let chunks = Chunks::new(&model, ids, self.ctx as usize, self.chunks.map(|n| n as usize))?;
        Ok(Evaluation { model, chunks, options })
    }

    /// What the model is called in reports.
    pub fn model_name(&self) -> String {
        source::name(Some(&self.model))
    }
}

impl Evaluation {
    /// An engine with this KV cache.
    pub fn engine(&self, kv: &Policy) -> anyhow::Result<Engine> {
        Ok(Engine::new(&self.model, &EngineOptions { kv: kv.clone(), ..self.options.clone() })?)
    }

    pub fn vocabulary(&self) -> usize {
        self.model.info().vocab
    }

    /// Keys and values of a full chunk, in numbers.
    fn kv_elements(&self) -> usize {
        let layers = self.model.decoder().kv_layout();
        let row: usize =
            layers.iter().map(|layer| layer.shape).map(|of| of.kv_heads * (of.key_dim + of.value_dim)).sum();
        row * self.chunks.context()
    }

    /// Bits of a number, everything counted.
    pub fn kv_bits(&self, quality: &Quality) -> f64 {
        8.0 * quality.kv_bytes as f64 / self.kv_elements().max(1) as f64
    }

    /// `4 chunks of 512 tokens, 1020 positions scored`.
    pub fn summary(&self) -> String {
        let (count, context) = (self.chunks.count(), self.chunks.context());
        let chunks = if count == 1 { "chunk" } else { "chunks" };
        format!("{count} {chunks} of {context} tokens, {} positions scored", self.chunks.positions())
    }

    /// The same for programs.
    pub fn summary_json(&self) -> Value {
        json!({
            "chunks": self.chunks.count(),
            "context": self.chunks.context(),
            "positions": self.chunks.positions(),
        })
    }

    pub fn quality_json(&self, quality: &Quality) -> Value {
        json!({
            "kv_bytes": quality.kv_bytes,
            "kv_bits_per_element": self.kv_bits(quality),
            "perplexity": perplexity_json(&quality.perplexity),
            "divergence": quality.divergence.as_ref().map(divergence_json),
        })
    }
}

pub fn perplexity_json(perplexity: &Perplexity) -> Value {
    json!({
        "value": perplexity.value,
        "standard_error": perplexity.standard_error,
        "loss": perplexity.loss,
    })
}

fn divergence_json(divergence: &Divergence) -> Value {
    json!({
        "mean": divergence.mean,
        "standard_error": divergence.standard_error,
        "median": divergence.median,
        "percentile_99": divergence.percentile_99,
        "percentile_99_9": divergence.percentile_99_9,
        "max": divergence.max,
        "top1_agreement": divergence.top1_agreement,
        "perplexity_change": divergence.perplexity_change,
        "perplexity_change_error": divergence.change_error,
    })
}
