//! Prefixes that outlive their sequences: found by their tokens, given up under pressure, never another answer.

mod common;

use common::{Loop, layers, straight, tokens};
use quant_kvcache::{PAGE, Policy};

const POLICIES: [&str; 4] = ["f16", "k=5,v=4,sinks=128", "k=4,v=4,window=256", "k=8,v=4,tiers=4@256"];

#[test]
fn the_next_sequence_goes_on_where_the_first_was() {
    for policy in POLICIES {
        let policy: Policy = policy.parse().unwrap();
        let text = tokens(5 * PAGE + 50, 1);
        let mut one = Loop::new(&policy, 1 << 26);
        let first = one.cache.create();
        one.feed(first, &text).unwrap();
        assert_eq!(one.cache.remember(first, &text).unwrap(), 5);
        assert_eq!(one.cache.remember(first, &text).unwrap(), 0, "known already");
        one.cache.release(first).unwrap();
        assert_eq!(one.cache.stats().prefix_pages, 5);

        // The same beginning of three and a half pages, then something else.
        let mut other = text[..3 * PAGE + 64].to_vec();
        other.extend(tokens(300, 2));
        let (second, reached) = one.cache.resume(&other).unwrap();
        assert!(reached <= 3 * PAGE && reached.is_multiple_of(PAGE));
        if policy.window == 0 && policy.tiers.is_empty() {
            // The sliding layer has forgotten the pages before its window; page 3 was the last that could tell.
            assert!(reached == 3 * PAGE || layers().iter().any(|layer| layer.window.is_some()), "{policy}");
        }
        let out = one.feed(second, &other[reached..]).unwrap();
        assert!(out == straight(layers(), &policy, &other)[reached..], "{policy}: other bits");

        one.cache.release(second).unwrap();
        one.cache.forget();
        assert_eq!((one.cache.stats().used_bytes, one.cache.stats().prefix_pages), (0, 0));
    }
}

#[test]
fn a_whole_prefix_is_found_where_nothing_slides() {
    let layers = || vec![layers().remove(0)];
    for policy in ["f16", "k=5,v=4,sinks=128"] {
        let policy: Policy = policy.parse().unwrap();
        let text = tokens(3 * PAGE + 1, 1);
        let mut one = Loop::with(layers(), &policy, 1 << 26);
        let first = one.cache.create();
        one.feed(first, &text[..3 * PAGE]).unwrap();
        // Held as written at first, completed by the sealed form later.
        assert_eq!(one.cache.remember(first, &text).unwrap(), 3);
        let written = one.cache.stats().written_bytes;
        one.feed(first, &text[3 * PAGE..]).unwrap();
        one.feed(first, &tokens(2 * PAGE, 3)).unwrap();
        assert_eq!(one.cache.remember(first, &text[..3 * PAGE]).unwrap(), 0);
        one.cache.release(first).unwrap();
        let after = one.cache.stats();
        assert!(after.written_bytes < written || policy == Policy::F16);

        let (second, reached) = one.cache.resume(&text).unwrap();
        assert_eq!(reached, 3 * PAGE);
        assert_eq!(one.cache.stats().used_bytes, after.used_bytes, "nothing is copied");
        let out = one.feed(second, &text[reached..]).unwrap();
        assert!(out == straight(layers(), &policy, &text)[reached..]);
        assert_eq!(one.cache.resume(&text[1..]).unwrap().1, 0, "the same tokens elsewhere are another past");
    }
}

#[test]
fn prefixes_make_room_and_those_in_use_stay() {
    let layers = || vec![layers().remove(0)];
    let policy: Policy = "k=4,v=4".parse().unwrap();
    let budget = Loop::with(layers(), &policy, 0).cache.bytes_for(8 * PAGE, 2 * PAGE);
    let mut one = Loop::with(layers(), &policy, budget);
    for salt in 0..6 {
        let text = tokens(4 * PAGE, salt);
        let id = one.cache.create();
        for chunk in text.chunks(PAGE) {
            one.feed(id, chunk).unwrap();
        }
        one.cache.remember(id, &text).unwrap();
        one.cache.release(id).unwrap();
        assert!(one.cache.stats().allocated_bytes <= budget);
    }
    let kept = one.cache.stats().prefix_pages;
    assert!((1..24).contains(&kept), "{kept} pages kept");
    let last = tokens(4 * PAGE, 5);
    let (in_use, reached) = one.cache.resume(&last).unwrap();
    assert!(reached > 0, "the last one was used last");
    // A sequence that takes all there is evicts everything but what the other one holds.
    let id = one.cache.create();
    let mut fed = 0;
    while one.feed(id, &tokens(PAGE, 9)).is_ok() {
        fed += 1;
    }
    assert!(fed >= 3, "{fed} pages fitted");
    assert!(one.cache.stats().prefix_pages <= reached / PAGE);
    one.cache.release(id).unwrap();
    let more = tokens(PAGE, 7);
    let out = one.feed(in_use, &more).unwrap();
    let all: Vec<u32> = last[..reached].iter().chain(&more).copied().collect();
    assert!(out == straight(layers(), &policy, &all)[reached..]);
}
