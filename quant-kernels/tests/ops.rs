//! Elementwise functions and row functions: every tier has the specification's bits, and the errors are as stated.

use half::f16;
use proptest::prelude::*;
use quant_kernels::exp::{exp, exp_slice, tanh, tanh_slice};
use quant_kernels::gelu::{Gelu, gelu, gelu_erf, gelu_mul, gelu_quick, gelu_tanh};
use quant_kernels::residual::add;
use quant_kernels::rms_norm::{rms_norm, rms_norm_in_place};
use quant_kernels::silu::{silu, silu_mul};
use quant_kernels::softmax::softmax;
use quant_kernels::store_f16::store_f16;
use quant_kernels::{Isa, types};

/// Any bit pattern, with the interesting ones often.
fn any_float() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -12f32..12.0,
        2 => any::<u32>().prop_map(f32::from_bits),
        1 => -110f32..110.0,
        1 => prop::sample::select(vec![
            f32::NAN, f32::from_bits(0xffc0_0001), f32::from_bits(0x7fa0_0003), f32::INFINITY, f32::NEG_INFINITY,
            0.0, -0.0, 1e-45, -1e-45, 1e-39, f32::MIN_POSITIVE, f32::MAX, f32::MIN, -87.0, -87.000_01, 88.722_83,
            88.722_84, 0.625, -0.625, 65504.0, 65519.99, 65520.0, 5.9e-8, 2.9e-8,
        ]),
    ]
}

fn ordinary() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-8f32..8.0, 1..300)
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
}

fn half_bits(x: &[f16]) -> Vec<u16> {
    x.iter().map(|x| if x.is_nan() { u16::MAX } else { x.to_bits() }).collect()
}

/// The contract's sum, from its words.
fn lane_sum(x: impl Iterator<Item = f32>) -> f32 {
    let mut lanes = [0f32; 16];
    x.enumerate().for_each(|(i, x)| lanes[i % 16] += x);
    types::f32::tree(lanes)
}

/// A function of one value and its version for rows.
type Pair = (&'static str, fn(f32) -> f32, fn(Isa, &mut [f32]));

const FUNCTIONS: [Pair; 5] = [
    ("exp", exp, exp_slice),
    ("tanh", tanh, tanh_slice),
    ("gelu_tanh", gelu_tanh, |isa, x| gelu(isa, Gelu::Tanh, x)),
    ("gelu_quick", gelu_quick, |isa, x| gelu(isa, Gelu::Quick, x)),
    ("gelu_erf", gelu_erf, |isa, x| gelu(isa, Gelu::Erf, x)),
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn elementwise_functions_have_the_scalar_bits(x in prop::collection::vec(any_float(), 0..200)) {
        let y: Vec<f32> = x.iter().rev().copied().collect();
        for isa in Isa::available() {
            for (name, one, row) in FUNCTIONS {
                let mut got = x.clone();
                row(isa, &mut got);
                let expected: Vec<f32> = x.iter().map(|x| one(*x)).collect();
                prop_assert_eq!(bits(&got), bits(&expected), "{} {}", name, isa);
            }
            let zip = |f: fn(f32, f32) -> f32| -> Vec<f32> { x.iter().zip(&y).map(|(x, y)| f(*x, *y)).collect() };
            let mut got = x.clone();
            silu_mul(isa, &mut got, &y);
            prop_assert_eq!(bits(&got), bits(&zip(|x, y| silu(x) * y)), "silu_mul {}", isa);
            let mut got = x.clone();
            gelu_mul(isa, Gelu::Tanh, &mut got, &y);
            prop_assert_eq!(bits(&got), bits(&zip(|x, y| gelu_tanh(x) * y)), "gelu_mul {}", isa);
            let mut got = x.clone();
            add(isa, &mut got, &y);
            prop_assert_eq!(bits(&got), bits(&zip(|x, y| x + y)), "add {}", isa);
        }
    }

    #[test]
    fn row_functions_follow_the_formula(x in prop_oneof![ordinary(), prop::collection::vec(any_float(), 1..100)]) {
        let weight: Vec<f32> = x.iter().rev().map(|x| x * 0.5).collect();
        let r = 1.0 / (lane_sum(x.iter().map(|x| x * x)) / x.len() as f32 + 1e-5).sqrt();
        let normed: Vec<f32> = x.iter().zip(&weight).map(|(x, w)| (x * r) * w).collect();
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = x.iter().map(|x| exp(x - max)).collect();
        let sum = lane_sum(weights.iter().copied());
        let shares: Vec<f32> = weights.iter().map(|w| w / sum).collect();
        for isa in Isa::available() {
            let mut got = vec![0.0; x.len()];
            rms_norm(isa, &x, &weight, 1e-5, &mut got);
            prop_assert_eq!(bits(&got), bits(&normed), "rms_norm {}", isa);
            let mut got = x.clone();
            rms_norm_in_place(isa, &mut got, &weight, 1e-5);
            prop_assert_eq!(bits(&got), bits(&normed), "rms_norm_in_place {}", isa);
            let mut got = x.clone();
            softmax(isa, &mut got);
            prop_assert_eq!(bits(&got), bits(&shares), "softmax {}", isa);
        }
    }

    #[test]
    fn f16_stores_round_to_even_and_report_overflow(x in prop::collection::vec(any_float(), 0..100)) {
        let expected: Vec<f16> = x.iter().map(|x| f16::from_f32(*x)).collect();
        let overflow = x.iter().zip(&expected).position(|(x, h)| x.is_finite() && h.is_infinite());
        for isa in Isa::available() {
            let mut got = vec![f16::ZERO; x.len()];
            prop_assert_eq!(store_f16(isa, &x, &mut got), overflow.map_or(Ok(()), Err), "{}", isa);
            if overflow.is_none() {
                prop_assert_eq!(half_bits(&got), half_bits(&expected), "{}", isa);
            }
        }
    }
}

/// Distance to the exact value in units of the last place of f32.
fn ulps(got: f32, exact: f64) -> f64 {
    let next = f32::from_bits((exact.abs() as f32).to_bits() + 1);
    (f64::from(got) - exact).abs() / (f64::from(next) - f64::from(f32::from_bits(next.to_bits() - 1)))
}

/// Every 509th float of a range of magnitudes, with both signs.
fn dense(to: f32) -> impl Iterator<Item = f32> {
    (0..to.to_bits()).step_by(509).map(f32::from_bits).flat_map(|x| [x, -x])
}

#[test]
fn exp_is_within_its_stated_error() {
    let worst =
        dense(88.722).filter(|x| *x >= -87.0).map(|x| ulps(exp(x), f64::from(x).exp())).fold(0.0, f64::max);
    assert!(worst < 1.0, "{worst} ulp");
    assert_eq!(exp(-87.01), 0.0);
    assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    assert_eq!(exp(-0.0), 1.0);
    assert!(exp(88.722_83).is_finite());
    assert_eq!(exp(88.722_84), f32::INFINITY);
    assert_eq!(exp(f32::INFINITY), f32::INFINITY);
    assert!(exp(f32::NAN).is_nan() && exp(f32::from_bits(0x7fff_ffff)).is_nan());
}

#[test]
fn tanh_is_within_its_stated_error() {
    let worst = dense(20.0)
        .filter(|x| x.abs() > f32::MIN_POSITIVE)
        .map(|x| ulps(tanh(x), f64::from(x).tanh()))
        .fold(0.0, f64::max);
    assert!(worst < 1.3, "{worst} ulp");
    assert_eq!((tanh(f32::INFINITY), tanh(f32::NEG_INFINITY), tanh(-0.0).to_bits()), (1.0, -1.0, 1 << 31));
}

#[test]
fn silu_is_within_its_stated_error() {
    let exact = |x: f64| x / (1.0 + (-x).exp());
    let worst = dense(87.0)
        .filter(|x| exact(f64::from(*x)).abs() > 1.2e-38)
        .map(|x| ulps(silu(x), exact(f64::from(x))))
        .fold(0.0, f64::max);
    assert!(worst < 2.1, "{worst} ulp");
}

#[test]
fn gelu_is_within_its_stated_error() {
    let erf = |x: f64| x * 0.5 * libm::erfc(-x / 2f64.sqrt());
    let quick = |x: f64| x / (1.0 + (-1.702 * x).exp());
    let inner = |x: f64| (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    let by_tanh = |x: f64| x / (1.0 + (-2.0 * inner(x)).exp());
    type Form<'a> = (&'a str, fn(f32) -> f32, &'a dyn Fn(f64) -> f64, (f64, f64));
    let forms: [Form<'_>; 3] = [
        ("tanh", gelu_tanh, &by_tanh, (6e-8, 2.0)),
        ("quick", gelu_quick, &quick, (5e-8, 2.0)),
        ("erf", gelu_erf, &erf, (1e-7, 10.0)),
    ];
    for (name, got, exact, limit) in forms {
        let (mut absolute, mut relative) = (0.0, 0.0);
        for x in dense(50.0) {
            let value = exact(f64::from(x));
            if x < 0.0 {
                absolute = f64::max(absolute, (f64::from(got(x)) - value).abs());
            } else if x > f32::MIN_POSITIVE {
                relative = f64::max(relative, ulps(got(x), value));
            }
        }
        assert!(
            absolute < limit.0 && relative < limit.1,
            "{name}: {absolute:e} below zero, {relative} ulp above"
        );
    }
}
