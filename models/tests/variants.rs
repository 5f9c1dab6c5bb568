//! What files of one architecture may vary, where no golden model shows it: two ways to say the same give the same
//! logits.

mod common;

use common::{Runner, distance};
use quant_fixtures::committed;
use quant_gguf::{GgmlType, Gguf, Writer};
use quant_kernels::Activations;
use quant_kvcache::Policy;
use quant_models::{NoProbe, load};

/// Name, type, dimensions and bytes.
type Entry = (String, GgmlType, Vec<u64>, Vec<u8>);

/// A golden model with changes.
struct Variant {
    writer: Writer<'static>,
    tensors: Vec<Entry>,
}

impl Variant {
    fn of(file: &str) -> Self {
        let gguf = Gguf::open(committed("oracle/llama-tied").join(file)).unwrap();
        let mut writer = Writer::new();
        for (key, value) in gguf.metadata() {
            writer.set(key, value).unwrap();
        }
        let tensors = gguf.tensors().map(|info| gguf.tensor(info.name).unwrap());
        let tensors = tensors.map(|t| (t.name, t.ty, t.dims, t.bytes.to_vec())).collect();
        Self { writer, tensors }
    }

    fn add(&mut self, name: &str, dims: &[u64], values: &[f32]) {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.push((name.to_owned(), GgmlType::F32, dims.to_vec(), bytes));
    }

    fn take(&mut self, name: &str) -> Entry {
        let at = self.tensors.iter().position(|tensor| tensor.0 == name).unwrap();
        self.tensors.remove(at)
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        let tensor = self.tensors.iter().find(|tensor| tensor.0 == name).unwrap();
        tensor.3.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn logits(mut self) -> Vec<f32> {
        for (name, ty, dims, bytes) in self.tensors {
            self.writer.tensor(&name, ty, &dims, bytes).unwrap();
        }
        let mut file = Vec::new();
        self.writer.write_to(&mut file).unwrap();
        let model = load(&Gguf::from_bytes(vec![file.into()]).unwrap()).unwrap();
        let tokens: Vec<u32> = (1..60).map(|i| i * 7 % 453).collect();
        Runner::new(&model, Activations::Auto, Policy::F32).logits(&tokens, &mut NoProbe)
    }
}

#[test]
fn fused_attn_qkv_is_its_parts() {
    for file in ["model-f32.gguf", "model-q8_0.gguf"] {
        let mut fused = Variant::of(file);
        for layer in 0..2 {
            let parts = ["q", "k", "v"].map(|part| fused.take(&format!("blk.{layer}.attn_{part}.weight")));
            let rows = parts.iter().map(|part| part.2[1]).sum();
            let bytes = parts.iter().flat_map(|part| part.3.clone()).collect();
            let name = format!("blk.{layer}.attn_qkv.weight");
            fused.tensors.push((name, parts[0].1, vec![parts[0].2[0], rows], bytes));
        }
        assert!(fused.logits() == Variant::of(file).logits(), "{file}");
    }
}

#[test]
fn a_head_equal_to_the_embedding_is_the_tied_head() {
    let mut separate = Variant::of("model-q8_0.gguf");
    let mut head = separate.take("token_embd.weight");
    separate.tensors.push(head.clone());
    head.0 = "output.weight".to_owned();
    separate.tensors.push(head);
    assert!(separate.logits() == Variant::of("model-q8_0.gguf").logits());
}

#[test]
fn linear_scaling_is_one_factor_for_all_frequencies() {
    let plain = Variant::of("model-f32.gguf").logits();
    let mut linear = Variant::of("model-f32.gguf");
    linear.writer.set("llama.rope.scaling.type", "linear").unwrap();
    linear.writer.set("llama.rope.scaling.factor", 2.0f32).unwrap();
    let mut factors = Variant::of("model-f32.gguf");
    factors.add("rope_freqs.weight", &[16], &[2.0; 16]);
    let linear = linear.logits();
    assert!(distance(&linear, &factors.logits()).1 < 1e-5);
    assert!(distance(&linear, &plain).1 > 0.1, "the scaling has an effect");
}

#[test]
fn sizes_may_be_given_per_layer() {
    let mut arrays = Variant::of("model-f32.gguf");
    arrays.writer.set("llama.attention.head_count_kv", [2u32, 2]).unwrap();
    arrays.writer.set("llama.feed_forward_length", [128u32, 128]).unwrap();
    assert!(arrays.logits() == Variant::of("model-f32.gguf").logits());
}

/// Attention weights sum to one, so a bias of the values comes out as `attn_output` times it.
#[test]
fn a_bias_of_values_is_a_bias_of_the_output() {
    let (kv_heads, group, dim, width) = (2, 2, 32, 64);
    let bias: Vec<f32> = (0..kv_heads * dim).map(|i| (i as f32 * 0.7).sin() * 0.3).collect();
    let (mut on_values, mut on_output) = (Variant::of("model-f32.gguf"), Variant::of("model-f32.gguf"));
    for layer in 0..2 {
        on_values.add(&format!("blk.{layer}.attn_v.bias"), &[bias.len() as u64], &bias);
        let output = on_output.f32(&format!("blk.{layer}.attn_output.weight"));
        let moved: Vec<f32> = output
            .chunks_exact(kv_heads * group * dim)
            .map(|row| row.iter().enumerate().map(|(i, w)| w * bias[i / dim / group * dim + i % dim]).sum())
            .collect();
        on_output.add(&format!("blk.{layer}.attn_output.bias"), &[width], &moved);
    }
    let on_values = on_values.logits();
    assert!(distance(&on_values, &on_output.logits()).1 < 1e-4);
    assert!(distance(&on_values, &Variant::of("model-f32.gguf").logits()).1 > 0.1, "the bias has an effect");
}

#[test]
fn every_bias_is_read() {
    let plain = Variant::of("model-f32.gguf").logits();
    let biases = [("attn_q", 128), ("attn_k", 64), ("ffn_gate", 128), ("ffn_up", 128), ("ffn_down", 64)];
    for (name, rows) in biases {
        let mut variant = Variant::of("model-f32.gguf");
        let bias: Vec<f32> = (0..rows).map(|i| (i as f32).cos()).collect();
        variant.add(&format!("blk.0.{name}.bias"), &[rows as u64], &bias);
        assert!(distance(&variant.logits(), &plain).1 > 1e-2, "{name}");
    }
}
