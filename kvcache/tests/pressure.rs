//! Planes dropped when memory is short: only as much as needed, the coldest first, never of shared pages; and brought
//! back bit for bit where they were kept.

mod common;

use common::{Loop, straight, tokens};
use proptest::prelude::*;
use quant_kvcache::{
    Bytes, Error, ImportPart, KvCache, Layer, LayerShape, Observed, PAGE, Policy, SequenceId, SpillFile,
    SpillStore,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A layer that sees everything; pages are of one group.
fn layers() -> Vec<Layer> {
    vec![LayerShape { kv_heads: 2, key_dim: 64, value_dim: 64 }.into(); 2]
}

fn policy(text: &str) -> Policy {
    text.parse().unwrap()
}

/// What a page is kept as, and its bytes.
type Kept = BTreeMap<(usize, u32), (usize, Vec<u8>)>;

/// All blocks of a sequence, but those as written.
fn sealed(cache: &KvCache, id: SequenceId) -> Kept {
    let mut out = Kept::new();
    for part in cache.export(id).unwrap().parts.into_iter().filter(|part| part.form > 0) {
        for (page, block) in part.pages.iter().zip(&part.blocks) {
            let before = out.insert((part.group, *page), (part.form, block.to_vec()));
            assert!(before.is_none(), "a page is sealed once");
        }
    }
    out
}

fn reduced_pages(cache: &KvCache, id: SequenceId) -> Vec<u32> {
    sealed(cache, id).into_iter().filter(|(_, (form, _))| *form > 1).map(|((_, page), _)| page).collect()
}

/// Planes in memory, told apart from the cache's.
#[derive(Debug, Default, Clone)]
struct Memory(Arc<Mutex<BTreeMap<u64, Vec<u8>>>>);

impl SpillStore for Memory {
    fn put(&mut self, bytes: &[u8]) -> Option<u64> {
        let mut kept = self.0.lock().unwrap();
        let key = kept.keys().next_back().map_or(0, |last| last + 1);
        kept.insert(key, bytes.to_vec());
        Some(key)
    }

    fn get(&mut self, key: u64, out: &mut [u8]) -> std::io::Result<()> {
        out.copy_from_slice(&self.0.lock().unwrap()[&key]);
        Ok(())
    }

    fn remove(&mut self, key: u64) {
        self.0.lock().unwrap().remove(&key).unwrap();
    }

    fn bytes(&self) -> usize {
        self.0.lock().unwrap().values().map(Vec::len).sum()
    }
}

/// Runs page by page under a budget; the outputs of the last page.
fn run(policy: &Policy, budget: usize, text: &[u32]) -> Result<(Loop, SequenceId, Vec<f32>), Error> {
    let mut one = Loop::with(common::layers(), policy, budget);
    let id = one.cache.create();
    let mut out = Vec::new();
    for tokens in text.chunks(PAGE) {
        out = one.feed(id, tokens)?;
        let stats = one.cache.stats();
        assert!(stats.used_bytes <= stats.allocated_bytes && stats.allocated_bytes <= budget);
    }
    let values = out.iter().flatten().map(|&x| f32::from_bits(x)).collect();
    Ok((one, id, values))
}

/// The smallest budget that holds a text, to 16 KiB.
fn smallest(layers: &dyn Fn() -> Vec<Layer>, policy: &Policy, text: &[u32]) -> usize {
    let holds = |steps: usize| {
        let mut one = Loop::with(layers(), policy, steps << 14);
        let id = one.cache.create();
        text.chunks(PAGE).all(|tokens| one.pass_without_queries(id, tokens).is_ok())
    };
    let (mut low, mut high) =
        (0, Loop::with(layers(), policy, 0).cache.bytes_for(text.len(), PAGE).div_ceil(1 << 14));
    while low < high {
        let middle = (low + high) / 2;
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    high << 14
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn what_fits_only_without_planes_loses_them_and_no_more() {
    let text = tokens(13 * PAGE, 1);
    let without = policy("k=8,v=8");
    let (whole, id, exact) = run(&without, 1 << 27, &text).unwrap();
    let mut tight = smallest(&common::layers, &without, &text);
    assert!(!whole.cache.is_reduced(id).unwrap());
    let mut last = 0.0;
    for (drop, most) in [(6, 0.02), (4, 0.06), (2, 0.3)] {
        let policy = policy(&format!("k=8,v=8,drop={drop}"));
        let cache = KvCache::new(common::layers(), &policy, 0).unwrap();
        let (full, least) = (cache.bytes_for(text.len(), PAGE), cache.least_bytes_for(text.len(), PAGE));
        let before = std::mem::replace(&mut tight, smallest(&common::layers, &policy, &text));
        assert!(tight < before && tight <= least && least < full, "{tight} {before} {least} {full}");
        assert!(matches!(run(&without, tight, &text), Err(Error::OutOfMemory { .. })));
        let (one, id, values) = run(&policy, tight, &text).unwrap();
        let stats = one.cache.stats();
        assert!(one.cache.is_reduced(id).unwrap() && stats.reduced_pages > 0 && stats.reduced_bytes > 0);
        // Fewer bits, more error, but bounded.
        let error = far(&values, &exact);
        assert!(error > last && error < most, "drop={drop}: {error}");
        last = error;

        let (one, id, values) = run(&policy, full, &text).unwrap();
        assert!(values == exact && !one.cache.is_reduced(id).unwrap(), "drop={drop}: nothing was needed");
        assert_eq!(one.cache.stats().reduced_pages, 0);
    }
}

#[test]
fn the_coldest_pages_go_first() {
    let shape = LayerShape { kv_heads: 1, key_dim: 64, value_dim: 64 };
    let policy = policy("k=8,v=8,drop=2");
    let cache = KvCache::new(vec![shape], &policy, 0).unwrap();
    let (full, least) = (cache.bytes_for(24 * PAGE, PAGE), cache.least_bytes_for(24 * PAGE, PAGE));
    let mut one = Loop::with(vec![shape.into()], &policy, least + (full - least) / 2);
    let id = one.cache.create();
    // Pages that are a multiple of 5 have keys along the query, the others across it.
    let hot = |page: usize| page.is_multiple_of(5);
    for page in 0..24 {
        let keys: Vec<f32> = (0..PAGE * 64)
            .map(|i| {
                let noise = ((i * 7919 + page * 31) % 101) as f32 * 0.004 - 0.2;
                if hot(page) && i % 64 < 32 { 1.5 + noise } else { noise }
            })
            .collect();
        one.cache.reserve(id, PAGE).unwrap();
        one.cache.write(one.isa, id, 0, page * PAGE, &keys, &vec![0.5; PAGE * 64]).unwrap();
        one.cache.seal(one.isa, &*one.parallel, 0, [id]).unwrap();
        assert!(one.cache.observes(id, PAGE));
        let mut q = vec![0.0; 128];
        for head in q.chunks_exact_mut(64) {
            head[..32].fill(1.0);
        }
        let of = Observed { q: &q, position: page * PAGE + PAGE - 1, scale: 0.2 };
        one.cache.observe(one.isa, &*one.parallel, id, 0, &of).unwrap();
        one.cache.commit(id, PAGE).unwrap();
    }
    let reduced = reduced_pages(&one.cache, id);
    assert!(reduced.len() >= 6, "{reduced:?}");
    assert!(reduced.iter().all(|&page| !hot(page as usize)), "{reduced:?}");
    let wrong = Observed { q: &[0.0; 65], position: 0, scale: 1.0 };
    assert!(matches!(
        one.cache.observe(one.isa, &*one.parallel, id, 0, &wrong),
        Err(Error::RowLength { expected: 64, got: 65, .. })
    ));
}

#[test]
fn pages_of_others_are_left_alone() {
    let policy = policy("k=8,v=8,drop=2");
    let text = tokens(8 * PAGE, 1);
    let cache = KvCache::new(layers(), &policy, 0).unwrap();
    let budget = cache.bytes_for(8 * PAGE, PAGE) + cache.least_bytes_for(12 * PAGE, PAGE);
    let mut one = Loop::with(layers(), &policy, budget);
    // A snapshot's pages, those of a prefix, and those of a fork.
    let mapped = {
        let mut other = Loop::with(layers(), &policy, 1 << 27);
        let id = other.cache.create();
        other.feed(id, &tokens(4 * PAGE + 5, 9)).unwrap();
        let export = other.cache.export(id).unwrap();
        let parts: Vec<ImportPart> = export.parts.into_iter().map(|part| placed(part)).collect();
        one.cache.import(&export.past, &parts).unwrap()
    };
    let first = one.cache.create();
    one.feed(first, &text[..6 * PAGE]).unwrap();
    let fork = one.cache.fork(first).unwrap();
    let before = [sealed(&one.cache, mapped), sealed(&one.cache, fork)];
    // Until nothing goes any more.
    let mut fed = 0;
    while one.feed(first, &tokens(PAGE, fed)).is_ok() {
        fed += 1;
    }
    let reduced = reduced_pages(&one.cache, first);
    assert!(reduced.len() >= 4 && reduced.iter().all(|&page| page >= 6), "{reduced:?}");
    assert_eq!([sealed(&one.cache, mapped), sealed(&one.cache, fork)], before);
    assert!(!one.cache.is_reduced(fork).unwrap() && !one.cache.is_reduced(mapped).unwrap());
    one.cache.release(first).unwrap();
    let out = one.feed(fork, &text[6 * PAGE..]).unwrap();
    assert!(out == straight(layers(), &policy, &text)[6 * PAGE..], "the fork has other bits");

    // What was reduced is no one else's past.
    let alone = one.cache.create();
    while one.feed(alone, &tokens(PAGE, 3)).is_ok() {}
    assert!(one.cache.is_reduced(alone).unwrap());
    assert_eq!(one.cache.remember(alone, &tokens(PAGE, 3)).unwrap_err(), Error::Reduced);
    assert_eq!(one.cache.hold(alone, 0).unwrap_err(), Error::Reduced);
    let child = one.cache.fork(alone).unwrap();
    assert!(one.cache.is_reduced(child).unwrap());
    assert_eq!(one.cache.rewind(child, 0).unwrap(), 0);
    assert!(!one.cache.is_reduced(child).unwrap(), "nothing is left of it");
}

/// A part as it would lie in a mapping.
fn placed(part: quant_kvcache::ExportPart<'_>) -> ImportPart {
    let bytes: Vec<u8> = part.blocks.iter().flat_map(|block| block.iter().copied()).collect();
    let mut memory = vec![0; bytes.len() + 64];
    let at = memory.as_ptr().align_offset(64);
    let range = at..at + bytes.len();
    memory[range.clone()].copy_from_slice(&bytes);
    let bytes = Bytes::new(Arc::new(memory), range).unwrap();
    ImportPart { group: part.group, form: part.form, pages: part.pages, bytes }
}

#[test]
fn what_was_kept_comes_back_bit_for_bit() {
    let policy = policy("k=7,v=6,boundary=1,drop=2");
    let text = tokens(8 * PAGE + 7, 1);
    let whole = {
        let mut one = Loop::with(layers(), &policy, 1 << 27);
        let id = one.cache.create();
        one.feed(id, &text).unwrap();
        sealed(&one.cache, id)
    };
    let cache = KvCache::new(layers(), &policy, 0).unwrap();
    let budget = cache.bytes_for(text.len(), text.len()) + cache.least_bytes_for(6 * PAGE, PAGE);
    let folder = std::env::temp_dir();
    let file = || {
        let path =
            folder.join(format!("quant-spill-{}-{:?}", std::process::id(), std::thread::current().id()));
        let file =
            std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    };
    let stores: [Box<dyn SpillStore>; 3] = [
        Box::new(Memory::default()),
        Box::new(SpillFile::new(file(), 1 << 30)),
        // Room for one page's planes or two: the others are lost.
        Box::new(SpillFile::new(file(), 60_000)),
    ];
    for (i, store) in stores.into_iter().enumerate() {
        let mut one = Loop::with(layers(), &policy, budget);
        one.cache = one.cache.with_spill(store);
        let id = one.cache.create();
        one.feed(id, &text).unwrap();
        let other = one.cache.create();
        let mut fed = 0;
        while one.feed(other, &tokens(PAGE, fed)).is_ok() {
            fed += 1;
        }
        let reduced = one.cache.stats();
        assert!(one.cache.is_reduced(id).unwrap() && (i == 2 || reduced.spilled_bytes > 0));
        assert!(i > 0 || reduced.spilled_bytes > reduced.reduced_bytes / 2);
        one.cache.release(other).unwrap();
        assert_eq!(one.cache.raise(budget).unwrap(), 0, "so much is not to spare");
        let raised = one.cache.raise(0).unwrap();
        let stats = one.cache.stats();
        assert!(
            (raised > 0 || i == 2) && stats.allocated_bytes <= budget && stats.spilled_bytes == 0,
            "{stats:?}"
        );
        let kept = sealed(&one.cache, id);
        assert_eq!(kept == whole, i < 2);
        assert!(kept.iter().all(|(page, (form, bytes))| *form > 1 || whole[page].1 == *bytes));
        assert!(one.cache.is_reduced(id).unwrap(), "what it computed meanwhile stays");
        one.cache.release(id).unwrap();
    }
}

#[test]
fn a_reduced_sequence_is_stored_as_it_is() {
    let policy = policy("k=6,v=5,sinks=128,drop=2");
    let text = tokens(14 * PAGE + 9, 1);
    let mut one = Loop::with(layers(), &policy, smallest(&layers, &policy, &text));
    let id = one.cache.create();
    for tokens in text.chunks(PAGE) {
        one.feed(id, tokens).unwrap();
    }
    let export = one.cache.export(id).unwrap();
    assert!(export.past.reduced && export.parts.iter().any(|part| part.form > 2));
    let past = export.past.clone();
    let before = sealed(&one.cache, id);
    let parts: Vec<ImportPart> = export.parts.into_iter().map(placed).collect();
    let mut other = Loop::with(layers(), &policy, 1 << 27);
    let loaded = other.cache.import(&past, &parts).unwrap();
    assert!(other.cache.is_reduced(loaded).unwrap());
    assert_eq!(sealed(&other.cache, loaded), before);
    let more = tokens(20, 2);
    // Its open page is copied, and does not fit beside the others where it comes from.
    let copy = one.cache.fork(id).unwrap();
    one.cache.release(id).unwrap();
    assert!(other.feed(loaded, &more).unwrap() == one.feed(copy, &more).unwrap());
    assert_eq!(other.cache.raise(0).unwrap(), 0, "its planes are nowhere");

    // Not without saying so, and no page twice.
    let silent = quant_kvcache::Past { reduced: false, ..past.clone() };
    assert!(matches!(other.cache.import(&silent, &parts), Err(Error::Snapshot { .. })));
    let mut twice = parts.clone();
    let from = twice.iter().position(|part| part.form > 2).unwrap();
    let page = twice[from].pages[0];
    let whole = twice.iter_mut().find(|part| part.form == 1).unwrap();
    whole.pages[0] = page;
    whole.pages.sort_unstable();
    assert!(matches!(other.cache.import(&past, &twice), Err(Error::Snapshot { .. })));
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize, usize),
    Fork(usize),
    Rewind(usize, usize),
    Release(usize),
    Shift(usize, usize),
    Raise,
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..4usize;
    prop_oneof![
        8 => (which.clone(), 1..300usize).prop_map(|(s, n)| Step::Append(s, n)),
        2 => which.clone().prop_map(Step::Fork),
        2 => (which.clone(), 1..200usize).prop_map(|(s, n)| Step::Rewind(s, n)),
        1 => which.clone().prop_map(Step::Release),
        1 => (which, 0..3usize).prop_map(|(s, n)| Step::Shift(s, n)),
        2 => Just(Step::Raise),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Sequences that do not say that they are reduced have the bits of a straight run, whatever others lost; budgets
    /// hold, and nothing is left behind.
    #[test]
    fn every_history(pages in 4..14usize, steps in proptest::collection::vec(step(), 1..24)) {
        let policy = policy("k=8,v=7,drop=2");
        let layers = || vec![Layer::from(LayerShape { kv_heads: 1, key_dim: 64, value_dim: 64 })];
        let budget = KvCache::new(layers(), &policy, 0).unwrap().bytes_for(pages * PAGE, PAGE);
        let mut one = Loop::with(layers(), &policy, budget);
        let store = Memory::default();
        one.cache = one.cache.with_spill(Box::new(store.clone()));
        let mut known: Vec<(SequenceId, Vec<u32>, Vec<Vec<u32>>)> = Vec::new();
        for (salt, step) in steps.into_iter().enumerate() {
            if known.is_empty() {
                known.push((one.cache.create(), Vec::new(), Vec::new()));
            }
            let count = known.len();
            match step {
                Step::Append(s, n) => {
                    let (id, all, out) = &mut known[s % count];
                    let more = tokens(n, salt as u32);
                    match one.feed(*id, &more) {
                        Ok(new) => {
                            all.extend(more);
                            out.extend(new);
                        }
                        Err(Error::OutOfMemory { .. }) => {}
                        Err(other) => prop_assert!(false, "{other}"),
                    }
                }
                Step::Fork(s) => {
                    let (id, all, out) = known[s % count].clone();
                    known.push((one.cache.fork(id).unwrap(), all, out));
                }
                Step::Rewind(s, n) => {
                    let (id, all, out) = &mut known[s % count];
                    let reached = one.cache.rewind(*id, all.len().saturating_sub(n)).unwrap();
                    all.truncate(reached);
                    out.truncate(reached);
                }
                Step::Release(s) => {
                    let (id, ..) = known.swap_remove(s % count);
                    one.cache.release(id).unwrap();
                }
                Step::Shift(s, n) => {
                    // Of a sequence of its own, since its outputs are no straight run's.
                    let copy = one.cache.fork(known[s % count].0).unwrap();
                    let _ = one.cache.shift(copy, n..n + 1);
                    let _ = one.feed(copy, &tokens(200, salt as u32));
                    one.cache.release(copy).unwrap();
                }
                Step::Raise => {
                    one.cache.raise(0).unwrap();
                }
            }
            let stats = one.cache.stats();
            prop_assert!(stats.used_bytes <= stats.allocated_bytes && stats.allocated_bytes <= budget);
            prop_assert_eq!(stats.used_bytes, stats.sealed_bytes + stats.written_bytes);
        }
        for (id, all, out) in known {
            prop_assert_eq!(one.cache.len(id).unwrap(), all.len());
            if !one.cache.is_reduced(id).unwrap() {
                prop_assert!(out == straight(layers(), &policy, &all), "other bits than a straight run");
            }
            one.cache.release(id).unwrap();
        }
        one.cache.raise(0).unwrap();
        one.cache.trim();
        let stats = one.cache.stats();
        prop_assert_eq!((stats.used_bytes, stats.allocated_bytes, stats.spilled_bytes), (0, 0, 0));
    }
}
