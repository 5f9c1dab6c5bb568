//! Planes of the KV cache dropped when its memory is short: said of every session that it touched, and taken back.

use quant_runtime::{
    Binding, Engine, EngineOptions, Error, Event, GenerateOptions, LogitsWanted, Model, Policy, SessionId,
};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn model() -> Arc<Model> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo/demo-q8_0.gguf");
    Model::load(demo).unwrap()
}

fn options(kv: &str, budget: usize) -> EngineOptions {
    let kv: Policy = kv.parse().unwrap();
    EngineOptions {
        kv,
        kv_budget: Some(budget),
        context: Some(2048),
        chunk: 128,
        threads: Some(2),
        ..EngineOptions::default()
    }
}

/// The least budget that such a context is given.
fn least(model: &Arc<Model>, kv: &str) -> usize {
    match Engine::new(model, &options(kv, 1)).unwrap_err() {
        Error::ContextBudget { needed, .. } => needed,
        other => panic!("{other}"),
    }
}

fn text(count: u32, salt: u32) -> Vec<u32> {
    (0..count).map(|i| 3 + (i * 37 + i * i % 11 + salt * 1001) % 4000).collect()
}

fn logits(engine: &mut Engine, id: SessionId, tokens: &[u32]) -> Vec<f32> {
    let mut out = Vec::new();
    let visit = &mut |_: usize, row: &[f32]| {
        out.extend_from_slice(row);
        ControlFlow::Continue(())
    };
    engine.evaluate(id, tokens, LogitsWanted::Last, visit).unwrap();
    out
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn a_context_that_fits_only_without_planes() {
    let model = model();
    let (tight, whole) = (least(&model, "8,drop=2"), least(&model, "8"));
    assert!(tight < whole * 3 / 4, "{tight} of {whole}");
    assert!(Engine::new(&model, &options("8", tight)).is_err());
    let text = text(2000, 1);
    let mut wide = Engine::new(&model, &options("8,drop=2", 64 << 20)).unwrap();
    let id = wide.open();
    let exact = logits(&mut wide, id, &text);
    assert!(!wide.is_reduced(id).unwrap());

    let mut one = Engine::new(&model, &options("8,drop=2", tight)).unwrap();
    let id = one.open();
    let found = logits(&mut one, id, &text);
    let memory = one.memory();
    assert!(memory.reduced_pages > 0 && memory.allocated_bytes <= tight && one.is_reduced(id).unwrap());
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    let apart = norm(&mut found.iter().zip(&exact).map(|(a, b)| a - b)) / norm(&mut exact.iter().copied());
    assert!(apart > 0.0 && apart < 0.2, "{apart}");

    // The end of a generation says so, and so does the session wherever it is loaded.
    let request = GenerateOptions { max_tokens: Some(2), ..GenerateOptions::default() };
    let events: Vec<Event> = one.resume(id, &request).unwrap().map(Result::unwrap).collect();
    let Some(Event::Finished(finish)) = events.last() else { panic!("{events:?}") };
    assert!(finish.stats.reduced && finish.stats.kv_reduced_pages > 0);
    let path = file("reduced.kv");
    one.save(id, &path, Binding::Sampled).unwrap();
    let loaded = wide.load(&path, Binding::Sampled).unwrap();
    assert!(wide.is_reduced(loaded).unwrap());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_another_session_took_comes_back() {
    let model = model();
    let spill = file("planes.spill");
    let budget = least(&model, "8,drop=2") + (15 << 17);
    let kv_spill = Some(spill.clone());
    let mut one =
        Engine::new(&model, &EngineOptions { kv_spill: kv_spill.clone(), ..options("8,drop=2", budget) })
            .unwrap();
    assert_eq!(spill.exists(), !cfg!(unix));
    let first = one.open();
    logits(&mut one, first, &text(700, 1));
    assert!(!one.is_reduced(first).unwrap());
    let second = one.open();
    logits(&mut one, second, &text(1900, 2));
    assert!(one.is_reduced(first).unwrap() && one.memory().spilled_bytes > 0, "{:?}", one.memory());
    // A part of it when some text is taken back, the rest when the session ends.
    let before = one.memory().reduced_pages;
    one.rewind(second, 1000).unwrap();
    let after = one.memory().reduced_pages;
    assert!(after < before, "{before} pages, then {after}");
    one.close(second);
    let memory = one.memory();
    assert_eq!((memory.reduced_pages, memory.reduced_bytes, memory.spilled_bytes), (0, 0, 0));
    assert!(one.is_reduced(first).unwrap(), "no longer reproducible all the same");

    // A file of somebody is not written over.
    std::fs::write(&spill, "mine").unwrap();
    let error = Engine::new(&model, &EngineOptions { kv_spill, ..options("8,drop=2", budget) }).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    std::fs::remove_file(spill).unwrap();
}

#[test]
fn a_session_that_forgot_text_is_saved() {
    let model = model();
    let mut one =
        Engine::new(&model, &EngineOptions { context: Some(384), ..options("auto", 64 << 20) }).unwrap();
    let id = one.open();
    one.append(id, &text(300, 1)).unwrap();
    let request = GenerateOptions {
        max_tokens: Some(150),
        ignore_end: true,
        context_shift: Some(100),
        ..GenerateOptions::default()
    };
    one.resume(id, &request).unwrap().for_each(|event| drop(event.unwrap()));
    let tokens = one.tokens(id).unwrap().to_vec();
    assert!(tokens.len() < 384);
    let path = file("shifted.kv");
    one.save(id, &path, Binding::Sampled).unwrap();
    let loaded = one.load(&path, Binding::Sampled).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(one.tokens(loaded).unwrap(), tokens);
    let more = text(40, 2);
    assert!(logits(&mut one, loaded, &more) == logits(&mut one, id, &more), "other bits once loaded");
}
