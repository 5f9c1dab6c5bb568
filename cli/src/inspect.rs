//! `quant inspect`: what is in a model file, and whether this build runs it.

use crate::{output, source};
use quant_gguf::{Gguf, TensorInfo, Value};
use quant_kvcache::{KvCache, PAGE, Policy};
use quant_models::{Decoder, ModelInfo};
use quant_tokenizer::Tokenizer;
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Show what is in a model file: its architecture, its types, its metadata, and what of it is supported.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The model's GGUF file [default: the bundled demo model].
    model: Option<PathBuf>,
    /// List every tensor: name, shape, type, bytes, bits per weight.
    #[arg(long)]
    tensors: bool,
    /// One JSON object; long arrays are cut to their first entries.
    #[arg(long)]
    json: bool,
}

/// Whose bytes per token are told.
const KV_POLICIES: [&str; 4] = ["f32", "f16", "auto", "4"];

/// Arrays in the metadata are shown up to here.
const TEXT_ENTRIES: usize = 4;
const JSON_ENTRIES: usize = 64;

/// What the commands say of a file.
struct Report<'a> {
    name: String,
    file: &'a Gguf,
    decoder: Result<Decoder, String>,
    tokenizer: Result<Tokenizer, String>,
    types: BTreeMap<String, TypeSum>,
    values: u64,
    bytes: u64,
}

/// The tensors of one type.
#[derive(Default)]
struct TypeSum {
    tensors: usize,
    values: u64,
    bytes: u64,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let file = source::open(args.model.as_ref())?;
    let mut types: BTreeMap<String, TypeSum> = BTreeMap::new();
    for tensor in file.tensors() {
        let sum = types.entry(type_name(&tensor)).or_default();
        sum.tensors += 1;
        sum.values += tensor.values();
        sum.bytes += tensor.bytes.unwrap_or(0);
    }
    let report = Report {
        name: source::name(args.model.as_ref()),
        decoder: quant_models::load(&file).map_err(|error| error.to_string()),
        tokenizer: Tokenizer::from_gguf(&file).map_err(|error| error.to_string()),
        values: types.values().map(|sum| sum.values).sum(),
        bytes: types.values().map(|sum| sum.bytes).sum(),
        types,
        file: &file,
    };
    if args.json {
        output::print_json(&report.json(args.tensors))?;
    } else {
        output::print(&report.text(args.tensors))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Report<'_> {
    fn arch(&self) -> &str {
        self.file.str("general.architecture").ok().flatten().unwrap_or("none named")
    }

    fn text(&self, tensors: bool) -> String {
        let mut out = String::new();
        let file = self.file;
        let parts =
            if file.part_count() == 1 { String::new() } else { format!(", {} parts", file.part_count()) };
        let order = if file.big_endian() { ", big-endian" } else { "" };
        let mut line = |label: &str, text: String| {
            // Writing to a string can't fail.
            let _ = writeln!(out, "{label:<13} {text}");
        };
        let (name, bytes) = (output::excerpt(&self.name, 100), output::bytes(file.file_bytes()));
        line("file", format!("{name} ({bytes}, GGUF v{}{parts}{order})", file.version()));
        if let Ok(Some(name)) = file.str("general.name") {
            line("name", output::excerpt(name, 100));
        }
        let arch = output::excerpt(self.arch(), 40);
        match &self.decoder {
            Ok(decoder) => {
                let info = decoder.info();
                line("architecture", format!("{arch}: supported"));
                line("shape", shape(info));
                line("context", format!("{} tokens", info.context_length));
                let kv: Vec<String> = KV_POLICIES
                    .iter()
                    .filter_map(|kv| Some(format!("{} at {kv}", output::bytes(kv_bytes(decoder, kv)?))))
                    .collect();
                line("KV cache", format!("{} per token", kv.join(", ")));
                line("decode reads", format!("{} of weights per token", output::bytes(info.bytes_per_token)));
            }
            Err(error) => {
                line("architecture", format!("{arch}: NOT supported: {}", output::excerpt(error, 400)))
            }
        }
        match &self.tokenizer {
            Ok(tokenizer) => line("tokenizer", tokenizer_text(tokenizer)),
            Err(error) => line("tokenizer", format!("NOT supported: {}", output::excerpt(error, 400))),
        }
        let weights = output::count(self.values);
        line("weights", format!("{weights}, {:.2} bits each", bits(self.bytes, self.values)));
        for (name, sum) in &self.types {
            let (weights, bytes) = (output::count(sum.values), output::bytes(sum.bytes));
            let bits = bits(sum.bytes, sum.values);
            line(
                "",
                format!(
                    "{name:<8} {:>4} tensors, {weights} weights, {bytes}, {bits:.2} bits each",
                    sum.tensors
                ),
            );
        }
        out.push_str("\nmetadata\n");
        for (key, value) in file.metadata() {
            let _ = writeln!(
                out,
                "  {:<44} {:<16} {}",
                output::excerpt(key, 80),
                value.type_name(),
                value_text(&value)
            );
        }
        if tensors {
            out.push_str("\ntensors (row length first)\n");
            for tensor in file.tensors() {
                let dims = tensor.dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
                let bytes = tensor.bytes.unwrap_or(0);
                let _ = writeln!(
                    out,
                    "  {:<40} {dims:<18} {:<8} {:>12} bytes {:>6.2} bits",
                    output::excerpt(tensor.name, 80),
                    type_name(&tensor),
                    bytes,
                    bits(bytes, tensor.values())
                );
            }
        }
        out
    }

    fn json(&self, tensors: bool) -> serde_json::Value {
        let types: Map<String, serde_json::Value> = self
            .types
            .iter()
            .map(|(name, sum)| {
                let row = json!({
                    "tensors": sum.tensors,
                    "weights": sum.values,
                    "bytes": sum.bytes,
                    "bits_per_weight": bits(sum.bytes, sum.values),
                });
                (name.clone(), row)
            })
            .collect();
        let mut all = json!({
            "file": self.name,
            "bytes": self.file.file_bytes(),
            "gguf_version": self.file.version(),
            "big_endian": self.file.big_endian(),
            "parts": self.file.part_count(),
            "architecture": self.arch(),
            "supported": self.decoder.is_ok() && self.tokenizer.is_ok(),
            "model": match &self.decoder {
                Ok(decoder) => model_json(decoder),
                Err(error) => json!({ "supported": false, "reason": error }),
            },
            "tokenizer": match &self.tokenizer {
                Ok(t) => json!({
                    "supported": true,
                    "model": t.model(),
                    "pre": t.pre(),
                    "tokens": t.vocab_size(),
                    "begin": t.bos(),
                    "end": t.stop_tokens(),
                }),
                Err(error) => json!({ "supported": false, "reason": error }),
            },
            "weights": self.values,
            "bits_per_weight": bits(self.bytes, self.values),
            "types": types,
            "metadata": self
                .file
                .metadata()
                .map(|(key, value)| (key.to_owned(), value_json(&value)))
                .collect::<Map<_, _>>(),
        });
        if tensors {
            all["tensors"] = self.file.tensors().map(|tensor| tensor_json(&tensor)).collect();
        }
        all
    }
}

fn shape(info: &ModelInfo) -> String {
    let ModelInfo { n_layers, n_embd, n_heads, n_kv_heads, key_dim, value_dim, vocab, .. } = info;
    let head = if key_dim == value_dim { key_dim.to_string() } else { format!("{key_dim}/{value_dim}") };
    format!(
        "{n_layers} layers, width {n_embd}, {n_heads} heads of {head} on {n_kv_heads} KV heads, {vocab} tokens"
    )
}

fn model_json(decoder: &Decoder) -> serde_json::Value {
    let info = decoder.info();
    let kv: Map<_, _> = KV_POLICIES.iter().map(|&kv| (kv.to_owned(), json!(kv_bytes(decoder, kv)))).collect();
    json!({
        "supported": true,
        "layers": info.n_layers,
        "width": info.n_embd,
        "heads": info.n_heads,
        "kv_heads": info.n_kv_heads,
        "key_dim": info.key_dim,
        "value_dim": info.value_dim,
        "vocabulary": info.vocab,
        "context": info.context_length,
        "parameters": info.parameters,
        "weights_bytes_per_token": info.bytes_per_token,
        "kv_bytes_per_token": kv,
    })
}

fn tokenizer_text(tokenizer: &Tokenizer) -> String {
    let list = |ids: &[u32]| {
        let name = |id: &u32| {
            format!("{id} {:?}", output::excerpt(tokenizer.token_text(*id).unwrap_or_default(), 40))
        };
        ids.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let begin = tokenizer.bos().map_or_else(|| "none".to_owned(), |id| list(&[id]));
    let (model, pre) = (output::excerpt(tokenizer.model(), 40), output::excerpt(tokenizer.pre(), 40));
    let kind = if pre.is_empty() { model } else { format!("{model}, {pre}") };
    let tokens = tokenizer.vocab_size();
    format!("{kind}: supported; {tokens} tokens, begin {begin}, end {}", list(tokenizer.stop_tokens()))
}

/// Bytes of a token in the KV cache, in the end; `None` if the policy has no form for the model's heads.
fn kv_bytes(decoder: &Decoder, policy: &str) -> Option<u64> {
    let policy: Policy = policy.parse().ok()?;
    let cache = KvCache::new(decoder.kv_layout(), policy, 0).ok()?;
    Some(cache.page_bytes().div_ceil(PAGE) as u64)
}

fn type_name(tensor: &TensorInfo<'_>) -> String {
    tensor.ty.map_or_else(|| format!("type {}", tensor.type_id), |ty| ty.name().to_owned())
}

fn tensor_json(tensor: &TensorInfo<'_>) -> serde_json::Value {
    json!({
        "name": tensor.name,
        "shape": tensor.dims,
        "type": type_name(tensor),
        "bytes": tensor.bytes,
        "bits_per_weight": bits(tensor.bytes.unwrap_or(0), tensor.values()),
    })
}

fn bits(bytes: u64, values: u64) -> f64 {
    if values == 0 { 0.0 } else { bytes as f64 * 8.0 / values as f64 }
}

fn value_text(value: &Value<'_>) -> String {
    match value {
        Value::Str(text) => format!("\"{}\"", output::excerpt(text, 70)),
        Value::Array(array) => {
            let mut entries: Vec<String> =
                array.values().take(TEXT_ENTRIES).map(|v| value_text(&v)).collect();
            if array.len() > TEXT_ENTRIES {
                entries.push(format!("... {} in all", array.len()));
            }
            format!("[{}]", entries.join(", "))
        }
        Value::F32(x) => format!("{x:?}"),
        number => value_json(number).to_string(),
    }
}

fn value_json(value: &Value<'_>) -> serde_json::Value {
    match value {
        Value::Str(text) => json!(text),
        Value::Bool(b) => json!(b),
        // The shortest decimal that is this f32: 1e-5, not 9.999999747378752e-6.
        Value::F32(x) => json!(x.to_string().parse::<f64>().ok()),
        Value::F64(x) => json!(x),
        Value::Array(array) if array.len() <= JSON_ENTRIES => {
            array.values().map(|v| value_json(&v)).collect()
        }
        Value::Array(array) => json!({
            "type": value.type_name(),
            "length": array.len(),
            "first": array.values().take(JSON_ENTRIES).map(|v| value_json(&v)).collect::<Vec<_>>(),
        }),
        // Every integer type fits one of the two.
        integer => match integer.as_integer() {
            Some(n) => i64::try_from(n).map_or_else(|_| json!(u64::try_from(n).ok()), |n| json!(n)),
            None => serde_json::Value::Null,
        },
    }
}
