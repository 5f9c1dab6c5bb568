//! One basin: what a query sees depends on positions alone, with every codec: not on chunks, threads, the SIMD tier,
//! forks, drafts taken back, or pages that another sequence left.

mod common;

use common::{Loop, specified, straight, tokens};
use proptest::prelude::*;
use quant_kernels::Isa;
use quant_kernels::codecs::registry;
use quant_kernels::parallel::Team;
use quant_kvcache::{CodecRef, Error, Form, PAGE, PageHold, Policy, SequenceId, Tier};
use std::sync::Arc;

/// A run in chunks, with a fork, a draft taken back over a page boundary, and a sequence from held pages.
fn winding(policy: &Policy, text: &[u32], isa: Isa, threads: usize, chunk: usize) -> Vec<Vec<u32>> {
    let mut one = Loop::new(policy, 1 << 30);
    one.isa = isa;
    one.parallel = Arc::new(Team::new(threads).unwrap());
    let mut out = Vec::new();
    let first = one.cache.create();
    for tokens in text[..260].chunks(chunk) {
        out.extend(one.feed(first, tokens).unwrap());
    }
    let second = one.cache.fork(first).unwrap();
    one.feed(first, &tokens(140, 5)).unwrap();
    // The parent's way does not concern the fork, nor do drafts.
    one.feed(second, &tokens(60, 7)).unwrap();
    one.feed(second, &tokens(66, 8)).unwrap();
    assert_eq!(one.cache.rewind(second, 260).unwrap(), 260);
    one.cache.release(first).unwrap();
    for tokens in text[260..].chunks(chunk) {
        out.extend(one.feed(second, tokens).unwrap());
    }
    one.cache.release(second).unwrap();
    assert_eq!(one.cache.stats().used_bytes, 0);
    out
}

#[test]
fn every_codec() {
    let text = tokens(330, 1);
    for entry in registry() {
        let policy: Policy = format!("k={0},v={0},sinks=128", entry.name).parse().unwrap();
        // The cache's own ways know no tier, so one that winds and one that does not show both.
        let expected = specified(common::layers(), &policy, &text);
        for (threads, chunk) in [(2, 97), (1, 300)] {
            let found = winding(&policy, &text, Isa::detect(), threads, chunk);
            assert!(found == expected, "{policy}: other bits with {threads} threads, chunks of {chunk}");
        }
    }
}

#[test]
fn every_codec_on_the_scalar_tier() {
    // As short as a run can be that forks, takes a draft back over a page boundary and sees a sealed page again.
    let text = tokens(262, 2);
    for entry in registry() {
        let policy: Policy = format!("k={0},v={0}", entry.name).parse().unwrap();
        let expected = specified(common::layers(), &policy, &text);
        assert!(winding(&policy, &text, Isa::Scalar, 2, 260) == expected, "{policy}: other bits");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Create,
    Fork(usize),
    Append(usize, usize),
    /// Two sequences in one pass.
    Together(usize, usize, usize),
    /// A pass that fails before its commit.
    Fail(usize, usize),
    Rewind(usize, usize),
    Release(usize),
    /// Pages are kept, and a sequence is made of them.
    Hold(usize),
    Attach(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..8usize;
    prop_oneof![
        1 => Just(Step::Create),
        3 => which.clone().prop_map(Step::Fork),
        6 => (which.clone(), 1..300usize).prop_map(|(s, n)| Step::Append(s, n)),
        2 => (which.clone(), which.clone(), 1..200usize).prop_map(|(a, b, n)| Step::Together(a, b, n)),
        2 => (which.clone(), 1..200usize).prop_map(|(s, n)| Step::Fail(s, n)),
        3 => (which.clone(), 1..300usize).prop_map(|(s, n)| Step::Rewind(s, n)),
        1 => which.clone().prop_map(Step::Release),
        2 => which.clone().prop_map(Step::Hold),
        2 => (which.clone(), 0..6usize).prop_map(|(s, n)| Step::Attach(s, n)),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let codec = || (0..registry().len()).prop_map(|i| CodecRef::find(registry()[i].name).unwrap());
    let form = move || prop_oneof![1 => Just(Form::F16), 4 => codec().prop_map(Form::Coded)];
    let tiers = proptest::collection::vec((1..3usize, codec()), 0..3);
    (form(), codec(), 0..3usize, 0..3usize, 0..3usize, any::<bool>(), tiers).prop_map(
        |(key, value, window, sinks, boundary, sliding_f16, steps)| {
            let mut age = window * PAGE;
            let tiers = steps.into_iter().map(|(pages, codec)| {
                age += pages * PAGE;
                Tier { age, codec }
            });
            let tiers = tiers.collect();
            let (window, sinks) = (window * PAGE, sinks * PAGE);
            Policy { key, value: Form::Coded(value), window, sinks, boundary, sliding_f16, tiers, drop: None }
        },
    )
}

/// A sequence, its tokens, the outputs at each of them, and how many positions are those of attached pages.
type Known = (SequenceId, Vec<u32>, Vec<Vec<u32>>, usize);
/// Held pages of such a sequence.
type Kept = (Vec<PageHold>, Vec<u32>, Vec<Vec<u32>>);

fn history(policy: &Policy, budget: usize, steps: Vec<Step>) {
    const LONGEST: usize = 900;
    let mut one = Loop::new(policy, budget);
    one.parallel = Arc::new(Team::new(2).unwrap());
    let mut known: Vec<Known> = vec![(one.cache.create(), Vec::new(), Vec::new(), 0)];
    let mut holds: Vec<Kept> = Vec::new();
    for (salt, step) in steps.into_iter().enumerate() {
        if known.is_empty() {
            known.push((one.cache.create(), Vec::new(), Vec::new(), 0));
        }
        let count = known.len();
        let more = |n: usize, len: usize| tokens(n.min(LONGEST - len), salt as u32);
        match step {
            Step::Create => known.push((one.cache.create(), Vec::new(), Vec::new(), 0)),
            Step::Fork(s) => {
                let (id, tokens, out, attached) = known[s % count].clone();
                known.push((one.cache.fork(id).unwrap(), tokens, out, attached));
            }
            Step::Append(s, n) => {
                let (id, tokens, out, _) = &mut known[s % count];
                let new = more(n, tokens.len());
                match one.feed(*id, &new) {
                    Ok(more) => {
                        tokens.extend(new);
                        out.extend(more);
                    }
                    Err(Error::OutOfMemory { needed, available, .. }) => assert!(needed > available),
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Together(a, b, n) => {
                let (a, b) = (a % count, b % count);
                if a == b {
                    continue;
                }
                let new = [more(n, known[a].1.len()), more(n / 2, known[b].1.len())];
                match one.pass(&[(known[a].0, &new[0]), (known[b].0, &new[1])]) {
                    Ok(outs) => {
                        for ((s, new), more) in [a, b].into_iter().zip(new).zip(outs) {
                            one.cache.commit(known[s].0, new.len()).unwrap();
                            known[s].1.extend(new);
                            known[s].2.extend(more);
                        }
                    }
                    Err(_) => {
                        for s in [a, b] {
                            let len = known[s].1.len();
                            assert_eq!(one.cache.rewind(known[s].0, len).unwrap(), len);
                        }
                    }
                }
            }
            Step::Fail(s, n) => {
                let (id, tokens, ..) = &known[s % count];
                let _ = one.pass(&[(*id, &more(n, tokens.len()))]);
                assert_eq!(one.cache.rewind(*id, tokens.len()).unwrap(), tokens.len());
            }
            Step::Rewind(s, n) => {
                let (id, tokens, out, attached) = &mut known[s % count];
                let len = tokens.len().saturating_sub(n);
                let reached = one.cache.rewind(*id, len).unwrap();
                assert!(reached <= len);
                // Pages are held without what they were sealed from.
                if n <= PAGE && len >= *attached {
                    assert_eq!(reached, len, "drafts of a page can be taken back");
                }
                if policy.window == 0 && policy.tiers.is_empty() && len < 200 {
                    assert!(reached > 0 || len < PAGE, "a page boundary can be reached again");
                }
                tokens.truncate(reached);
                out.truncate(reached);
                *attached = reached.min(*attached);
            }
            Step::Release(s) => {
                let (id, ..) = known.swap_remove(s % count);
                one.cache.release(id).unwrap();
            }
            Step::Hold(s) => {
                let (id, tokens, out, _) = &known[s % count];
                let pages = (0..tokens.len() / PAGE).map(|page| one.cache.hold(*id, page).unwrap()).collect();
                holds.push((pages, tokens.clone(), out.clone()));
            }
            Step::Attach(s, n) => {
                let which = s % holds.len().max(1);
                let Some((pages, tokens, out)) = holds.get(which) else { continue };
                let n = n.min(pages.len());
                let (id, reached) = one.cache.attach(&pages[..n]).unwrap();
                assert!(reached <= n * PAGE);
                known.push((id, tokens[..reached].to_vec(), out[..reached].to_vec(), reached));
            }
        }
        let stats = one.cache.stats();
        assert!(stats.used_bytes <= stats.allocated_bytes && stats.allocated_bytes <= stats.budget_bytes);
        assert_eq!(stats.used_bytes, stats.sealed_bytes + stats.written_bytes);
    }
    // Forks have much in common: a run serves all texts that it begins with.
    known.sort_by_key(|(_, tokens, ..)| std::cmp::Reverse(tokens.len()));
    let mut runs: Vec<(Vec<u32>, Vec<Vec<u32>>)> = Vec::new();
    for (id, tokens, out, _) in known {
        assert_eq!(one.cache.len(id).unwrap(), tokens.len());
        if !runs.iter().any(|(longer, _)| longer.starts_with(&tokens)) {
            runs.push((tokens.clone(), straight(common::layers(), policy, &tokens)));
        }
        let run = runs.iter().find(|(longer, _)| longer.starts_with(&tokens)).unwrap();
        assert!(out == run.1[..out.len()], "{policy}: other bits than a straight run");
        assert_eq!(out.len(), tokens.len());
        one.cache.release(id).unwrap();
    }
    for (pages, ..) in holds {
        for page in pages {
            one.cache.drop_hold(page);
        }
    }
    one.cache.trim();
    let stats = one.cache.stats();
    assert_eq!((stats.used_bytes, stats.allocated_bytes, stats.f16_bytes), (0, 0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_history(policy in policy(), steps in proptest::collection::vec(step(), 1..24)) {
        history(&policy, 1 << 26, steps);
    }

    #[test]
    fn every_history_in_little_memory(
        policy in policy(),
        budget in 0..3000usize,
        steps in proptest::collection::vec(step(), 1..24),
    ) {
        history(&policy, budget << 10, steps);
    }
}
