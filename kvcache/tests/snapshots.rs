//! Sequences as bytes and back: the same bits, read where they lie, and refusals without a leak.

mod common;

use common::{Loop, layers, straight, tokens};
use quant_kvcache::{Bytes, ImportPart, KvCache, PAGE, Past, Policy, SequenceId, Turn};
use std::sync::Arc;

/// Memory that `bytes` are copied into, `skip` bytes behind a multiple of 64.
fn placed(bytes: &[u8], skip: usize) -> Bytes {
    let mut memory = vec![0; bytes.len() + 128];
    let at = memory.as_ptr().align_offset(64) + skip;
    let end = at + bytes.len();
    memory[at..end].copy_from_slice(bytes);
    Bytes::new(Arc::new(memory), at..end).unwrap()
}

/// What a file of it would hold, lying as in a mapping.
fn stored(cache: &KvCache, id: SequenceId) -> (Past, Vec<ImportPart>) {
    let export = cache.export(id).unwrap();
    let parts = export.parts.into_iter().map(|part| {
        let bytes: Vec<u8> = part.blocks.iter().flat_map(|block| block.iter().copied()).collect();
        ImportPart { group: part.group, form: part.form, pages: part.pages, bytes: placed(&bytes, 0) }
    });
    (export.past, parts.collect())
}

/// Saves after `len` tokens of a text and loads; `expected` are the outputs of a straight run.
fn round_trip(policy: &Policy, len: usize, text: &[u32], expected: &[Vec<u32>]) {
    let mut one = Loop::new(policy, 1 << 27);
    let id = one.cache.create();
    one.pass_without_queries(id, &text[..len]).unwrap();
    let (past, parts) = stored(&one.cache, id);
    let mut other = Loop::new(policy, 1 << 27);
    let mut descriptions = [String::new(), String::new()];
    one.cache.describe(&mut descriptions[0]).unwrap();
    other.cache.describe(&mut descriptions[1]).unwrap();
    assert_eq!(descriptions[0], descriptions[1]);

    // Two sequences from one snapshot; one of them forks.
    let loaded = [(); 2].map(|()| other.cache.import(&past, &parts).unwrap());
    drop(parts);
    let fork = other.cache.fork(loaded[0]).unwrap();
    for (id, more) in [(loaded[0], 300), (fork, 140), (loaded[1], 140)] {
        let found = other.feed(id, &text[len..len + more]).unwrap();
        assert!(found == expected[len..len + more], "{policy}: other bits after {len}");
        other.cache.release(id).unwrap();
    }
    let stats = other.cache.stats();
    assert_eq!((stats.used_bytes, stats.mapped_bytes, stats.f16_bytes), (0, 0, 0));
}

#[test]
fn loading_goes_on_with_the_bits_of_a_straight_run() {
    for policy in [
        "f16",
        "f32",
        "auto",
        "k=4,v=4,window=256",
        "k=8,v=8,sinks=128,tiers=4@256/2@512",
        "k=q8_0,v=turbo-mse-3",
    ] {
        let policy: Policy = policy.parse().unwrap();
        let text = tokens(6 * PAGE + 301, 4);
        let expected = straight(layers(), &policy, &text);
        for len in [1, 127, 128, 129, 500, 5 * PAGE, 6 * PAGE + 1] {
            round_trip(&policy, len, &text, &expected);
        }
    }
}

/// Bytes need not lie as our own do: a file may say so of its data, and memory may begin anywhere.
#[test]
fn bytes_that_lie_askew_are_copied() {
    let policy: Policy = "k=4,v=f16".parse().unwrap();
    let text = tokens(3 * PAGE + 7, 4);
    let mut one = Loop::new(&policy, 1 << 27);
    let id = one.cache.create();
    one.feed(id, &text).unwrap();
    let (past, parts) = stored(&one.cache, id);
    for skip in [1, 2, 32] {
        let askew =
            parts.iter().map(|part| ImportPart { bytes: placed(part.bytes.as_ref(), skip), ..part.clone() });
        let loaded = one.cache.import(&past, &askew.collect::<Vec<_>>()).unwrap();
        assert_eq!(one.cache.stats().mapped_bytes, 0);
        let copy = one.cache.fork(id).unwrap();
        let more = tokens(200, 5);
        assert!(one.feed(loaded, &more).unwrap() == one.feed(copy, &more).unwrap(), "{skip} bytes off");
        one.cache.release(loaded).unwrap();
        one.cache.release(copy).unwrap();
    }
}

#[test]
fn offsets_are_stored_or_refused() {
    let policy: Policy = "k=5,v=4".parse().unwrap();
    let mut one = Loop::with(vec![layers().remove(0)], &policy, 1 << 27);
    let id = one.cache.create();
    one.feed(id, &tokens(6 * PAGE + 9, 4)).unwrap();
    one.cache.shift(id, 1..3).unwrap();
    let (past, parts) = stored(&one.cache, id);
    assert_eq!(past.turns, one.cache.turns(id).unwrap());
    let loaded = one.cache.import(&past, &parts).unwrap();
    assert_eq!(past.turns, one.cache.turns(loaded).unwrap());
    let more = tokens(200, 5);
    assert!(one.feed(loaded, &more).unwrap() == one.feed(id, &more).unwrap());
    let turn = |first_page, offset| Turn { first_page, offset };
    for turns in [
        vec![turn(1, 256)],
        vec![turn(0, 0), turn(3, 128), turn(2, 256)],
        vec![turn(0, 0), turn(1, -129)],
        vec![turn(0, isize::MAX)],
        vec![turn(0, isize::MIN)],
        vec![turn(0, 0), turn(usize::MAX, 1)],
        vec![turn(0, 0), turn(6, 1)],
        vec![turn(0, 1 << 40)],
    ] {
        let error = one.cache.import(&Past { turns: turns.clone(), ..past.clone() }, &parts).unwrap_err();
        assert!(error.to_string().contains("offsets"), "{turns:?}");
    }
}

#[test]
fn sealed_pages_stay_where_they_lie() {
    let policy: Policy = "k=5,v=4".parse().unwrap();
    let mut one = Loop::with(vec![layers().remove(0)], &policy, 1 << 27);
    let id = one.cache.create();
    one.feed(id, &tokens(10 * PAGE + 3, 4)).unwrap();
    let sealed = one.cache.stats().sealed_bytes;
    let (past, parts) = stored(&one.cache, id);
    one.cache.release(id).unwrap();
    let loaded = one.cache.import(&past, &parts).unwrap();
    let stats = one.cache.stats();
    assert_eq!((stats.sealed_bytes, stats.mapped_bytes), (0, sealed));
    one.cache.release(loaded).unwrap();
}

#[test]
fn nothing_of_others_is_stored() {
    let mut one = Loop::new(&Policy::F16, 1 << 27);
    let id = one.cache.create();
    one.feed(id, &tokens(PAGE, 1)).unwrap();
    one.cache.release(id).unwrap();
    let id = one.cache.create();
    one.feed(id, &tokens(3, 2)).unwrap();
    one.pass(&[(id, &tokens(50, 3))]).unwrap();
    let reused = stored(&one.cache, id).1;
    let mut fresh = Loop::new(&Policy::F16, 1 << 27);
    let id = fresh.cache.create();
    fresh.feed(id, &tokens(3, 2)).unwrap();
    for (a, b) in reused.iter().zip(&stored(&fresh.cache, id).1) {
        assert_eq!(format!("{:?}", a.bytes), format!("{:?}", b.bytes));
        assert!(a.bytes.as_ref() == b.bytes.as_ref());
    }
}
