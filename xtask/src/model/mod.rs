//! Synthetic models: real shapes, random weights. Their speed is real, their text is noise.

pub mod blocks;

use crate::tidy;
use anyhow::{Context as _, Result, bail};
use quant_gguf::{Data, Writer};
use quant_kernels::GgmlType;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// A synthetic model on disk.
pub struct ModelFile {
    /// `SHAPE:TYPE`.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Bytes of weights that one decoded token reads.
    pub weight_bytes: u64,
}

/// The dimensions of a llama-architecture model.
#[derive(Clone, Copy)]
struct Shape {
    layers: u32,
    width: u64,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    feed_forward: u64,
    vocabulary: u64,
    context: u32,
}

/// Llama 3.2 1B as in its published configuration (tied embeddings).
const LLAMA_1B: Shape = Shape {
    layers: 16,
    width: 2048,
    heads: 32,
    kv_heads: 8,
    head_dim: 64,
    feed_forward: 8192,
    vocabulary: 128_256,
    context: 131_072,
};

/// Llama 3.2 3B as in its published configuration (tied embeddings).
const LLAMA_3B: Shape = Shape { layers: 28, width: 3072, heads: 24, kv_heads: 8, head_dim: 128, ..LLAMA_1B };

/// SmolLM2 135M as in its published configuration (tied embeddings).
const SMOLLM2_135M: Shape = Shape {
    layers: 30,
    width: 576,
    heads: 9,
    kv_heads: 3,
    head_dim: 64,
    feed_forward: 1536,
    vocabulary: 49_152,
    context: 8192,
};

/// Shapes by name.
const SHAPES: &[(&str, Shape)] = &[
    ("llama-3.2-1b", LLAMA_1B),
    ("llama-3.2-1b-250k", Shape { vocabulary: 250_000, ..LLAMA_1B }),
    ("llama-3.2-3b", LLAMA_3B),
    ("smollm2-135m", SMOLLM2_135M),
    (
        "tiny",
        Shape {
            layers: 2,
            width: 256,
            heads: 4,
            kv_heads: 2,
            head_dim: 64,
            feed_forward: 512,
            vocabulary: 512,
            context: 2048,
        },
    ),
];

/// `cargo xtask model FILE ...`
pub fn run(args: Vec<String>) -> Result<()> {
    use lexopt::prelude::{Long, Value, ValueExt as _};
    let (mut path, mut shape, mut kind, mut seed) = (None, "llama-3.2-1b".to_owned(), "q4_k_m".to_owned(), 1);
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Value(file) if path.is_none() => path = Some(PathBuf::from(file)),
            Long("shape") => shape = parser.value()?.string()?,
            Long("type") => kind = parser.value()?.string()?,
            Long("seed") => seed = parser.value()?.parse()?,
            _ => bail!(arg.unexpected()),
        }
    }
    let path = path.context("usage: cargo xtask model FILE [--shape S] [--type T] [--seed N]")?;
    write(&path, find_shape(&shape)?, &kind, seed)?;
    println!("wrote {}", path.display());
    Ok(())
}

/// The models `SHAPE:TYPE`, written on first use under target/bench-models.
pub fn files(names: &[&str]) -> Result<Vec<ModelFile>> {
    let folder = tidy::root().join("target/bench-models");
    std::fs::create_dir_all(&folder)?;
    names
        .iter()
        .map(|&name| {
            let (shape, kind) = name.split_once(':').context("a model is SHAPE:TYPE")?;
            let path = folder.join(format!("{shape}-{kind}.gguf"));
            let parameters = find_shape(shape)?;
            if !path.exists() {
                let partial = path.with_extension("part");
                write(&partial, parameters, kind, 1)?;
                std::fs::rename(&partial, &path)?;
            }
            let weight_bytes = tensors(parameters, kind)?.iter().map(Entry::bytes).sum();
            Ok(ModelFile { name: name.to_owned(), path, weight_bytes })
        })
        .collect()
}

fn find_shape(name: &str) -> Result<Shape> {
    let found = SHAPES.iter().find(|(known, _)| *known == name).map(|(_, shape)| *shape);
    let known: Vec<&str> = SHAPES.iter().map(|(known, _)| *known).collect();
    found.with_context(|| format!("no shape '{name}'; there are {}", known.join(", ")))
}

/// One tensor to write.
struct Entry {
    name: String,
    ty: GgmlType,
    dims: Vec<u64>,
}

impl Entry {
    fn bytes(&self) -> u64 {
        self.dims.iter().product::<u64>() / self.ty.block_len() as u64 * self.ty.block_bytes() as u64
    }
}

/// Tensors and their types; `q4_k_m` is llama.cpp's mix: Q6_K for the head and for half of the layers' value and down
/// projections.
fn tensors(s: Shape, kind: &str) -> Result<Vec<Entry>> {
    let (base, better) = match kind {
        "q4_k_m" => (GgmlType::Q4_K, GgmlType::Q6_K),
        other => {
            let ty = GgmlType::from_name(other).with_context(|| format!("no ggml type '{other}'"))?;
            (ty, ty)
        }
    };
    let entry =
        |name: String, ty, dims: &[u64]| Entry { name, ty: fitting(ty, dims[0]), dims: dims.to_vec() };
    let mut list = vec![
        entry("token_embd.weight".into(), better, &[s.width, s.vocabulary]),
        entry("output_norm.weight".into(), GgmlType::F32, &[s.width]),
    ];
    for layer in 0..s.layers {
        let eighth = s.layers / 8;
        let more_bits = layer < eighth || layer >= 7 * s.layers / 8 || (layer - eighth) % 3 == 2;
        let precise = if more_bits { better } else { base };
        let (q, kv) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        list.extend([
            entry(name("attn_norm"), GgmlType::F32, &[s.width]),
            entry(name("attn_q"), base, &[s.width, q]),
            entry(name("attn_k"), base, &[s.width, kv]),
            entry(name("attn_v"), precise, &[s.width, kv]),
            entry(name("attn_output"), base, &[q, s.width]),
            entry(name("ffn_norm"), GgmlType::F32, &[s.width]),
            entry(name("ffn_gate"), base, &[s.width, s.feed_forward]),
            entry(name("ffn_up"), base, &[s.width, s.feed_forward]),
            entry(name("ffn_down"), precise, &[s.feed_forward, s.width]),
        ]);
    }
    Ok(list)
}

/// The type that llama.cpp takes in place of `ty` where rows are not whole blocks.
fn fitting(ty: GgmlType, cols: u64) -> GgmlType {
    match ty {
        _ if cols.is_multiple_of(ty.block_len() as u64) => ty,
        GgmlType::Q5_K => GgmlType::Q5_1,
        GgmlType::Q6_K => GgmlType::Q8_0,
        _ => GgmlType::Q5_0,
    }
}

fn write(path: &Path, shape: Shape, kind: &str, seed: u64) -> Result<()> {
    let entries = tensors(shape, kind)?;
    let mut writer = Writer::new();
    metadata(&mut writer, shape)?;
    for (number, entry) in entries.iter().enumerate() {
        let seed = seed ^ (number as u64) << 32;
        let data = Data::from_fn(move |out| match entry.ty {
            GgmlType::F32 if entry.dims.len() == 1 => out.write_all(&entry_ones(entry)),
            ty => out.write_all(&blocks::random(ty, entry.bytes() as usize, seed)),
        });
        writer.tensor(&entry.name, entry.ty, &entry.dims, data)?;
    }
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    writer.write_to(&mut BufWriter::new(file))?;
    Ok(())
}

fn metadata(writer: &mut Writer<'_>, s: Shape) -> Result<()> {
    writer.set("general.architecture", "llama")?;
    writer.set("general.name", "synthetic")?;
    writer.set("llama.block_count", s.layers)?;
    writer.set("llama.context_length", s.context)?;
    writer.set("llama.embedding_length", s.width as u32)?;
    writer.set("llama.feed_forward_length", s.feed_forward as u32)?;
    writer.set("llama.attention.head_count", s.heads as u32)?;
    writer.set("llama.attention.head_count_kv", s.kv_heads as u32)?;
    writer.set("llama.attention.key_length", s.head_dim as u32)?;
    writer.set("llama.attention.value_length", s.head_dim as u32)?;
    writer.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32)?;
    writer.set("llama.rope.freq_base", 500_000f32)?;
    writer.set("llama.rope.dimension_count", s.head_dim as u32)?;
    writer.set("llama.vocab_size", s.vocabulary as u32)?;
    let (tokens, merges) = vocabulary(s.vocabulary as usize);
    writer.set("tokenizer.ggml.model", "gpt2")?;
    writer.set("tokenizer.ggml.pre", "llama-bpe")?;
    let types: Vec<i32> = (0..tokens.len()).map(|id| if id + 2 < tokens.len() { 1 } else { 3 }).collect();
    writer.set("tokenizer.ggml.bos_token_id", tokens.len() as u32 - 2)?;
    writer.set("tokenizer.ggml.eos_token_id", tokens.len() as u32 - 1)?;
    writer.set("tokenizer.ggml.token_type", types)?;
    writer.set("tokenizer.ggml.tokens", tokens)?;
    writer.set("tokenizer.ggml.merges", merges)?;
    Ok(())
}

/// A valid byte-level BPE vocabulary: 256 bytes, then merges of the earliest pairs, then two control tokens.
fn vocabulary(size: usize) -> (Vec<String>, Vec<String>) {
    let mut tokens: Vec<String> = (0..=255u8).map(byte_char).map(String::from).collect();
    let mut merges = Vec::new();
    let mut seen: std::collections::HashSet<String> = tokens.iter().cloned().collect();
    let mut left = 0;
    'grow: while tokens.len() + 2 < size {
        for right in 0..256 {
            let merged = format!("{}{}", tokens[left], tokens[right]);
            if seen.insert(merged.clone()) {
                merges.push(format!("{} {}", tokens[left], tokens[right]));
                tokens.push(merged);
            }
            if tokens.len() + 2 >= size {
                break 'grow;
            }
        }
        left += 1;
    }
    tokens.extend(["<|begin|>".to_owned(), "<|end|>".to_owned()]);
    (tokens, merges)
}

/// GPT-2's printable stand-in for a byte.
fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let index = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(256 + index).unwrap_or(' ')
}

/// Norm weights are 1.
fn entry_ones(entry: &Entry) -> Vec<u8> {
    (0..entry.dims.iter().product::<u64>()).flat_map(|_| 1f32.to_le_bytes()).collect()
}
