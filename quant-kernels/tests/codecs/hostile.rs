//! Input that no model should give: typed errors or sensible pages, never a panic.

use crate::common::{Random, decode_keys, scores, weighted};
use proptest::prelude::*;
use quant_kernels::codecs::{CodecParams, CodecScratch, PAGE, registry};
use quant_kernels::{Error, Isa};

const DIMS: [usize; 8] = [64, 80, 96, 112, 128, 192, 256, 512];

/// Any bit pattern, with the interesting ones often.
fn any_float() -> impl Strategy<Value = f32> {
    prop_oneof![
        6 => -3f32..3.0,
        1 => any::<u32>().prop_map(f32::from_bits),
        1 => prop::sample::select(vec![0.0, -0.0, 1e-45, -1e-39, 1e-30, 1e30, f32::MAX, f32::MIN, 65504.0, 1e5]),
    ]
}

/// A page that repeats a few hostile values in a pattern.
fn page_of(dim: usize, pattern: &[f32], seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    (0..PAGE * dim).map(|_| pattern[random.bits() as usize % pattern.len()]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_page_is_encoded_or_refused(
        pattern in prop::collection::vec(any_float(), 1..12),
        dim in prop::sample::select(DIMS[..5].to_vec()),
        seed in any::<u64>(),
    ) {
        let x = page_of(dim, &pattern, seed);
        let finite = x.iter().all(|x| x.is_finite());
        let params = CodecParams::new(dim, seed);
        for entry in registry() {
            let Ok(codec) = (entry.key)(&params) else { continue };
            if entry.name.contains("qjl") || entry.name.contains("prod") {
                continue; // their matrices take too long to make for every case; the next test has them
            }
            let mut page = vec![0; codec.page_bytes()];
            let result = codec.encode(Isa::detect(), &x, &mut CodecScratch::default(), &mut page);
            match result {
                Ok(()) => {
                    prop_assert!(finite, "{}", entry.name);
                    let decoded = decode_keys(Isa::detect(), &*codec, &page);
                    let largest = x.iter().fold(0f32, |m, x| m.max(x.abs()));
                    if largest < 1e30 {
                        prop_assert!(decoded.iter().all(|y| y.is_finite()), "{}", entry.name);
                    }
                }
                Err(Error::NotFinite { .. }) => prop_assert!(!finite, "{}", entry.name),
                Err(Error::Overflow { .. }) => prop_assert!(x.iter().any(|x| x.abs() > 1000.0), "{}", entry.name),
                Err(other) => prop_assert!(false, "{}: {}", entry.name, other),
            }
        }
    }

    #[test]
    fn any_bytes_are_a_page(bytes in prop::collection::vec(any::<u8>(), 64..256), seed in any::<u64>()) {
        let dim = 64;
        let params = CodecParams::new(dim, 1);
        for entry in registry() {
            let (Ok(key), Ok(value)) = ((entry.key)(&params), (entry.value)(&params)) else { continue };
            let mut random = Random(seed);
            let page: Vec<u8> =
                (0..key.page_bytes()).map(|_| bytes[random.bits() as usize % bytes.len()]).collect();
            decode_keys(Isa::detect(), &*key, &page);
            scores(Isa::detect(), &*key, &page, &vec![0.5; 3 * dim]);
            weighted(Isa::detect(), &*value, &[page], &[vec![0.25; 2 * PAGE]]);
        }
    }
}

#[test]
fn special_pages_at_every_head_size() {
    for dim in DIMS {
        for entry in registry() {
            let Ok(codec) = (entry.key)(&CodecParams::new(dim, 3)) else { continue };
            let mut scratch = CodecScratch::default();
            let mut page = vec![0xFF; codec.page_bytes()];
            for (value, tolerance) in [(0.0, 0.0), (1e-42, 1e-30), (-1e-39, 1e-30), (3.0, 40.0)] {
                let x = vec![value; PAGE * dim];
                codec.encode(Isa::detect(), &x, &mut scratch, &mut page).unwrap();
                for y in decode_keys(Isa::detect(), &*codec, &page) {
                    let off = (y - value).abs();
                    assert!(off <= tolerance, "{} {dim}: {value} decodes to {y}", entry.name);
                }
            }
            let mut x = vec![1.0; PAGE * dim];
            x[77 * dim + 5] = f32::NAN;
            let error = codec.encode(Isa::detect(), &x, &mut scratch, &mut page);
            assert_eq!(error, Err(Error::NotFinite { token: 77 }), "{} {dim}", entry.name);
            x[77 * dim + 5] = f32::NEG_INFINITY;
            let error = codec.encode(Isa::detect(), &x, &mut scratch, &mut page);
            assert_eq!(error, Err(Error::NotFinite { token: 77 }), "{} {dim}", entry.name);
        }
    }
}

#[test]
fn a_query_that_is_not_finite_scores_nan() {
    let dim = 128;
    let x: Vec<f32> = (0..PAGE * dim).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
    for entry in registry() {
        let codec = (entry.key)(&CodecParams::new(dim, 3)).unwrap();
        let mut page = vec![0; codec.page_bytes()];
        codec.encode(Isa::detect(), &x, &mut CodecScratch::default(), &mut page).unwrap();
        for isa in Isa::available() {
            let mut q = vec![0.5; dim];
            q[9] = f32::NAN;
            assert!(scores(isa, &*codec, &page, &q).iter().all(|s| s.is_nan()), "{} {isa}", entry.name);
        }
    }
}

#[test]
fn wrong_parameters_are_errors() {
    for dim in [0, 1, 8, 24, 100, 176, 2048] {
        for entry in registry() {
            if dim % 32 == 0 && dim > 0 && entry.name.contains('_') {
                continue; // ggml's blocks fit any multiple of 32
            }
            assert!((entry.key)(&CodecParams::new(dim, 1)).is_err(), "{} {dim}", entry.name);
        }
    }
    let short = [1.0; 5];
    let zero = [0.0; 64];
    for balance in [&short[..], &zero[..], &[f32::NAN; 64][..]] {
        let params = CodecParams { balance: Some(balance), ..CodecParams::new(64, 1) };
        assert!(quant_kernels::codecs::planes::PlaneKeys::new(&params, 4).is_err());
    }
}
