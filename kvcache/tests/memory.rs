//! What caches take: plans hold, budgets are kept, nothing is lost.

mod common;

use common::{Loop, tokens};
use quant_kvcache::{Error, KvCache, Layer, LayerShape, PAGE, Policy};

/// 16 layers of 8 KV heads of 64: Llama-3.2-1B.
fn small_llama() -> Vec<Layer> {
    vec![LayerShape { kv_heads: 8, key_dim: 64, value_dim: 64 }.into(); 16]
}

#[test]
fn a_long_context_takes_four_tenths_of_f16_under_auto() {
    let f16 = 32768 * 16 * 8 * 128 * 2;
    let share = |policy: &str| {
        let policy: Policy = policy.parse().unwrap();
        KvCache::new(small_llama(), policy, 0).unwrap().bytes_for(32768, 512) as f64 / f16 as f64
    };
    assert!((1.0..1.01).contains(&share("f16")), "{}", share("f16"));
    assert!(share("auto") <= 0.4, "{}", share("auto"));
    let shares = ["8", "near", "auto", "4", "3.4", "2.4"].map(share);
    assert!(shares.is_sorted_by(|a, b| a > b), "{shares:?}");
}

#[test]
fn layers_at_the_ends_get_more_bits_if_there_are_enough_others() {
    let bytes = |layers: usize, policy: &str| {
        let shape = LayerShape { kv_heads: 2, key_dim: 64, value_dim: 64 };
        KvCache::new(vec![shape; layers], policy.parse::<Policy>().unwrap(), 0).unwrap().page_bytes()
    };
    let (few, many) = (bytes(1, "k=4,v=4"), bytes(1, "k=6,v=6"));
    for (layers, raised) in [(1, 0), (5, 0), (6, 2), (11, 2), (12, 4), (40, 4)] {
        let expected = (layers - raised) * few + raised * many;
        assert_eq!(bytes(layers, "k=4,v=4,boundary=2"), expected, "{layers} layers");
    }
}

#[test]
fn what_was_planned_is_enough_and_is_kept() {
    for policy in ["f32", "f16", "8", "auto", "2.4", "k=4,v=q8_0,window=256", "tiers=8@0/4@256/2@512"] {
        let policy: Policy = policy.parse().unwrap();
        for (positions, chunk) in [(128, 128), (1000, 1), (1000, 300), (1024, 512)] {
            let budget = KvCache::new(common::layers(), &policy, 0).unwrap().bytes_for(positions, chunk);
            let mut one = Loop::new(&policy, budget);
            assert!(one.cache.positions_in(budget, chunk) >= positions);
            let id = one.cache.create();
            // Written and sealed, not attended.
            for tokens in tokens(positions, 3).chunks(chunk) {
                one.pass_without_queries(id, tokens).unwrap();
            }
            let stats = one.cache.stats();
            assert!(stats.peak_bytes <= stats.allocated_bytes && stats.allocated_bytes <= budget, "{policy}");
        }
    }
}

#[test]
fn a_fork_takes_nothing_until_it_differs() {
    let mut one = Loop::new(&"auto".parse().unwrap(), 1 << 30);
    let id = one.cache.create();
    one.pass_without_queries(id, &tokens(1000, 1)).unwrap();
    let before = one.cache.stats();
    let forks: Vec<_> = (0..100).map(|_| one.cache.fork(id).unwrap()).collect();
    let after = one.cache.stats();
    assert_eq!((after.used_bytes, after.f16_bytes), (before.used_bytes, before.f16_bytes));
    one.cache.reserve(forks[0], 1).unwrap();
    let open = PAGE * 2 * (2 * 2 * 128 + 160);
    assert_eq!(one.cache.stats().used_bytes - before.used_bytes, open, "its open page");
    for id in forks {
        one.cache.release(id).unwrap();
    }
    assert_eq!(one.cache.stats().used_bytes, before.used_bytes);
}

#[test]
fn sequences_that_share_a_page_seal_it_once() {
    let mut one = Loop::new(&"k=4,v=4".parse().unwrap(), 1 << 30);
    let id = one.cache.create();
    one.pass_without_queries(id, &tokens(PAGE, 1)).unwrap();
    assert_eq!(one.cache.stats().sealed_bytes, 0, "no query has asked for it yet");
    let forks: Vec<_> = (0..3).map(|_| one.cache.fork(id).unwrap()).collect();
    for fork in &forks {
        one.pass_without_queries(*fork, &[5]).unwrap();
    }
    let page = 128 * 4 + 4 * 128 * 64 / 8 * 4;
    let sealed = one.cache.stats().sealed_bytes;
    assert!(sealed > 0 && sealed < 20 * page, "{sealed}");
    one.pass_without_queries(id, &[6]).unwrap();
    assert_eq!(one.cache.stats().sealed_bytes, sealed);
}

#[test]
fn hostile_numbers_are_refused() {
    let policy = Policy::default();
    let mut cache = KvCache::new(small_llama(), &policy, 100 << 20).unwrap();
    let id = cache.create();
    for count in [usize::MAX, usize::MAX / 2, 1 << 40, 1 << 20] {
        assert!(matches!(cache.reserve(id, count), Err(Error::OutOfMemory { .. })), "{count}");
    }
    cache.reserve(id, 1).unwrap();
    assert!(matches!(cache.reserve(id, usize::MAX), Err(Error::OutOfMemory { .. })));
    assert_eq!(cache.bytes_for(usize::MAX, usize::MAX), usize::MAX);
    assert_eq!(cache.positions_in(0, 512), 0);
    assert!(cache.positions_in(usize::MAX, 512) > 1 << 40);
    let wrong = Policy { window: 100, ..Policy::F16 };
    assert!(matches!(KvCache::new(small_llama(), wrong, 0), Err(Error::PolicyParts { .. })));
    let odd = LayerShape { kv_heads: 1, key_dim: 40, value_dim: 40 };
    let error = KvCache::new(vec![odd], "4".parse::<Policy>().unwrap(), 0).unwrap_err();
    assert!(error.to_string().contains("layer 0: keys can't be kept in the codec planes-4"), "{error}");
}

#[test]
fn a_page_that_no_codec_holds_names_its_place() {
    let policy: Policy = "k=4,v=4".parse().unwrap();
    let mut cache = KvCache::new(small_llama(), &policy, 1 << 30).unwrap();
    let id = cache.create();
    cache.reserve(id, PAGE + 1).unwrap();
    let mut keys = vec![0.5; (PAGE + 1) * 512];
    keys[77 * 512 + 100] = f32::NAN;
    let isa = quant_kernels::Isa::detect();
    cache.write(isa, id, 0, 0, &keys, &[0.25; (PAGE + 1) * 512]).unwrap();
    let error = cache.seal(isa, &quant_kernels::Serial, 0, [id]).unwrap_err();
    assert!(error.to_string().contains("layer 0, position 77: a key is not finite"), "{error}");
    let mut lists = (Vec::new(), Vec::new());
    let error = cache.pages(id, 0, 0, 1, &mut lists.0, &mut lists.1).unwrap_err();
    assert_eq!(error, Error::NotSealed { layer: 0, page: 0 });
}

#[test]
fn shared_layers_take_nothing() {
    let policy: Policy = "k=4,v=4".parse().unwrap();
    let own = common::layers();
    let bytes = |layers: &[Layer]| KvCache::new(layers.to_vec(), &policy, 0).unwrap().bytes_for(4096, 512);
    let mut layers = own.clone();
    layers.push(Layer { source: Some(1), ..own[1].clone() });
    layers.push(Layer { source: Some(2), ..own[2].clone() });
    assert_eq!(bytes(&layers), bytes(&own));
    let mut one = Loop::with(layers.clone(), &policy, 1 << 30);
    let id = one.cache.create();
    one.feed(id, &tokens(300, 1)).unwrap();
    let pages = |layer| {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        one.cache.pages(id, layer, 0, 2, &mut keys, &mut values).unwrap();
        format!("{keys:?}{values:?}")
    };
    assert_eq!([pages(3), pages(4)], [pages(1), pages(2)]);
    let write = one.cache.write(one.isa, id, 3, 300, &[0.0; 64], &[0.0; 96]);
    assert_eq!(write, Err(Error::SharedLayer { layer: 3 }));
    for (layer, of) in [(0, 0), (1, 0), (4, 3), (3, 9)] {
        let mut wrong = layers.clone();
        wrong[layer].source = Some(of);
        let error = KvCache::new(wrong, &policy, 0).unwrap_err();
        assert_eq!(error, Error::Source { layer, of });
    }
}
