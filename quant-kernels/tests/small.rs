//! The portable code with unsafe parts (outputs shared by workers, aligned buffers, the team), small enough for miri:
//! `cargo xtask sanitize miri`.

use quant_kernels::matmul::MatmulScratch;
use quant_kernels::{Activations, GgmlType, Isa, Kernels, Parallel, Projection, Serial, Team, Weight};

/// More than a task's rows, and ragged.
const ROWS: usize = 67;

fn product(parallel: &dyn Parallel, ty: GgmlType, activations: Activations, tokens: usize) -> Vec<u32> {
    let kernels = Kernels::new(Isa::Scalar);
    let cols = ty.block_len().max(32);
    // Small bytes make small finite scales in every type.
    let bytes: Vec<u8> = (0..ty.row_bytes(cols) * ROWS).map(|i| (i * 7 % 31) as u8).collect();
    let weight = Weight::new(ty, ROWS, cols, &bytes).expect("a valid shape");
    let x: Vec<f32> = (0..tokens * cols).map(|i| (i % 13) as f32 - 6.0).collect();
    let bias = vec![0.5; ROWS];
    let (mut plain, mut biased) = (vec![0.0; tokens * ROWS], vec![0.0; tokens * ROWS]);
    let mut projections = [
        Projection { weight, bias: None, out: &mut plain },
        Projection { weight, bias: Some(&bias), out: &mut biased },
    ];
    kernels
        .matmul(parallel, &mut MatmulScratch::default(), activations, &x, tokens, &mut projections)
        .expect("shapes fit");
    plain.iter().chain(&biased).map(|value| value.to_bits()).collect()
}

#[test]
fn workers_fill_the_outputs_as_one_does() {
    let team = Team::new(3).expect("threads");
    for ty in [GgmlType::Q8_0, GgmlType::Q4_K, GgmlType::F16] {
        for (activations, tokens) in [(Activations::Auto, 2), (Activations::F32, 1)] {
            let alone = product(&Serial, ty, activations, tokens);
            assert_eq!(product(&team, ty, activations, tokens), alone, "{ty} {activations:?}");
        }
    }
}
