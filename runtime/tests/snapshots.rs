//! Sessions on disk and prefixes across requests: the same bits, or a refusal that says why.

use quant_runtime::{
    Binding, Engine, EngineOptions, Error, GenerateOptions, Gguf, LogitsWanted, Model, Policy, SamplerConfig,
    SessionId,
};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn model() -> Arc<Model> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo/demo-q8_0.gguf");
    Model::load(demo).unwrap()
}

fn engine(model: &Arc<Model>, kv: &str, prefix_cache: bool) -> Engine {
    let kv: Policy = kv.parse().unwrap();
    Engine::new(model, &EngineOptions { kv, prefix_cache, threads: Some(2), ..EngineOptions::default() })
        .unwrap()
}

fn text(count: u32, salt: u32) -> Vec<u32> {
    (0..count).map(|i| 3 + (i * 37 + i * i % 11 + salt * 1001) % 4000).collect()
}

/// The bits of the logits after these further tokens.
fn logits(engine: &mut Engine, id: SessionId, tokens: &[u32]) -> Vec<u32> {
    let mut bits = Vec::new();
    let visit = &mut |_: usize, row: &[f32]| {
        bits.extend(row.iter().map(|x| x.to_bits()));
        ControlFlow::Continue(())
    };
    engine.evaluate(id, tokens, LogitsWanted::Last, visit).unwrap();
    bits
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Twenty of the likeliest tokens.
fn greedy() -> GenerateOptions {
    GenerateOptions {
        sampler: SamplerConfig::greedy(),
        max_tokens: Some(20),
        ignore_end: true,
        ..GenerateOptions::default()
    }
}

#[test]
fn a_loaded_session_has_the_bits_of_the_saved_one() {
    let model = model();
    for (kv, len) in [("f16", 200), ("auto", 600), ("4", 512), ("k=8,v=4,window=128,tiers=4@256", 700)] {
        let path = file(&format!("session-{len}.kv"));
        let mut one = engine(&model, kv, false);
        let id = one.open();
        logits(&mut one, id, &text(len, 1));
        one.save(id, &path, Binding::Verified).unwrap();
        let expected = logits(&mut one, id, &text(150, 2));
        // Two engines map one file, which may be unlinked meanwhile.
        let mut others = [engine(&model, kv, false), engine(&model, kv, false)];
        let ids: Vec<SessionId> =
            others.iter_mut().map(|other| other.load(&path, Binding::Verified).unwrap()).collect();
        std::fs::remove_file(&path).unwrap();
        for (other, id) in others.iter_mut().zip(ids) {
            assert_eq!(other.tokens(id).unwrap(), text(len, 1));
            assert!(logits(other, id, &text(150, 2)) == expected, "{kv}: other bits");
            other.close(id);
            assert_eq!((other.memory().used_bytes, other.memory().mapped_bytes), (0, 0));
        }
    }
}

#[test]
fn what_is_not_this_sessions_is_refused() {
    let model = model();
    let path = file("refused.kv");
    let mut one = engine(&model, "4", false);
    let id = one.open();
    assert!(matches!(one.save(id, &path, Binding::Sampled), Err(Error::EmptyPrompt)));
    logits(&mut one, id, &text(300, 1));
    one.save(id, &path, Binding::Sampled).unwrap();
    let refused = |engine: &mut Engine, path: &Path, binding, part: &str| {
        let error = engine.load(path, binding).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert_eq!(engine.memory().sequences, 1);
    };
    refused(&mut one, &path, Binding::Verified, "saved without");
    let mut other = engine(&model, "8", false);
    other.open();
    refused(&mut other, &path, Binding::Sampled, "its KV cache is 4, this one is 8");
    let mut short = Engine::new(
        &model,
        &EngineOptions { kv: "4".parse().unwrap(), context: Some(128), ..EngineOptions::default() },
    )
    .unwrap();
    assert!(matches!(
        short.load(&path, Binding::Sampled),
        Err(Error::PromptTooLong { tokens: 300, context: 128 })
    ));

    // Any byte of the data, and any cut.
    let bytes = std::fs::read(&path).unwrap();
    let damaged = file("damaged.kv");
    let places: Vec<_> = Gguf::open(&path).unwrap().tensors().map(|tensor| tensor.range().unwrap()).collect();
    for place in places {
        let (mut bytes, at) = (bytes.clone(), (place.start + place.end) as usize / 2);
        bytes[at] ^= 1;
        std::fs::write(&damaged, bytes).unwrap();
        refused(&mut one, &damaged, Binding::Sampled, "damaged");
    }
    for len in [0, 10, 1000, bytes.len() - 4097] {
        std::fs::write(&damaged, &bytes[..len]).unwrap();
        assert!(one.load(&damaged, Binding::Sampled).is_err(), "{len} bytes");
    }
    let mut head = 0;
    while head < 2000 {
        let mut bytes = bytes.clone();
        bytes[head] ^= 0x15;
        std::fs::write(&damaged, bytes).unwrap();
        if let Ok(id) = one.load(&damaged, Binding::Sampled) {
            one.close(id); // a message or a key that nobody reads
        }
        head += 13;
    }
    one.close(id);
    assert_eq!((one.memory().used_bytes, one.memory().mapped_bytes), (0, 0));
}

#[test]
fn prompts_that_begin_alike_are_read_once() {
    let model = model();
    let greedy = greedy();
    for kv in ["f16", "auto", "k=8,v=4,window=128,tiers=4@256"] {
        let mut kept = engine(&model, kv, true);
        let mut plain = engine(&model, kv, false);
        let mut reused = Vec::new();
        for salt in [2, 2, 3] {
            let prompt = [text(500, 1), text(60, salt)].concat();
            let (expected, _) = plain.generate(&prompt, &greedy).unwrap().text().unwrap();
            let (found, finish) = kept.generate(&prompt, &greedy).unwrap().text().unwrap();
            assert_eq!(found, expected, "{kv}");
            reused.push(finish.stats.reused_tokens);
        }
        assert_eq!(reused[0], 0);
        assert!(reused[1] >= 256 && reused[2] >= 256, "{kv}: {reused:?}");
        assert!(kept.memory().prefix_pages > 0);
        kept.forget_prefixes();
        assert_eq!(kept.memory().used_bytes, 0);
        assert_eq!(plain.memory().used_bytes, 0);
    }
}

#[test]
fn documents_that_prompts_share_are_read_once_wherever_they_stand() {
    let model = model();
    let greedy = greedy();
    let document = text(512, 1);
    let prompts = [
        [text(128, 2), document.clone(), text(40, 3)].concat(),
        // Further on, and not at the beginning of a chunk.
        [text(384, 4), document.clone(), text(40, 5)].concat(),
        // The same again: nothing of it is new, but what was moved serves no other.
        [text(384, 4), document.clone(), text(40, 5)].concat(),
        // Between two pages: not found.
        [text(200, 6), document.clone(), text(40, 7)].concat(),
    ];
    for kv in ["f16", "auto"] {
        let options = EngineOptions {
            kv: kv.parse().unwrap(),
            reuse_pages: true,
            threads: Some(2),
            ..EngineOptions::default()
        };
        let mut runs = Vec::new();
        for chunk in [512, 96] {
            let options = EngineOptions { chunk, ..options.clone() };
            let mut engine = Engine::new(&model, &options).unwrap();
            let mut replies = Vec::new();
            for prompt in &prompts {
                let (reply, finish) = engine.generate(prompt, &greedy).unwrap().text().unwrap();
                let stats = finish.stats;
                let read = stats.reused_tokens + stats.moved_tokens + stats.prompt_tokens;
                assert_eq!((stats.generated_tokens, read), (20, prompt.len()), "{kv}: {stats:?}");
                replies.push((reply, stats.moved_tokens, stats.reused_tokens));
            }
            engine.forget_prefixes();
            assert_eq!(engine.memory().used_bytes, 0);
            runs.push(replies);
        }
        assert_eq!(runs[0], runs[1], "{kv}: chunks show");
        let moved: Vec<usize> = runs[0].iter().map(|(_, moved, _)| *moved).collect();
        assert!(moved[0] == 0 && moved[1] >= 384 && moved[2] >= 384 && moved[3] == 0, "{kv}: {moved:?}");
        // A prompt that nothing was moved in is answered as ever.
        let (plain, _) = engine(&model, kv, false).generate(&prompts[3], &greedy).unwrap().text().unwrap();
        assert_eq!(runs[0][3].0, plain);
    }
}
