//! Latents of multi-head latent attention: one row for keys and values, with the bits of a specified run.

mod common;

use common::{Loop, specified, tokens};
use quant_kvcache::{Error, KvCache, Layer, Policy};

fn layers() -> Vec<Layer> {
    vec![Layer::latent(96, 64); 2]
}

fn values(bits: &[Vec<u32>]) -> Vec<f32> {
    bits.iter().flatten().map(|&x| f32::from_bits(x)).collect()
}

#[test]
fn rows_serve_as_keys_and_values() {
    let text = tokens(300, 1);
    let exact = values(&specified(layers(), &Policy::F32, &text));
    for (policy, most) in
        [("f16", 1e-3), ("k=8,v=8", 0.02), ("k=q8_0,v=q8_0", 0.02), ("k=5,v=4", 0.2), ("k=4,v=f16", 0.2)]
    {
        let policy: Policy = policy.parse().unwrap();
        let expected = specified(layers(), &policy, &text);
        let got = values(&expected);
        let error: f32 = got.iter().zip(&exact).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
        let size: f32 = exact.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!(error <= most * size, "{policy}: {}", error / size);
        let mut one = Loop::with(layers(), &policy, 1 << 26);
        let id = one.cache.create();
        let mut found = Vec::new();
        for tokens in text.chunks(77) {
            found.extend(one.feed(id, tokens).unwrap());
        }
        assert!(found == expected, "{policy}: other bits in chunks");
    }
}

#[test]
fn latent_rows_lose_no_planes() {
    let policy: Policy = "k=8,v=8,drop=2".parse().unwrap();
    let error = KvCache::new(layers(), &policy, 1 << 26).unwrap_err();
    assert!(matches!(error, Error::PolicyParts { .. }) && error.to_string().contains("latent"), "{error}");
    // Beside layers that have some they stay as they are.
    let mixed = [layers(), common::layers()].concat();
    assert!(KvCache::new(mixed, &policy, 1 << 26).is_ok());
}

#[test]
fn one_codec_stores_a_row_once() {
    let bytes = |policy: &str| {
        let mut one = Loop::with(layers(), &policy.parse().unwrap(), 1 << 26);
        let id = one.cache.create();
        one.feed(id, &tokens(129, 1)).unwrap();
        assert_eq!(one.cache.stats().f16_bytes, 129 * 2 * 160 * 2);
        one.cache.stats().sealed_bytes
    };
    // 96 values at 8.5 bits, and 64 rotary ones in planes of 8 bits.
    let rotary = 64 + 256 + 256 + 16 * 64 * 8;
    assert_eq!(bytes("k=q8_0,v=q8_0"), 2 * (128 * 102 + rotary));
    assert!(bytes("k=8,v=8") > bytes("k=q8_0,v=q8_0"), "planes of keys are not those of values");
}
