//! The figures of the papers, on the sphere and on inputs that only a random rotation makes look like it.

use crate::common::{Source, decode_keys, dot, encode_keys, scores, unit_vectors};
use quant_kernels::Isa;
use quant_kernels::codecs::{CodecParams, KeyCodec, PAGE, RotationKind, entry};

const DIM: usize = 128;
const SOURCES: [Source; 3] = [Source::Sphere, Source::Outliers, Source::Smooth];
const ROTATIONS: [RotationKind; 2] = [RotationKind::HadamardTwice, RotationKind::Qr];

fn codec(name: &str, dim: usize, rotation: RotationKind, seed: u64) -> Box<dyn KeyCodec> {
    (entry(name).unwrap().key)(&CodecParams { rotation, ..CodecParams::new(dim, seed) }).unwrap()
}

/// Mean squared error of decoded unit vectors.
fn squared_error(codec: &dyn KeyCodec, source: Source, pages: usize) -> f64 {
    let x = unit_vectors(source, pages * PAGE, codec.dim(), 1);
    let mut error = 0.0;
    for x in x.chunks_exact(PAGE * codec.dim()) {
        let decoded = decode_keys(Isa::detect(), codec, &encode_keys(Isa::detect(), codec, x));
        error += x.iter().zip(&decoded).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
    }
    error / (pages * PAGE) as f64
}

/// `d` times the mean squared error of inner products with random unit vectors, and the slope of the estimate over the
/// truth. Over many seeds: a sketch has no bias on average over sketches, and smooth vectors are few directions.
fn product_error(name: &str, source: Source, rotation: RotationKind, seeds: usize) -> (f64, f64) {
    const PAIRS: usize = 1 << 19;
    let (mut error, mut products, mut squares, mut count) = (0.0, 0.0, 0.0, 0.0);
    for seed in 0..seeds as u64 {
        let codec = codec(name, DIM, rotation, 100 + seed);
        let x = unit_vectors(source, PAGE, DIM, 2 + seed);
        for (p, x) in x.chunks_exact(PAGE * DIM).enumerate() {
            let queries =
                unit_vectors(Source::Sphere, PAIRS / PAGE / seeds, DIM, 77 + seed * 1000 + p as u64);
            let page = encode_keys(Isa::detect(), &*codec, x);
            let estimates = scores(Isa::detect(), &*codec, &page, &queries);
            for (q, estimates) in queries.chunks_exact(DIM).zip(estimates.chunks_exact(PAGE)) {
                for (k, estimate) in x.chunks_exact(DIM).zip(estimates) {
                    let (truth, estimate) = (dot(q, k), f64::from(*estimate));
                    error += (truth - estimate).powi(2);
                    products += truth * estimate;
                    squares += truth * truth;
                    count += 1.0;
                }
            }
        }
    }
    (DIM as f64 * error / count, products / squares)
}

fn assert_near(what: &str, got: f64, expected: f64, tolerance: f64) {
    println!("{what}: {got:.5}, expected {expected}");
    assert!((got / expected - 1.0).abs() <= tolerance, "{what}: {got}, expected {expected} +- {tolerance}");
}

#[test]
fn turbo_mse_has_the_papers_error_on_every_source() {
    for rotation in ROTATIONS {
        for (bits, expected) in [(1, 0.3609), (2, 0.1160), (3, 0.0340), (4, 0.0093)] {
            for source in SOURCES {
                let codec = codec(&format!("turbo-mse-{bits}"), DIM, rotation, 5);
                let tolerance = if source == Source::Sphere { 0.02 } else { 0.1 };
                let error = squared_error(&*codec, source, 24);
                assert_near(&format!("{bits} bits, {rotation:?}, {source:?}"), error, expected, tolerance);
            }
        }
    }
}

/// One round leaves structure: the error of inputs with few large channels is lower, that of others the same.
#[test]
fn one_hadamard_round_is_no_worse() {
    for (bits, expected) in [(1, 0.3609), (2, 0.1160), (3, 0.0340), (4, 0.0093)] {
        for source in SOURCES {
            let error = squared_error(
                &*codec(&format!("turbo-mse-{bits}"), DIM, RotationKind::Hadamard, 5),
                source,
                24,
            );
            println!("{bits} bits, one round, {source:?}: {error:.5}");
            assert!(
                error <= expected * if source == Source::Sphere { 1.02 } else { 1.1 },
                "{bits}, {source:?}: {error}"
            );
        }
    }
}

#[test]
fn turbo_mse_has_its_error_at_every_head_size() {
    for (dim, two, four) in [(64, 0.11453, 0.00913), (128, 0.11600, 0.00932), (256, 0.11674, 0.00941)] {
        for (bits, expected) in [(2, two), (4, four)] {
            let codec = codec(&format!("turbo-mse-{bits}"), dim, RotationKind::HadamardTwice, 6);
            assert_near(&format!("dim {dim}"), squared_error(&*codec, Source::Sphere, 16), expected, 0.02);
        }
    }
    for dim in [80, 96, 112, 192, 512] {
        for (bits, expected) in [(2, 0.116), (4, 0.0093)] {
            let codec = codec(&format!("turbo-mse-{bits}"), dim, RotationKind::HadamardTwice, 6);
            assert_near(&format!("dim {dim}"), squared_error(&*codec, Source::Outliers, 8), expected, 0.1);
        }
    }
}

#[test]
fn turbo_prod_has_the_papers_variance_and_no_bias() {
    for rotation in ROTATIONS {
        for (bits, expected) in [(1, 1.57), (2, 0.57), (3, 0.18), (4, 0.054)] {
            for source in SOURCES {
                let (error, slope) = product_error(&format!("turbo-prod-{bits}"), source, rotation, 64);
                let what = format!("{bits} bits, {rotation:?}, {source:?}");
                assert_near(&what, error, expected, 0.1);
                assert_near(&format!("{what}: slope"), slope, 1.0, 0.01);
            }
        }
    }
}

#[test]
fn qjl_has_the_papers_variance_and_no_bias() {
    for source in SOURCES {
        for (name, expected) in [("qjl-1", 1.56), ("qjl-2", 0.78)] {
            let (error, slope) = product_error(name, source, RotationKind::HadamardTwice, 256);
            assert_near(&format!("{name}, {source:?}"), error, expected, 0.1);
            assert_near(&format!("{name}, {source:?}: slope"), slope, 1.0, 0.01);
        }
    }
}

#[test]
fn polar_has_its_error_on_every_source() {
    for rotation in ROTATIONS {
        for source in SOURCES {
            let error = squared_error(&*codec("polar-4", DIM, rotation, 7), source, 24);
            assert_near(&format!("PolarQuant, {rotation:?}, {source:?}"), error, 0.032, 0.1);
        }
    }
}

#[test]
fn planes_are_no_worse_than_turbo_at_equal_code_bits() {
    for source in SOURCES {
        for bits in 2..=4 {
            let planes = codec(&format!("planes-{bits}"), DIM, RotationKind::HadamardTwice, 8);
            let turbo = codec(&format!("turbo-mse-{bits}"), DIM, RotationKind::HadamardTwice, 8);
            let (ours, theirs) = (squared_error(&*planes, source, 8), squared_error(&*turbo, source, 8));
            println!("{bits} bits, {source:?}: planes {ours:.5}, TurboQuant {theirs:.5}");
            assert!(ours < theirs * 1.03, "{bits} bits, {source:?}: {ours}, TurboQuant {theirs}");
        }
    }
}
