//! The demo model, from file to text: recorded greedy continuations, chunks, threads, batches, sessions.

use quant_runtime::{
    Activations, Engine, EngineOptions, Error, Event, FinishReason, GenerateOptions, Gguf, LogitsWanted,
    Model, Policy, SamplerConfig, SessionId,
};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo").join(name)
}

fn model() -> Arc<Model> {
    Model::load(demo("demo-q8_0.gguf")).unwrap()
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn greedy(tokens: usize) -> GenerateOptions {
    GenerateOptions {
        sampler: SamplerConfig::greedy(),
        max_tokens: Some(tokens),
        ..GenerateOptions::default()
    }
}

/// The chosen tokens and the text.
fn run(engine: &mut Engine, prompt: &[u32], options: &GenerateOptions) -> (Vec<u32>, String, FinishReason) {
    let (mut tokens, mut all) = (Vec::new(), String::new());
    for event in engine.generate(prompt, options).unwrap() {
        match event.unwrap() {
            Event::Token { token, text } => {
                tokens.push(token);
                all.push_str(&text);
            }
            Event::Finished(finish) => return (tokens, all + &finish.text, finish.reason),
            _ => {}
        }
    }
    unreachable!("a generation ends with an event")
}

/// Prompts and continuations recorded from the f32 weights by another implementation.
fn assert_goldens(model: &Arc<Model>, options: &EngineOptions) {
    let goldens = quant_fixtures::json(&demo("goldens.json"));
    let mut engine = Engine::new(model, options).unwrap();
    for (name, golden) in goldens.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("prompt")) {
        let prompt = model.tokenizer().unwrap().encode(golden["text"].as_str().unwrap(), true, false);
        assert_eq!(prompt, ids(&golden["ids"]), "{name}");
        let expected = ids(&golden["greedy"]);
        let (tokens, text, _) = run(&mut engine, &prompt, &greedy(expected.len()));
        assert_eq!(tokens, expected, "{name}");
        assert_eq!(text, golden["completion"].as_str().unwrap(), "{name}");
    }
    assert_eq!(engine.memory().used_bytes, 0);
}

#[test]
fn greedy_continuations_of_the_f32_weights() {
    let Some(path) = quant_fixtures::shared("demo/demo-f32.gguf") else { return };
    let reference =
        EngineOptions { kv: Policy::F32, activations: Activations::F32, ..EngineOptions::default() };
    assert_goldens(&Model::load(path).unwrap(), &reference);
}

/// The recorded margins are wide enough for 8-bit weights to choose the same tokens.
#[test]
fn greedy_continuations_of_the_bundled_weights() {
    let reference =
        EngineOptions { kv: Policy::F32, activations: Activations::F32, ..EngineOptions::default() };
    assert_goldens(&model(), &reference);
    assert_goldens(&model(), &EngineOptions::default());
}

/// Whole policies: nothing compressed, presets, a paper's codec, a window, tiers.
const POLICIES: [&str; 6] =
    ["f16", "auto", "2.4", "k=turbo-prod-3,v=q4_0,sinks=128", "k=5,v=4,window=128", "tiers=8@0/4@128/2@256"];

fn policy(name: &str) -> EngineOptions {
    EngineOptions { kv: name.parse().unwrap(), ..EngineOptions::default() }
}

#[test]
fn chunks_threads_and_company_change_nothing() {
    let model = model();
    let tokenizer = model.tokenizer().unwrap();
    let text = "Tom had a red ball and a blue kite. He lost them both. ".repeat(30);
    let prompt = tokenizer.encode(&text, true, false);
    assert!(prompt.len() > 400, "several pages are sealed");
    let options = GenerateOptions {
        sampler: SamplerConfig { seed: 11, top_p: 0.95, ..SamplerConfig::default() },
        max_tokens: Some(40),
        ..GenerateOptions::default()
    };
    for name in POLICIES {
        let engine = |threads, chunk| {
            Engine::new(&model, &EngineOptions { threads: Some(threads), chunk, ..policy(name) }).unwrap()
        };
        let alone = run(&mut engine(1, 512), &prompt, &options);
        for (threads, chunk) in [(1, 7), (3, 64)] {
            let other = run(&mut engine(threads, chunk), &prompt, &options);
            assert_eq!(other, alone, "{name}, {threads} threads, {chunk}");
        }
        // Two others in the same batches.
        let mut engine = engine(2, 50);
        for text in ["Once upon a time", "The big dog"] {
            let other = engine.open();
            engine.append(other, &tokenizer.encode(text, true, false)).unwrap();
            engine.start(other, &greedy(30)).unwrap();
        }
        assert_eq!(run(&mut engine, &prompt, &options), alone, "{name}");
    }
}

/// The logits after the last token, as bits.
fn last_logits(engine: &mut Engine, id: SessionId, tokens: &[u32]) -> Vec<u32> {
    let mut bits = Vec::new();
    engine
        .evaluate(id, tokens, LogitsWanted::Last, &mut |_, row| {
            bits = row.iter().map(|x| x.to_bits()).collect();
            ControlFlow::Continue(())
        })
        .unwrap();
    bits
}

#[test]
fn forks_and_texts_taken_back_have_the_bits_of_a_straight_run() {
    let model = model();
    let text: Vec<u32> = (0..600u32).map(|i| (i * 7919 + 13) % 4000).collect();
    for name in POLICIES {
        let mut engine = Engine::new(&model, &policy(name)).unwrap();
        let straight = engine.open();
        let expected = last_logits(&mut engine, straight, &text);
        let first = engine.open();
        last_logits(&mut engine, first, &text[..300]);
        let fork = engine.fork(first).unwrap();
        last_logits(&mut engine, first, &text[100..250]);
        // A draft over a page boundary, then far back: what can't be reached is evaluated again.
        last_logits(&mut engine, fork, &text[..100]);
        engine.rewind(fork, 300).unwrap();
        last_logits(&mut engine, fork, &text[300..500]);
        engine.rewind(fork, 170).unwrap();
        assert_eq!(last_logits(&mut engine, fork, &text[170..]), expected, "{name}");
        for id in [straight, first, fork] {
            engine.close(id);
        }
        assert_eq!(engine.memory().used_bytes, 0);
    }
}

#[test]
fn a_compressed_cache_takes_less() {
    let model = model();
    let text: Vec<u32> = (0..1000u32).map(|i| (i * 7919 + 13) % 4000).collect();
    let mut before = usize::MAX;
    // The first page of `auto` has 8 bits, much of so short a text: it takes as much as `near`.
    for name in ["f16", "8", "near", "4", "3.4", "2.4"] {
        let mut engine = Engine::new(&model, &policy(name)).unwrap();
        let id = engine.open();
        last_logits(&mut engine, id, &text);
        let stats = engine.memory();
        assert!(stats.used_bytes < before, "{name}: {stats:?}");
        assert_eq!(stats.f16_bytes, 1000 * 6 * 2 * 128 * 2);
        assert!((stats.bits_per_value() - 8.0 * stats.used_bytes as f64 / 1_536_000.0).abs() < 1e-9);
        before = stats.used_bytes;
    }
}

#[test]
fn memory_decides_for_preset_and_context() {
    let model = model();
    let fit = |bytes, context| {
        let mut options = EngineOptions { context, chunk: 64, ..EngineOptions::default() };
        let fit = options.fit_kv(&model, bytes)?;
        let engine = Engine::new(&model, &options)?;
        assert_eq!(engine.context(), fit.context);
        assert_eq!(engine.memory().budget_bytes, bytes);
        Ok::<_, Error>((fit.preset, fit.context))
    };
    // 3 KiB a token in f16; the model declares 1024.
    assert_eq!(fit(4 << 20, None).unwrap(), ("f16", 1024));
    assert_eq!(fit(3 << 20, None).unwrap(), ("f16", 1024));
    let (preset, context) = fit(5 << 19, None).unwrap();
    assert!(preset != "f16" && context == 1024, "{preset}");
    let (preset, context) = fit(1 << 20, None).unwrap();
    assert!(context < 1024 && context > 100, "{preset} {context}");
    assert_eq!(fit(1 << 20, Some(256)).unwrap(), ("f16", 256));
    assert!(matches!(fit(1 << 20, Some(1024)), Err(Error::ContextBudget { context: 1024, .. })));
    assert!(matches!(fit(1000, None), Err(Error::ContextBudget { .. })));
}

#[test]
fn a_session_goes_on_and_forks() {
    let model = model();
    let mut engine = Engine::new(&model, &EngineOptions::default()).unwrap();
    let prompt = model.tokenizer().unwrap().encode("Once upon a time", true, false);
    let (straight, ..) = run(&mut engine, &prompt, &greedy(24));
    let session = engine.open();
    engine.append(session, &prompt).unwrap();
    engine.resume(session, &greedy(10)).unwrap().text().unwrap();
    let fork = engine.fork(session).unwrap();
    for id in [session, fork] {
        engine.resume(id, &greedy(14)).unwrap().text().unwrap();
        assert_eq!(engine.tokens(id).unwrap()[prompt.len()..], straight);
        // Back to the middle, and the same again.
        engine.rewind(id, prompt.len() + 5).unwrap();
        engine.resume(id, &greedy(19)).unwrap().text().unwrap();
        assert_eq!(engine.tokens(id).unwrap()[prompt.len()..], straight);
    }
    engine.close(session);
    engine.close(fork);
    assert_eq!(engine.memory().used_bytes, 0);
}

#[test]
fn stop_strings_end_the_text_before_them() {
    let model = model();
    let mut engine = Engine::new(&model, &EngineOptions::default()).unwrap();
    let prompt = model.tokenizer().unwrap().encode("Once upon a time", true, false);
    let options = GenerateOptions { stop_strings: vec!["to play with".into()], ..greedy(64) };
    let (_, text, reason) = run(&mut engine, &prompt, &options);
    assert_eq!(
        (text.as_str(), reason),
        (", there was a little girl named Lily. She loved ", FinishReason::StopString)
    );
}

#[test]
fn the_end_token_of_the_file_ends_the_text() {
    let model = model();
    let mut engine = Engine::new(&model, &EngineOptions::default()).unwrap();
    let prompt = model.tokenizer().unwrap().encode("Once upon a time", true, false);
    let options =
        GenerateOptions { sampler: SamplerConfig { seed: 1, ..SamplerConfig::default() }, ..greedy(900) };
    let options =
        GenerateOptions { sampler: SamplerConfig { temperature: 0.8, ..options.sampler }, ..options };
    let (tokens, text, reason) = run(&mut engine, &prompt, &options);
    assert_eq!(reason, FinishReason::EndToken);
    assert!(tokens.len() < 900 && !text.contains("<|"), "{text}");
}

#[test]
fn a_prompt_that_does_not_fit_is_refused() {
    let model = model();
    let options = EngineOptions { context: Some(8), ..EngineOptions::default() };
    let mut engine = Engine::new(&model, &options).unwrap();
    let error = engine.generate(&[5; 9], &greedy(1)).unwrap_err();
    assert!(matches!(error, Error::PromptTooLong { tokens: 9, context: 8 }));
    assert!(error.to_string().contains('9') && error.to_string().contains('8'));
    let budget = EngineOptions { kv_budget: Some(1), ..EngineOptions::default() };
    assert!(matches!(Engine::new(&model, &budget), Err(Error::ContextBudget { .. })));
}

#[test]
fn sampling_settings_of_the_file_are_the_defaults() {
    let mut writer = quant_gguf::Writer::new();
    writer.set("general.sampling.top_k", 20i32).unwrap();
    writer.set("general.sampling.temp", 0.6f32).unwrap();
    writer.set("general.sampling.penalty_last_n", -1i32).unwrap();
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    let file = Gguf::from_bytes(vec![bytes.into()]).unwrap();
    let config = SamplerConfig::from_metadata(&file).unwrap();
    let expected =
        SamplerConfig { top_k: 20, temperature: 0.6, penalty_last_n: None, ..SamplerConfig::default() };
    assert_eq!(config, expected);
}
