//! The engine under random arrivals, cancels, forks, a KV budget that runs out and faults in the model.
//!
//! The simulated model keeps its tokens in a real KV cache (as keys) and computes its logits from what it reads back
//! there, so that a page lost, shared by mistake or not rewound changes the text.

use super::session::{GenerateOptions, SessionId};
use super::{Engine, Event, FinishReason};
use crate::backend::Backend;
use crate::sample::Pieces;
use crate::{Error, SamplerConfig};
use proptest::prelude::*;
use quant_kernels::Isa;
use quant_kvcache::{KvCache, LayerShape, Policy};
use quant_models::{LogitsWanted, Span};
use quant_tokenizer::DecoderState;
use std::borrow::Cow;
use std::collections::BTreeMap;

const VOCABULARY: usize = 12;
/// Ends a text.
const END: u32 = 0;
/// A sequence fails as soon as it has this token.
const POISON: u32 = 11;
const PAGE_BYTES: usize = 128 * 2 * 4;

struct Simulated;

impl Pieces for Simulated {
    fn piece(&self, token: u32) -> Cow<'_, [u8]> {
        Cow::Owned(vec![b'a' + token as u8])
    }
}

impl Backend for Simulated {
    fn vocabulary(&self) -> usize {
        VOCABULARY
    }

    fn file(&self) -> Option<&quant_gguf::Gguf> {
        None
    }

    fn isa(&self) -> Isa {
        Isa::Scalar
    }

    fn stop_tokens(&self) -> &[u32] {
        &[END]
    }

    fn decoder(&self, _: &[u32]) -> DecoderState {
        DecoderState::new()
    }

    fn decode(&self, _: &mut DecoderState, token: u32) -> String {
        char::from(b'a' + token as u8).to_string()
    }

    fn forward(
        &mut self,
        cache: &mut KvCache,
        spans: &[Span<'_>],
        logits: &mut Vec<f32>,
    ) -> Result<(), Error> {
        logits.clear();
        let lens: Vec<usize> = spans.iter().map(|s| cache.len(s.sequence).unwrap()).collect();
        if spans.iter().any(|s| s.tokens.contains(&POISON)) {
            // As the decoder does: every sequence is as long as before.
            for (span, len) in spans.iter().zip(&lens) {
                cache.reserve(span.sequence, span.tokens.len())?;
                cache.rewind(span.sequence, *len)?;
            }
            return Err(quant_models::Error::NotFinite { position: 0 }.into());
        }
        for (span, len) in spans.iter().zip(lens) {
            cache.reserve(span.sequence, span.tokens.len())?;
            for (position, token) in (len..).zip(span.tokens) {
                cache.write(Isa::Scalar, span.sequence, 0, position, &[*token as f32], &[position as f32])?;
                let wanted = match span.logits {
                    LogitsWanted::None => false,
                    LogitsWanted::Last => position + 1 == len + span.tokens.len(),
                    LogitsWanted::All => true,
                };
                if wanted {
                    let (mut keys, mut values) = (Vec::new(), Vec::new());
                    cache.pages(span.sequence, 0, 0, position / 128, &mut keys, &mut values)?;
                    let mut hash = 0u64;
                    for p in 0..=position {
                        let key = keys[p / 128].get(p % 128).expect("the cache is f32");
                        assert_eq!(
                            values[p / 128].get(p % 128),
                            Some(p as f32),
                            "the page of another position"
                        );
                        hash = (hash ^ key as u64 ^ (p as u64) << 8)
                            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                            .rotate_left(23);
                    }
                    // The end and poison are rare.
                    logits.extend((0..VOCABULARY as u64).map(|i| {
                        let value = (hash.rotate_left(5 * i as u32) % 64) as f32 / 16.0;
                        if matches!(i as u32, END | POISON) { value - 3.5 } else { value }
                    }));
                }
            }
            cache.commit(span.sequence, span.tokens.len())?;
        }
        Ok(())
    }
}

fn engine(pages: usize, context: usize, chunk: usize) -> Engine {
    let shape = LayerShape { kv_heads: 1, key_dim: 1, value_dim: 1 };
    let cache = KvCache::new(vec![shape], Policy::F32, pages * PAGE_BYTES).unwrap();
    assert_eq!(cache.page_bytes(), PAGE_BYTES);
    Engine::with_backend(Box::new(Simulated), cache, context, chunk)
}

fn options(seed: u64, max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        sampler: SamplerConfig { seed, min_p: 0.0, presence_penalty: 0.2, ..SamplerConfig::default() },
        max_tokens: Some(max_tokens),
        stop_strings: vec!["bcd".into(), "ee".into()],
        ..GenerateOptions::default()
    }
}

/// What one generation said in the end: its text, and its reason or error.
type Outcome = (String, Result<FinishReason, String>);

/// The same request in an engine of its own, token by token.
fn solo(prompt: &[u32], options: &GenerateOptions, context: usize) -> Outcome {
    let mut engine = engine(64, context, 1);
    let mut text = String::new();
    for event in engine.generate(prompt, options).unwrap() {
        match event {
            Ok(Event::Token { text: more, .. }) => text.push_str(&more),
            Ok(Event::Finished(finish)) => return (text + &finish.text, Ok(finish.reason)),
            Ok(Event::Prefill { .. }) => {}
            Err(error) => return (text, Err(error.to_string())),
        }
    }
    unreachable!("a generation ends with an event")
}

#[derive(Debug, Clone)]
struct Arrival {
    at: usize,
    prompt: Vec<u32>,
    seed: u64,
    max_tokens: usize,
    cancel_at: Option<usize>,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let prompt = prop::collection::vec(1u32..11, 1..300);
    (0usize..40, prompt, 0u64..4, 1usize..160, prop::option::weighted(0.2, 0usize..60)).prop_map(
        |(at, prompt, seed, max_tokens, cancel_at)| Arrival { at, prompt, seed, max_tokens, cancel_at },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Nothing is lost, pages return to zero, and every reply equals its solo run.
    #[test]
    fn every_reply_equals_its_solo_run(
        arrivals in prop::collection::vec(arrival(), 1..8),
        pages in 4usize..12,
        chunk in 1usize..200,
    ) {
        const CONTEXT: usize = 400;
        let mut engine = engine(pages, CONTEXT, chunk);
        let mut running: BTreeMap<SessionId, (usize, String)> = BTreeMap::new();
        let mut waiting: Vec<(usize, &Arrival)> = arrivals.iter().enumerate().collect();
        let mut replies = 0;
        for step in 0.. {
            waiting.retain(|(i, arrival)| {
                let now = arrival.at <= step;
                if now {
                    let id = engine.open();
                    engine.append(id, &arrival.prompt).unwrap();
                    engine.start(id, &options(arrival.seed, arrival.max_tokens)).unwrap();
                    running.insert(id, (*i, String::new()));
                }
                !now
            });
            for (id, report) in engine.step() {
                let (i, text) = running.get_mut(&id).expect("a report of a generation that runs");
                let arrival = &arrivals[*i];
                let outcome = match report {
                    Ok(Event::Prefill { done, total }) => {
                        prop_assert!(done <= total && total == arrival.prompt.len());
                        continue;
                    }
                    Ok(Event::Token { text: more, .. }) => {
                        text.push_str(&more);
                        continue;
                    }
                    Ok(Event::Finished(finish)) => {
                        text.push_str(&finish.text);
                        Ok(finish.reason)
                    }
                    Err(Error::Cache(quant_kvcache::Error::OutOfMemory { .. })) => {
                        // The budget is really full: a page more than is free was needed.
                        prop_assert!(engine.memory().used_bytes == pages * PAGE_BYTES);
                        Err(None)
                    }
                    Err(error) => Err(Some(error.to_string())),
                };
                let alone = solo(&arrival.prompt, &options(arrival.seed, arrival.max_tokens), CONTEXT);
                match outcome {
                    Err(None) => prop_assert!(alone.0.starts_with(text.as_str())),
                    Err(Some(error)) => prop_assert_eq!((text.clone(), Err(error)), alone),
                    Ok(reason) => prop_assert_eq!((text.clone(), Ok(reason)), alone),
                }
                engine.close(id);
                running.remove(&id);
                replies += 1;
            }
            let cancelled: Vec<SessionId> = running
                .iter()
                .filter(|(_, (i, _))| arrivals[*i].cancel_at.is_some_and(|at| arrivals[*i].at + at <= step))
                .map(|(id, _)| *id)
                .collect();
            for id in cancelled {
                let (i, text) = running.remove(&id).unwrap();
                let finish = engine.cancel(id).unwrap();
                let alone = solo(&arrivals[i].prompt, &options(arrivals[i].seed, arrivals[i].max_tokens), CONTEXT);
                prop_assert_eq!(finish.reason, FinishReason::Cancelled);
                prop_assert!(alone.0.starts_with(&text));
                engine.close(id);
                replies += 1;
            }
            if running.is_empty() && waiting.is_empty() {
                break;
            }
            prop_assert!(step < 100_000, "no progress");
        }
        prop_assert_eq!(replies, arrivals.len());
        prop_assert_eq!(engine.memory().used_bytes, 0);
        prop_assert_eq!(engine.memory().sequences, 0);
        prop_assert!(engine.step().is_empty());
    }

    /// Appending in parts, rewinding, forking and going on equal a straight run.
    #[test]
    fn sessions_go_on_where_they_were(
        first in prop::collection::vec(1u32..11, 1..200),
        second in prop::collection::vec(1u32..11, 1..100),
        cut in 0usize..300,
        chunk in 1usize..100,
    ) {
        let mut engine = engine(32, 600, chunk);
        let id = engine.open();
        engine.append(id, &first).unwrap();
        let _ = engine.resume(id, &options(1, 20)).unwrap().text();
        let fork = engine.fork(id).unwrap();
        for session in [id, fork] {
            engine.rewind(session, cut).unwrap();
            engine.append(session, &second).unwrap();
            let prompt = engine.tokens(session).unwrap().to_vec();
            let (text, finish) = match engine.resume(session, &options(2, 30)).unwrap().text() {
                Ok((text, finish)) => (text, Ok(finish.reason)),
                Err(error) => (String::new(), Err(error.to_string())),
            };
            let alone = solo(&prompt, &options(2, 30), 600);
            prop_assert_eq!(&finish, &alone.1);
            if finish.is_ok() {
                prop_assert_eq!(text, alone.0);
            }
        }
        // The logits after the last token once more.
        engine.close(id);
        engine.close(fork);
        prop_assert_eq!(engine.memory().used_bytes, 0);
    }
}

#[test]
fn a_dropped_generation_frees_its_pages_and_leaves_others_alone() {
    let mut engine = engine(8, 300, 64);
    let other = engine.open();
    engine.append(other, &[1, 2, 3]).unwrap();
    engine.start(other, &options(3, 4)).unwrap();
    {
        let mut generation = engine.generate(&[5; 200], &options(0, 50)).unwrap();
        for _ in 0..8 {
            generation.next();
        }
    }
    assert_eq!(engine.memory().sequences, 1);
    assert_eq!(engine.memory().used_bytes, PAGE_BYTES);
    let mut text = String::new();
    loop {
        for (id, report) in engine.step() {
            assert_eq!(id, other);
            match report.unwrap() {
                Event::Token { text: more, .. } => text.push_str(&more),
                Event::Finished(finish) => {
                    text.push_str(&finish.text);
                    assert_eq!((text, Ok(finish.reason)), solo(&[1, 2, 3], &options(3, 4), 300));
                    return;
                }
                Event::Prefill { .. } => {}
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_with_both_numbers() {
    let mut engine = engine(8, 10, 64);
    let error = engine.generate(&[1; 11], &options(0, 5)).unwrap_err();
    assert!(matches!(error, Error::PromptTooLong { tokens: 11, context: 10 }), "{error}");
    let error = engine.generate(&[1; 10], &options(0, 5)).unwrap_err();
    assert!(matches!(error, Error::PromptTooLong { tokens: 11, context: 10 }), "{error}");
    assert!(matches!(engine.generate(&[], &options(0, 5)), Err(Error::EmptyPrompt)));
    assert!(matches!(engine.generate(&[99], &options(0, 5)), Err(Error::Token { token: 99, .. })));
    assert_eq!(engine.memory().sequences, 0);
    // The last place of the context is filled, then it ends.
    let long = GenerateOptions { stop_strings: Vec::new(), ignore_end: true, ..options(0, 50) };
    let (text, finish) = engine.generate(&[1; 8], &long).unwrap().text().unwrap();
    assert_eq!((text.len(), finish.reason), (2, FinishReason::ContextFull));
    assert_eq!((finish.stats.prompt_tokens, finish.stats.generated_tokens), (8, 2));
}

#[test]
fn sequences_of_one_request_differ_and_repeat() {
    let text = |sequence| {
        let options =
            GenerateOptions { sequence, ignore_end: true, stop_strings: Vec::new(), ..options(7, 40) };
        engine(8, 300, 64).generate(&[1, 2], &options).unwrap().text().unwrap().0
    };
    assert_eq!(text(0), text(0));
    assert_ne!(text(0), text(1));
}

#[test]
fn evaluation_gives_every_row_once_whatever_the_chunk() {
    let tokens: Vec<u32> = (0..300).map(|i| 1 + i % 10).collect();
    let rows = |chunk, wanted| {
        let mut engine = engine(8, 300, chunk);
        let id = engine.open();
        let mut rows = Vec::new();
        engine
            .evaluate(id, &tokens, wanted, &mut |position, row| {
                rows.push((position, row.to_vec()));
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        rows
    };
    let all = rows(1, LogitsWanted::All);
    assert_eq!(all.len(), 300);
    assert!(all.iter().enumerate().all(|(i, (position, row))| i == *position && row.len() == VOCABULARY));
    assert_eq!(rows(77, LogitsWanted::All), all);
    assert_eq!(rows(77, LogitsWanted::Last), all[299..]);
}
