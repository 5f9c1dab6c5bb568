//! What can't be run rightly is refused, with a name and a reason.

mod common;

use common::{Golden, Runner};
use quant_fixtures::{committed, oracle};
use quant_gguf::Gguf;
use quant_kernels::{Activations, Isa, Kernels, Serial};
use quant_kvcache::{KvCache, Policy};
use quant_models::{Context, Error, LogitsWanted, NoProbe, Span, load, supported};
use std::sync::Arc;

#[test]
fn mixtral_by_name() {
    let Some(folder) = oracle("mixtral") else { return };
    let error = load(&Gguf::open(folder.join("model-f32.gguf")).unwrap()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    assert!(error.to_string().contains("Mixtral"), "{error}");
}

#[test]
fn unknown_architectures_with_a_list_of_those_known() {
    let Some(folder) = oracle("gpt2") else { return };
    let error = load(&Gguf::open(folder.join("model-f32.gguf")).unwrap()).unwrap_err();
    assert!(error.to_string().contains("gpt2"), "{error}");
    for arch in supported() {
        assert!(error.to_string().contains(arch), "{error}");
    }
}

/// The bytes of a committed file with every `from` replaced by the equally long `to`.
fn patched(from: &str, to: &str) -> Gguf {
    let mut bytes = std::fs::read(committed("oracle/llama-tied/model-f32.gguf")).unwrap();
    let mut found = false;
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from.as_bytes()) {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            found = true;
        }
    }
    assert!(found && from.len() == to.len());
    Gguf::from_bytes(vec![bytes.into()]).unwrap()
}

#[test]
fn keys_and_tensors_that_nobody_claims() {
    // The default takes over, and the renamed key is left over.
    let error = load(&patched("llama.rope.freq_base", "llama.rope.fnord_key")).unwrap_err();
    let Error::Unclaimed { tensors, keys } = &error else { panic!("{error}") };
    assert!(tensors.is_empty() && keys == &["llama.rope.fnord_key"], "{error}");
    assert!(error.to_string().contains("llama.rope.fnord_key"), "{error}");
    // A tensor that is missing is named.
    let error = load(&patched("blk.1.ffn_up.weight", "blk.1.ffn_xy.weight")).unwrap_err();
    assert!(error.to_string().contains("blk.1.ffn_up.weight"), "{error}");
}

#[test]
fn shapes_that_do_not_fit_name_the_tensor() {
    // Without the key the size of a head's value follows from the width: 16 instead of 32.
    let error = load(&patched("llama.attention.value_length", "llama.attention.value_fnordd")).unwrap_err();
    let Error::Shape { tensor, expected, found } = &error else { panic!("{error}") };
    assert_eq!(tensor, "blk.0.attn_v.weight");
    assert_eq!((&expected[..], &found[..]), (&[64, 32][..], &[64, 64][..]));
}

#[test]
fn tokens_positions_and_sequences() {
    let golden = Golden::open("llama-tied").unwrap();
    let model = golden.model("model-f32.gguf");
    let kernels = Arc::new(Kernels::new(Isa::Scalar));
    let cx = Context::new(kernels, Arc::new(Serial), Activations::Auto).with_context_limit(Some(4));
    let mut runner = Runner::with(&model, cx, Policy::F32);
    let sequence = runner.cache.create();
    let mut logits = Vec::new();
    let mut forward = |runner: &mut Runner<'_>, spans: &[Span<'_>]| {
        model.forward(&mut runner.cx, &mut runner.cache, spans, &mut logits, &mut NoProbe)
    };
    let span = |tokens| Span { sequence, tokens, logits: LogitsWanted::Last };

    let error = forward(&mut runner, &[span(&[1, 453])]).unwrap_err();
    assert!(matches!(error, Error::Token { token: 453, vocab: 453 }), "{error}");
    forward(&mut runner, &[span(&[1, 2, 3])]).unwrap();
    let error = forward(&mut runner, &[span(&[1, 2])]).unwrap_err();
    assert!(matches!(error, Error::Context { needed: 5, context: 4 }), "{error}");
    let error = forward(&mut runner, &[span(&[1]), span(&[2])]).unwrap_err();
    assert!(matches!(error, Error::DuplicateSequence { first: 0, second: 1 }), "{error}");
    assert_eq!(runner.cache.len(sequence).unwrap(), 3);

    runner.cache = KvCache::new(model.kv_layout()[..1].to_vec(), Policy::F32, 1 << 20).unwrap();
    let sequence = runner.cache.create();
    let spans = [Span { sequence, tokens: &[1], logits: LogitsWanted::Last }];
    assert!(matches!(forward(&mut runner, &spans), Err(Error::CacheLayout)));
}

#[test]
fn a_full_cache_leaves_every_sequence_as_it_was() {
    let golden = Golden::open("llama-tied").unwrap();
    let model = golden.model("model-f32.gguf");
    let mut runner = Runner::new(&model, Activations::Auto, Policy::F16);
    let page = runner.cache.page_bytes();
    runner.cache = KvCache::new(model.kv_layout(), Policy::F16, page).unwrap();
    let (a, b) = (runner.cache.create(), runner.cache.create());
    let spans = [a, b].map(|sequence| Span { sequence, tokens: &[1, 2], logits: LogitsWanted::All });
    let mut logits = Vec::new();
    let error =
        model.forward(&mut runner.cx, &mut runner.cache, &spans, &mut logits, &mut NoProbe).unwrap_err();
    let full = quant_kvcache::Error::OutOfMemory { needed: page, available: 0, budget: page };
    assert!(matches!(&error, Error::Cache(e) if *e == full), "{error}");
    assert_eq!((runner.cache.len(a).unwrap(), runner.cache.len(b).unwrap()), (0, 0));
    assert_eq!(runner.cache.stats().used_bytes, 0);
    model.forward(&mut runner.cx, &mut runner.cache, &spans[..1], &mut logits, &mut NoProbe).unwrap();
    assert_eq!(logits.len(), 2 * model.info().vocab);
}

#[test]
fn not_a_number_gives_an_error_not_a_token() {
    let mut bytes = std::fs::read(committed("oracle/llama-tied/model-f32.gguf")).unwrap();
    let gguf = Gguf::from_bytes(vec![bytes.clone().into()]).unwrap();
    let offset = gguf.tensor_info("output_norm.weight").unwrap().offset as usize;
    bytes[offset..offset + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let model = load(&Gguf::from_bytes(vec![bytes.into()]).unwrap()).unwrap();
    let mut runner = Runner::new(&model, Activations::Auto, Policy::F16);
    let sequence = runner.cache.create();
    let spans = [Span { sequence, tokens: &[1, 2], logits: LogitsWanted::Last }];
    let mut logits = Vec::new();
    let error =
        model.forward(&mut runner.cx, &mut runner.cache, &spans, &mut logits, &mut NoProbe).unwrap_err();
    assert!(matches!(error, Error::NotFinite { position: 1 }), "{error}");
    assert_eq!(runner.cache.len(sequence).unwrap(), 0);
    assert!(logits.is_empty());
}
