//! States of recurrent layers: advanced in place, copied at page boundaries, shared by forks.

use proptest::prelude::*;
use quant_kernels::Isa;
use quant_kvcache::{
    Bytes, Checkpoints, Error, ImportPart, KvCache, Layer, LayerShape, PAGE, PageHold, Past, Policy,
    SequenceId,
};
use std::sync::Arc;

const LAYERS: usize = 3;

fn cache(budget: usize) -> KvCache {
    let shape = LayerShape { kv_heads: 1, key_dim: 4, value_dim: 4 };
    let layers = vec![Layer::recurrent(5), shape.into(), Layer::recurrent(70)];
    let cache = KvCache::new(layers, Policy::F16, budget).unwrap();
    cache.with_checkpoints(Checkpoints { every: 1, count: 3 })
}

/// A state that remembers every token and its place.
fn advance(state: &mut [f32], token: u32) {
    for (i, x) in state.iter_mut().enumerate() {
        *x = (*x * 0.75 + token as f32 + i as f32) % 1009.0;
    }
}

/// Advances the states over new tokens, with the copies that are due, and does not commit.
fn pass(cache: &mut KvCache, id: SequenceId, tokens: &[u32]) -> Result<(), Error> {
    cache.reserve(id, tokens.len())?;
    let first = cache.len(id)?;
    for layer in 0..LAYERS {
        if layer == 1 {
            let rows = vec![0.5; 4 * tokens.len()];
            cache.write(Isa::detect(), id, layer, first, &rows, &rows)?;
            continue;
        }
        let mut due = cache.next_checkpoint(id, first)?;
        for (position, &token) in (first + 1..).zip(tokens) {
            advance(cache.state_mut(id, layer)?, token);
            if due == Some(position) {
                cache.checkpoint(id, layer, position)?;
                due = cache.next_checkpoint(id, position)?;
            }
        }
    }
    Ok(())
}

fn assert_state(cache: &KvCache, id: SequenceId, tokens: &[u32]) {
    for (layer, len) in [(0, 5), (2, 70)] {
        let mut expected = vec![0.0; len];
        tokens.iter().for_each(|&token| advance(&mut expected, token));
        match cache.state(id, layer) {
            Ok(state) => assert_eq!(state, expected),
            Err(error) => assert!(tokens.is_empty() && error == Error::NoState { layer }, "{error}"),
        }
    }
}

/// A sequence as another process would read it.
fn saved(cache: &KvCache, id: SequenceId) -> Vec<ImportPart> {
    let export = cache.export(id).unwrap();
    let part = |part: &quant_kvcache::ExportPart<'_>| {
        let bytes: Vec<u8> = part.blocks.iter().flat_map(|block| block.iter().copied()).collect();
        let range = 0..bytes.len();
        let bytes = Bytes::new(Arc::new(bytes), range).unwrap();
        ImportPart { group: part.group, form: part.form, pages: part.pages.clone(), bytes }
    };
    export.parts.iter().map(part).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize, usize),
    Fail(usize, usize),
    Fork(usize),
    Rewind(usize, usize),
    Release(usize),
    Hold(usize),
    Attach(usize),
    Save(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..6usize;
    prop_oneof![
        5 => (which.clone(), 1..300usize).prop_map(|(s, n)| Step::Append(s, n)),
        2 => (which.clone(), 1..300usize).prop_map(|(s, n)| Step::Fail(s, n)),
        2 => which.clone().prop_map(Step::Fork),
        3 => (which.clone(), 0..400usize).prop_map(|(s, n)| Step::Rewind(s, n)),
        1 => which.clone().prop_map(Step::Release),
        1 => which.clone().prop_map(Step::Hold),
        1 => (0..6usize).prop_map(Step::Attach),
        1 => which.prop_map(Step::Save),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn states_are_those_of_the_tokens(budget in 0..60_000usize, steps in proptest::collection::vec(step(), 1..30)) {
        let mut cache = cache(budget);
        let mut known: Vec<(SequenceId, Vec<u32>)> = Vec::new();
        let mut held: Option<(Vec<PageHold>, Vec<u32>)> = None;
        for (salt, step) in steps.into_iter().enumerate() {
            if known.is_empty() {
                known.push((cache.create(), Vec::new()));
            }
            let count = known.len();
            let new = |n: usize| -> Vec<u32> { (0..n as u32).map(|i| i * 31 % 97 + salt as u32).collect() };
            match step {
                Step::Append(s, n) => {
                    let (id, tokens) = &mut known[s % count];
                    match pass(&mut cache, *id, &new(n)) {
                        Ok(()) => {
                            cache.commit(*id, n).unwrap();
                            tokens.extend(new(n));
                        }
                        Err(Error::OutOfMemory { needed, available, .. }) => prop_assert!(needed > available),
                        Err(other) => panic!("{other}"),
                    }
                }
                Step::Fail(s, n) => {
                    let (id, tokens) = &mut known[s % count];
                    let ran = pass(&mut cache, *id, &new(n)).is_ok();
                    if ran {
                        prop_assert_eq!(cache.fork(*id), Err(Error::Uncommitted));
                    }
                    let reached = cache.rewind(*id, tokens.len()).unwrap();
                    prop_assert!(reached == tokens.len() || ran && reached + 4 * PAGE > tokens.len());
                    tokens.truncate(reached);
                }
                Step::Fork(s) => {
                    let (id, tokens) = known[s % count].clone();
                    known.push((cache.fork(id).unwrap(), tokens));
                }
                Step::Rewind(s, n) => {
                    let (id, tokens) = &mut known[s % count];
                    let len = tokens.len().saturating_sub(n);
                    let reached = cache.rewind(*id, len).unwrap();
                    prop_assert!(reached <= len);
                    tokens.truncate(reached);
                }
                Step::Release(s) => {
                    let (id, _) = known.swap_remove(s % count);
                    cache.release(id).unwrap();
                }
                Step::Hold(s) => {
                    let (id, tokens) = &known[s % count];
                    let pages = (0..tokens.len() / PAGE).map(|page| cache.hold(*id, page).unwrap()).collect();
                    if let Some((old, _)) = held.replace((pages, tokens.clone())) {
                        old.into_iter().for_each(|page| cache.drop_hold(page));
                    }
                }
                Step::Save(s) => {
                    let (id, tokens) = &known[s % count];
                    if !tokens.is_empty() {
                        let parts = saved(&cache, *id);
                        match cache.import(&Past { len: tokens.len(), ..Past::default() }, &parts) {
                            Ok(id) => known.push((id, tokens.clone())),
                            Err(Error::OutOfMemory { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
                Step::Attach(n) => {
                    if let Some((pages, tokens)) = &held {
                        let (id, reached) = cache.attach(&pages[..n.min(pages.len())]).unwrap();
                        known.push((id, tokens[..reached].to_vec()));
                    }
                }
            }
            for (id, tokens) in &known {
                prop_assert_eq!(cache.len(*id).unwrap(), tokens.len());
                assert_state(&cache, *id, tokens);
            }
            let stats = cache.stats();
            prop_assert!(stats.allocated_bytes <= budget);
        }
        for (id, _) in known {
            cache.release(id).unwrap();
        }
        for page in held.into_iter().flat_map(|(pages, _)| pages) {
            cache.drop_hold(page);
        }
        prop_assert_eq!(cache.stats().used_bytes, 0);
    }
}

#[test]
fn layers_without_a_state_say_so() {
    let mut cache = cache(1 << 20);
    let id = cache.create();
    assert_eq!(cache.state_mut(id, 0), Err(Error::NoState { layer: 0 }), "nothing is reserved");
    cache.reserve(id, 1).unwrap();
    assert_eq!(cache.state_mut(id, 0).unwrap(), [0.0; 5]);
    for layer in [1, 3] {
        assert_eq!(cache.state_mut(id, layer), Err(Error::NoState { layer }));
    }
    assert_eq!(cache.checkpoint(id, 0, 1), Err(Error::NoState { layer: 0 }), "none is due");
    let write = cache.write(Isa::detect(), id, 0, 0, &[0.0], &[0.0]);
    assert_eq!(write, Err(Error::NoSuchHead { layer: 0, kv_head: 0 }));
    assert!(cache.bytes_for(1000, 100) > 7 * 384);
}
