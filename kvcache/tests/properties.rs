//! Random histories of appends, forks, rewinds and releases against a plain model of what each sequence remembers.

use proptest::prelude::*;
use quant_kernels::Isa;
use quant_kvcache::{Error, Half, KvCache, LayerShape, PAGE, Policy, SequenceId};

const LAYERS: [LayerShape; 2] = [
    LayerShape { kv_heads: 2, key_dim: 3, value_dim: 2 },
    LayerShape { kv_heads: 1, key_dim: 4, value_dim: 5 },
];

#[derive(Debug, Clone)]
enum Step {
    Create,
    Fork(usize),
    Append(usize, usize),
    /// Written, then taken back before the commit.
    Draft(usize, usize),
    Rewind(usize, usize),
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..8usize;
    prop_oneof![
        1 => Just(Step::Create),
        3 => which.clone().prop_map(Step::Fork),
        5 => (which.clone(), 1..200usize).prop_map(|(s, n)| Step::Append(s, n)),
        1 => (which.clone(), 1..200usize).prop_map(|(s, n)| Step::Draft(s, n)),
        3 => (which.clone(), 0..400usize).prop_map(|(s, n)| Step::Rewind(s, n)),
        2 => which.prop_map(Step::Release),
    ]
}

/// Element `i` of a row, told apart by what was written when.
fn value(stamp: u32, layer: usize, i: usize) -> f32 {
    (stamp % 1024) as f32 + 0.25 * layer as f32 + i as f32 * 0.015_625
}

fn write(cache: &mut KvCache, id: SequenceId, position: usize, stamp: u32) -> Result<(), Error> {
    for (layer, shape) in LAYERS.iter().enumerate() {
        let k: Vec<f32> = (0..shape.kv_heads * shape.key_dim).map(|i| value(stamp, layer, i)).collect();
        let v: Vec<f32> = (0..shape.kv_heads * shape.value_dim).map(|i| -value(stamp, layer, i)).collect();
        cache.write(Isa::detect(), id, layer, position, &k, &v)?;
    }
    Ok(())
}

/// Rounds as the cache does.
fn stored(cache: &KvCache, x: f32) -> f32 {
    if *cache.policy() == Policy::F16 { half::f16::from_f32(x).to_f32() } else { x }
}

fn assert_remembers(cache: &KvCache, id: SequenceId, stamps: &[u32]) {
    assert_eq!(cache.len(id).unwrap(), stamps.len());
    for (layer, shape) in LAYERS.iter().enumerate() {
        for head in 0..shape.kv_heads {
            let (mut k, mut v) = (Vec::new(), Vec::new());
            if let Some(last) = stamps.len().checked_sub(1) {
                cache.pages(id, layer, head, last / PAGE, &mut k, &mut v).unwrap();
            }
            for (position, &stamp) in stamps.iter().enumerate() {
                let (page, row) = (position / PAGE, position % PAGE);
                for i in 0..shape.key_dim {
                    let expected = stored(cache, value(stamp, layer, head * shape.key_dim + i));
                    assert_eq!(k[page].get(row * shape.key_dim + i), Some(expected), "key at {position}");
                }
                for i in 0..shape.value_dim {
                    let expected = stored(cache, -value(stamp, layer, head * shape.value_dim + i));
                    assert_eq!(v[page].get(row * shape.value_dim + i), Some(expected), "value at {position}");
                }
            }
        }
    }
}

fn history(ty: Policy, budget_pages: usize, steps: Vec<Step>) {
    let one = KvCache::new(LAYERS.to_vec(), &ty, 0).unwrap().page_bytes();
    let budget = budget_pages * one;
    let mut cache = KvCache::new(LAYERS.to_vec(), &ty, budget).unwrap();
    let mut model: Vec<(SequenceId, Vec<u32>)> = Vec::new();
    let mut stamp = 0;
    for step in steps {
        let pick = |s: usize| if model.is_empty() { None } else { Some(s % model.len()) };
        match step {
            Step::Create => model.push((cache.create(), Vec::new())),
            Step::Fork(s) => {
                if let Some(s) = pick(s) {
                    let (id, stamps) = model[s].clone();
                    model.push((cache.fork(id).unwrap(), stamps));
                }
            }
            Step::Append(s, n) | Step::Draft(s, n) => {
                let Some(s) = pick(s) else { continue };
                let (id, stamps) = &mut model[s];
                let before = cache.stats();
                match cache.reserve(*id, n) {
                    Ok(()) => {
                        for i in 0..n {
                            stamp += 1;
                            write(&mut cache, *id, stamps.len() + i, stamp).unwrap();
                        }
                        if matches!(step, Step::Append(..)) {
                            stamps.extend(stamp + 1 - n as u32..=stamp);
                            cache.commit(*id, n).unwrap();
                        } else {
                            assert_eq!(cache.rewind(*id, usize::MAX).unwrap(), stamps.len());
                        }
                    }
                    Err(Error::OutOfMemory { needed, available, .. }) => {
                        assert!(needed > available);
                        assert_eq!(cache.stats(), before, "a refused reserve changes nothing");
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Rewind(s, len) => {
                if let Some(s) = pick(s) {
                    let (id, stamps) = &mut model[s];
                    stamps.truncate(len);
                    assert_eq!(cache.rewind(*id, len).unwrap(), stamps.len());
                }
            }
            Step::Release(s) => {
                if let Some(s) = pick(s) {
                    let (id, _) = model.swap_remove(s);
                    cache.release(id).unwrap();
                    assert!(matches!(cache.len(id), Err(Error::UnknownSequence { .. })));
                    assert!(cache.release(id).is_err());
                }
            }
        }
        let stats = cache.stats();
        assert!(stats.used_bytes <= stats.allocated_bytes && stats.allocated_bytes <= budget);
        assert_eq!(stats.sequences, model.len());
    }
    for (id, stamps) in &model {
        assert_remembers(&cache, *id, stamps);
    }
    for (id, _) in model {
        cache.release(id).unwrap();
    }
    assert_eq!(cache.stats().used_bytes, 0, "every reference was given back");
    assert_eq!(cache.stats().sequences, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sequences_remember_what_they_were_told(steps in prop::collection::vec(step(), 1..60), f32s: bool) {
        history(if f32s { Policy::F32 } else { Policy::F16 }, 1 << 10, steps);
    }

    #[test]
    fn a_small_budget_holds(steps in prop::collection::vec(step(), 1..60), pages in 0..6usize) {
        history(Policy::F16, pages, steps);
    }
}

#[test]
fn fork_shares_until_the_first_append() {
    let mut cache = KvCache::new(LAYERS.to_vec(), Policy::F16, 1 << 20).unwrap();
    let page = cache.page_bytes();
    let parent = cache.create();
    cache.reserve(parent, 130).unwrap();
    for position in 0..130 {
        write(&mut cache, parent, position, position as u32).unwrap();
    }
    cache.commit(parent, 130).unwrap();
    let child = cache.fork(parent).unwrap();
    assert_eq!(cache.stats().used_bytes, 2 * page);
    // The tail is shared now: neither may write before it has its own.
    assert!(matches!(write(&mut cache, parent, 130, 7), Err(Error::NotReserved { .. })));
    cache.reserve(child, 1).unwrap();
    assert_eq!(cache.stats().used_bytes, 3 * page, "the full page stays shared, the tail is copied");
    write(&mut cache, child, 130, 900).unwrap();
    cache.commit(child, 1).unwrap();
    cache.reserve(parent, 1).unwrap();
    assert_eq!(cache.stats().used_bytes, 3 * page, "the last holder of a page need not copy it");
}

#[test]
fn f16_overflow_names_the_layer() {
    let mut cache = KvCache::new(LAYERS.to_vec(), Policy::F16, 1 << 20).unwrap();
    let id = cache.create();
    cache.reserve(id, 1).unwrap();
    cache.write(Isa::detect(), id, 0, 0, &[65504.0; 6], &[0.0; 4]).unwrap();
    let error = cache.write(Isa::detect(), id, 1, 0, &[0.0; 4], &[0.0, 70000.0, 0.0, 0.0, 0.0]).unwrap_err();
    assert_eq!(error, Error::Overflow { layer: 1, position: 0, half: Half::Value, value: 70000.0 });
    assert!(error.to_string().contains("layer 1"), "{error}");
}

#[test]
fn misuse_is_an_error() {
    let mut cache = KvCache::new(LAYERS.to_vec(), Policy::F32, 1 << 20).unwrap();
    let id = cache.create();
    assert!(matches!(
        cache.write(Isa::detect(), id, 0, 0, &[0.0; 6], &[0.0; 4]),
        Err(Error::NotReserved { .. })
    ));
    assert!(matches!(cache.commit(id, 1), Err(Error::CommitPastReserved { .. })));
    cache.reserve(id, 1).unwrap();
    assert!(matches!(
        cache.write(Isa::detect(), id, 0, 0, &[0.0; 5], &[0.0; 4]),
        Err(Error::RowLength { got: 5, .. })
    ));
    assert!(matches!(
        cache.write(Isa::detect(), id, 2, 0, &[], &[]),
        Err(Error::NoSuchHead { layer: 2, .. })
    ));
    assert!(matches!(
        cache.write(Isa::detect(), id, 0, PAGE, &[0.0; 6], &[0.0; 4]),
        Err(Error::NotReserved { .. })
    ));
    let (mut k, mut v) = (Vec::new(), Vec::new());
    assert!(cache.pages(id, 0, 2, 0, &mut k, &mut v).is_err());
    assert!(cache.pages(id, 0, 0, 1, &mut k, &mut v).is_err());
    assert!(matches!(cache.reserve(id, usize::MAX), Err(Error::OutOfMemory { .. })));
    let huge = LayerShape { kv_heads: usize::MAX, key_dim: 2, value_dim: 2 };
    assert!(matches!(KvCache::new(vec![huge], Policy::F16, 0), Err(Error::LayoutTooLarge { layers: 1 })));
}
