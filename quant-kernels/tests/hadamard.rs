//! The Hadamard transform: orthogonal, its order of operations, every tier.

use proptest::prelude::*;
use quant_kernels::Isa;
use quant_kernels::hadamard::{Direction, Hadamard};

const DIMS: [usize; 11] = [16, 48, 64, 80, 96, 112, 128, 192, 256, 512, 1024];

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
}

/// The columns of the matrix, times sqrt(dim): all 1 or -1.
fn signs(dim: usize) -> Vec<Vec<f32>> {
    let hadamard = Hadamard::new(dim).unwrap();
    (0..dim)
        .map(|i| {
            let mut x = vec![0.0; dim];
            x[i] = 1.0;
            hadamard.apply(Isa::Scalar, Direction::Forward, &mut x);
            let unit = 1.0 / (dim as f32).sqrt();
            assert!(x.iter().all(|x| x.abs() == unit), "{dim}: column {i}");
            x.iter().map(|x| x.signum()).collect()
        })
        .collect()
}

#[test]
fn the_matrix_is_orthogonal() {
    for dim in DIMS {
        let columns = signs(dim);
        for (i, a) in columns.iter().enumerate() {
            for (j, b) in columns.iter().enumerate().take(i + 1) {
                let dot: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                assert_eq!(dot, if i == j { dim as f32 } else { 0.0 }, "{dim}: columns {i}, {j}");
            }
        }
    }
}

/// The order of the contract: strides ascending, the core in index order, one multiply.
fn specified(dim: usize, x: &mut [f32]) {
    let core = match dim >> dim.trailing_zeros() {
        3 => 12,
        5 => 20,
        7 => 28,
        _ => 1,
    };
    let width = dim / core;
    let mut stride = 1;
    while stride < width {
        for i in (0..dim).filter(|i| i & stride == 0) {
            // within a row of the core i % width and i differ by a multiple of the power of two width
            (x[i], x[i + stride]) = (x[i] + x[i + stride], x[i] - x[i + stride]);
        }
        stride *= 2;
    }
    if core > 1 {
        let columns = signs(dim);
        let input = x.to_vec();
        for r in 0..core {
            for j in 0..width {
                // H[r w][c w] is the core's entry: the power of two's first row and column are 1
                let entry = |c: usize| columns[c * width][r * width];
                x[r * width + j] =
                    (1..core).fold(input[j] * entry(0), |sum, c| sum + input[c * width + j] * entry(c));
            }
        }
    }
    for x in x {
        *x *= 1.0 / (dim as f32).sqrt();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_tier_follows_the_order(
        dim in prop::sample::select(DIMS.to_vec()),
        seed in prop::collection::vec(prop_oneof![9 => -4f32..4.0, 1 => any::<u32>().prop_map(f32::from_bits)], 1..40),
    ) {
        let x: Vec<f32> = (0..2 * dim).map(|i| seed[i * 7 % seed.len()] * ((i % 5) as f32 + 0.5)).collect();
        let mut expected = x.clone();
        expected.chunks_exact_mut(dim).for_each(|x| specified(dim, x));
        let hadamard = Hadamard::new(dim).unwrap();
        for isa in Isa::available() {
            let mut got = x.clone();
            hadamard.apply(isa, Direction::Forward, &mut got);
            prop_assert_eq!(bits(&got), bits(&expected), "{} {}", dim, isa);
            let mut back = got.clone();
            hadamard.apply(isa, Direction::Inverse, &mut back);
            let mut scalar = got;
            hadamard.apply(Isa::Scalar, Direction::Inverse, &mut scalar);
            prop_assert_eq!(bits(&back), bits(&scalar), "{} {}", dim, isa);
            if x.iter().all(|x| x.abs() < 1e6) {
                let size = x.iter().fold(0f32, |m, x| m.max(x.abs()));
                for (x, y) in x.iter().zip(&back) {
                    prop_assert!((x - y).abs() <= 1e-5 * size, "{}: {} came back as {}", dim, x, y);
                }
            }
        }
    }
}

#[test]
fn other_sizes_are_refused() {
    for dim in [0, 1, 8, 24, 100, 144, 176, 2048] {
        assert!(Hadamard::new(dim).is_err(), "{dim}");
    }
}
