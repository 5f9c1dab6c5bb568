//! RoPE: frequencies of every scaling, both pairings, partial rotation, the same bits on every tier.

use proptest::prelude::*;
use quant_kernels::Isa;
use quant_kernels::rope::{Rope, RopePairs, RopeScaling};

fn yarn(original_context: u32, ext_factor: f32) -> RopeScaling {
    RopeScaling::Yarn {
        factor: 4.0,
        original_context,
        ext_factor,
        attn_factor: 1.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
    }
}

fn close(got: f64, expected: f64) {
    assert!((got / expected - 1.0).abs() < 1e-14, "{got} instead of {expected}");
}

#[test]
fn frequencies_fall_with_the_pair() {
    let rope = Rope::new(RopePairs::Halves, 8, 10000.0, None, RopeScaling::None);
    assert_eq!(rope.inv_freq.len(), 4);
    for (got, expected) in rope.inv_freq.iter().zip([1.0, 0.1, 0.01, 0.001]) {
        close(*got, expected);
    }
}

#[test]
fn factors_and_linear_scaling_divide() {
    let plain = Rope::new(RopePairs::Halves, 6, 500.0, None, RopeScaling::None);
    let factors = [1.0, 8.0, 1e30];
    let scaled = Rope::new(RopePairs::Halves, 6, 500.0, Some(&factors), RopeScaling::Linear { factor: 2.0 });
    for ((scaled, plain), factor) in scaled.inv_freq.iter().zip(&plain.inv_freq).zip(factors) {
        close(*scaled, plain / f64::from(factor) / 2.0);
    }
    assert_eq!(scaled.magnitude, 1.0);
}

/// Frequencies computed apart with ggml's formula (`rope_yarn` in ggml-cpu/ops.cpp).
#[test]
fn yarn_mixes_between_its_corrections() {
    let rope = Rope::new(RopePairs::Halves, 16, 10000.0, None, yarn(32, 1.0));
    let expected = [
        1.0,
        0.197_642_353_760_523_72,
        0.025,
        0.007_905_694_150_420_948,
        0.0025,
        0.000_790_569_415_042_094_8,
        0.00025,
        7.905_694_150_420_948e-5,
    ];
    for (got, expected) in rope.inv_freq.iter().zip(expected) {
        close(*got, expected);
    }
    assert_eq!(rope.magnitude, 1.138_629_4);

    let rope = Rope::new(RopePairs::Halves, 128, 10000.0, None, yarn(4096, 1.0));
    for (i, expected) in [
        (0, 1.0),
        (20, 0.056_234_132_519_034_91),
        (21, 0.047_292_038_501_684_786),
        (30, 0.009_488_517_882_700_576),
        (45, 0.000_429_402_588_997_358_3),
        (46, 0.000_333_380_358_040_831),
        (63, 2.886_954_961_723_645_5e-5),
    ] {
        close(rope.inv_freq[i], expected);
    }
}

#[test]
fn yarn_without_extrapolation_interpolates_only() {
    let linear = Rope::new(RopePairs::Halves, 16, 10000.0, None, RopeScaling::Linear { factor: 4.0 });
    let rope = Rope::new(RopePairs::Halves, 16, 10000.0, None, yarn(32, 0.0));
    assert_eq!(rope.inv_freq, linear.inv_freq);
    assert_eq!(rope.magnitude, 1.0);
}

#[test]
fn magnitude_scales_cos_and_sin() {
    let scaling = RopeScaling::Magnitude { attn_factor: 1.25 };
    let rope = Rope::new(RopePairs::Halves, 4, 10000.0, Some(&[1.0, 2.0]), scaling);
    let (mut cos, mut sin) = ([0.0; 2], [0.0; 2]);
    rope.angles(3, &mut cos, &mut sin);
    assert_eq!(cos, [3f64.cos() as f32 * 1.25, 0.015f64.cos() as f32 * 1.25]);
    assert_eq!(sin, [3f64.sin() as f32 * 1.25, 0.015f64.sin() as f32 * 1.25]);
}

#[test]
fn a_far_position_keeps_its_precision() {
    let rope = Rope::new(RopePairs::Halves, 2, 10000.0, None, RopeScaling::None);
    let (mut cos, mut sin) = ([0.0], [0.0]);
    rope.angles(1_000_003, &mut cos, &mut sin);
    assert!((f64::from(cos[0]) - 1_000_003f64.cos()).abs() < 1e-7);
    assert!((f64::from(sin[0]) - 1_000_003f64.sin()).abs() < 1e-7);
}

#[test]
fn pairings_are_permutations_of_each_other_and_the_rest_stays() {
    let (head_dim, dims) = (12, 8);
    let x: Vec<f32> = (0..2 * head_dim).map(|i| (i as f32).sin()).collect();
    let [interleaved, halves] = [RopePairs::Interleaved, RopePairs::Halves]
        .map(|pairs| Rope::new(pairs, dims, 10000.0, None, RopeScaling::None));
    let (mut cos, mut sin) = (vec![0.0; dims / 2], vec![0.0; dims / 2]);
    halves.angles(5, &mut cos, &mut sin);
    // interleaved index 2i + j is halves index i + j * dims / 2
    let to_halves = |x: &[f32]| -> Vec<f32> {
        x.chunks(head_dim)
            .flat_map(|head| {
                (0..head_dim)
                    .map(|i| if i < dims { head[i % (dims / 2) * 2 + i / (dims / 2)] } else { head[i] })
            })
            .collect()
    };
    let mut a = x.clone();
    interleaved.apply(Isa::Scalar, &mut a, head_dim, &cos, &sin);
    let mut b = to_halves(&x);
    halves.apply(Isa::Scalar, &mut b, head_dim, &cos, &sin);
    assert_eq!(to_halves(&a), b);
    assert_eq!(a[8..12], x[8..12]);
    assert_eq!(a[0], x[0] * cos[0] - x[1] * sin[0]);
    assert_eq!(a[1], x[0] * sin[0] + x[1] * cos[0]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_tier_has_the_scalar_bits(
        pairs in 0usize..70,
        rest in 0usize..9,
        heads in 1usize..4,
        halves in any::<bool>(),
        position in 0usize..200_000,
        seed in any::<u32>(),
    ) {
        let head_dim = 2 * pairs + rest + usize::from(pairs + rest == 0);
        let kind = if halves { RopePairs::Halves } else { RopePairs::Interleaved };
        let rope = Rope::new(kind, 2 * pairs, 10000.0, None, RopeScaling::None);
        let (mut cos, mut sin) = (vec![0.0; pairs], vec![0.0; pairs]);
        rope.angles(position, &mut cos, &mut sin);
        let x: Vec<f32> = (0..heads * head_dim)
            .map(|i| f32::from_bits((seed ^ (i as u32 * 0x9e37)).wrapping_mul(0x85eb_ca6b) & 0xbfff_ffff))
            .collect();
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let mut expected = x.clone();
        for head in expected.chunks_exact_mut(head_dim) {
            for i in 0..pairs {
                let (a, b) = if halves { (i, i + pairs) } else { (2 * i, 2 * i + 1) };
                (head[a], head[b]) = (head[a] * cos[i] - head[b] * sin[i], head[a] * sin[i] + head[b] * cos[i]);
            }
        }
        for isa in Isa::available() {
            let mut got = x.clone();
            rope.apply(isa, &mut got, head_dim, &cos, &sin);
            prop_assert_eq!(bits(&got), bits(&expected), "{}", isa);
        }
    }
}
