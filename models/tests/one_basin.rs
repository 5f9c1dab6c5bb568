//! One basin: the bits of logits depend neither on the SIMD tier, nor on the number of threads, nor on how prompts are
//! cut into passes, nor on what else is in a batch.

mod common;

use common::{Golden, Runner};
use quant_gguf::Gguf;
use quant_kernels::parallel::{RayonPool, Team};
use quant_kernels::{Activations, Isa, Kernels, Parallel, Serial};
use quant_kvcache::{KvCache, PAGE, Policy};
use quant_models::{Context, Decoder, LogitsWanted, NoProbe, Span, load};
use std::sync::Arc;

/// Runs all prompts side by side, each cut into passes of `chunk` tokens, and returns every prompt's logits as bits.
fn logits(model: &Decoder, cx: Context, prompts: &[&[u32]], chunk: usize) -> Vec<Vec<u32>> {
    let mut runner = Runner::with(model, cx, Policy::F16);
    let sequences: Vec<_> = prompts.iter().map(|_| runner.cache.create()).collect();
    let mut out = vec![Vec::new(); prompts.len()];
    let mut rest = prompts.to_vec();
    let mut logits = Vec::new();
    while rest.iter().any(|tokens| !tokens.is_empty()) {
        let mut spans = Vec::new();
        for (tokens, &sequence) in rest.iter_mut().zip(&sequences) {
            let (now, later) = tokens.split_at(chunk.min(tokens.len()));
            *tokens = later;
            spans.push(Span { sequence, tokens: now, logits: LogitsWanted::All });
        }
        model.forward(&mut runner.cx, &mut runner.cache, &spans, &mut logits, &mut NoProbe).unwrap();
        let mut rows = logits.as_slice();
        for (out, span) in out.iter_mut().zip(&spans) {
            let (mine, others) = rows.split_at(span.tokens.len() * model.info().vocab);
            rows = others;
            out.extend(mine.iter().map(|x| x.to_bits()));
        }
    }
    out
}

fn team(threads: usize) -> Arc<dyn Parallel + Send> {
    if threads == 1 { Arc::new(Serial) } else { Arc::new(Team::new(threads).unwrap()) }
}

fn one_basin(name: &str, file: &str, activations: Activations) {
    let Some(golden) = Golden::open(name) else { return };
    let model = load(&Gguf::open(golden.folder.join(file)).unwrap()).unwrap();
    let long = golden.tokens("long.tokens");
    // The first crosses a page boundary; the others end in other passes than it does.
    let prompts = [&long[..PAGE + 22], &long[40..87], &long[200..201]];
    let context = |isa, parallel| Context::new(Arc::new(Kernels::new(isa)), parallel, activations);
    let expected: Vec<_> = prompts
        .iter()
        .map(|prompt| logits(&model, context(Isa::Scalar, team(1)), &[prompt], prompt.len()).remove(0))
        .collect();
    for isa in Isa::available() {
        for threads in [1, 2, 3] {
            let parallel = team(threads);
            for chunk in [1, 7, 64] {
                for batch in [1, 3] {
                    let cx = context(isa, Arc::clone(&parallel));
                    let found = logits(&model, cx, &prompts[..batch], chunk);
                    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        assert!(
                            found == expected,
                            "{name}/{file}: other bits with {isa}, {threads} threads, chunks of {chunk}, \
                             prompt {i} of {batch}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn q8_0() {
    one_basin("llama-tied", "model-q8_0.gguf", Activations::Auto);
}

#[test]
fn reference_mode() {
    one_basin("llama-tied", "model-q8_0.gguf", Activations::F32);
}

#[test]
fn f16() {
    one_basin("llama-tied", "model-f16.gguf", Activations::Auto);
}

#[test]
fn bf16() {
    one_basin("llama-tied", "model-bf16.gguf", Activations::Auto);
}

#[test]
fn f32() {
    one_basin("mistral", "model-f32.gguf", Activations::Auto);
}

#[test]
fn q4_k_m() {
    one_basin("llama", "model-q4_k_m.gguf", Activations::Auto);
}

#[test]
fn one_of_every_type() {
    one_basin("llama", "model-mix.gguf", Activations::Auto);
    one_basin("llama", "model-mix2.gguf", Activations::Auto);
}

/// One token after a context of several attention spans: few tasks, so that positions are shared out too.
#[test]
fn long_context() {
    let golden = Golden::open("llama-tied").unwrap();
    let model = golden.model("model-q8_0.gguf");
    let prompt: Vec<u32> = golden.tokens("long.tokens").into_iter().cycle().take(4500).collect();
    let context = |parallel| Context::new(Arc::new(Kernels::new(Isa::detect())), parallel, Activations::Auto);
    let mut cx = context(team(1));
    let mut cache = KvCache::new(model.kv_layout(), Policy::F16, 64 << 20).unwrap();
    let sequence = cache.create();
    let mut logits = Vec::new();
    for tokens in prompt.chunks(512) {
        let spans = [Span { sequence, tokens, logits: LogitsWanted::None }];
        model.forward(&mut cx, &mut cache, &spans, &mut logits, &mut NoProbe).unwrap();
        assert!(logits.is_empty());
    }
    let rayon = Arc::new(RayonPool::new(2).unwrap());
    let mut decode = |parallel| {
        let fork = cache.fork(sequence).unwrap();
        let spans = [Span { sequence: fork, tokens: &[7, 8], logits: LogitsWanted::Last }];
        model.forward(&mut context(parallel), &mut cache, &spans, &mut logits, &mut NoProbe).unwrap();
        cache.release(fork).unwrap();
        logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    let expected = decode(team(1));
    for parallel in [team(2), team(3), team(8), rayon] {
        let threads = parallel.threads();
        assert!(decode(parallel) == expected, "{threads} threads");
    }
}
