//! The matmul of a mixture of experts equals, bit for bit, each token's matmul with each of its experts.

use proptest::prelude::*;
use quant_kernels::matmul::{ExpertProjection, MatmulScratch, Routes, combine_experts};
use quant_kernels::{Activations, Error, GgmlType, Isa, Kernels, Parallel, Projection, Serial, Team, Weight};

const EXPERTS: usize = 5;

/// Finite values and blocks, from a seed.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Clears the upper exponent bit of what may be an f16 scale.
            (state >> 40) as u8 & 0xbf
        })
        .collect()
}

fn floats(seed: u64, len: usize) -> Vec<f32> {
    bytes(seed, len).iter().map(|&b| f32::from(b as i8) / 40.0).collect()
}

struct Case {
    ty: GgmlType,
    rows: usize,
    cols: usize,
    per_token: usize,
    ids: Vec<u32>,
    /// Each slot has an input of its own.
    own: bool,
    mode: Activations,
    seed: u64,
}

impl Case {
    fn check(&self) {
        let &Self { ty, rows, cols, per_token, own, mode, seed, .. } = self;
        let bytes = bytes(seed, EXPERTS * rows * ty.row_bytes(cols));
        let weight = Weight::new(ty, EXPERTS * rows, cols, &bytes).expect("shape");
        let bias = floats(seed + 1, EXPERTS * rows);
        let tokens = self.ids.len() / per_token;
        let x = floats(seed + 2, if own { self.ids.len() } else { tokens } * cols);
        let mut expected = vec![0.0; self.ids.len() * rows];
        let scalar = Kernels::new(Isa::Scalar);
        for (place, out) in expected.chunks_exact_mut(rows).enumerate() {
            let first = self.ids[place] as usize * rows;
            let row = if own { place } else { place / per_token };
            let projection = Projection {
                weight: weight.slice_rows(first, rows),
                bias: Some(&bias[first..][..rows]),
                out,
            };
            let x = &x[row * cols..][..cols];
            scalar
                .matmul(&Serial, &mut MatmulScratch::default(), mode, x, 1, &mut [projection])
                .expect("shapes");
        }
        let team = Team::new(3).expect("threads");
        for isa in Isa::available() {
            let kernels = Kernels::new(isa);
            for parallel in [&Serial as &dyn Parallel, &team] {
                let mut scratch = MatmulScratch::default();
                // The second round meets buffers in use.
                for _ in 0..2 {
                    let (mut a, mut b) = (vec![f32::NAN; expected.len()], vec![f32::NAN; expected.len()]);
                    let routes = Routes::new(EXPERTS, per_token, &self.ids).expect("routes");
                    let mut two =
                        [&mut a, &mut b].map(|out| ExpertProjection { weight, bias: Some(&bias), out });
                    kernels
                        .matmul_experts(parallel, &mut scratch, mode, &x, routes, &mut two)
                        .expect("shapes");
                    for out in [a, b] {
                        let same = out
                            .iter()
                            .zip(&expected)
                            .all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
                        assert!(same, "{ty} on {isa}, {tokens} tokens, mode {mode:?}");
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40.min(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_slot_has_the_bits_of_its_own_matmul(
        ty in prop::sample::select(vec![
            GgmlType::Q4_K, GgmlType::Q6_K, GgmlType::Q8_0, GgmlType::MXFP4, GgmlType::IQ2_XXS, GgmlType::F16,
        ]),
        rows in prop::sample::select(vec![1usize, 16, 30, 70, 130]),
        blocks in 1usize..3,
        per_token in 1usize..4,
        ids in prop::collection::vec(0..EXPERTS as u32, 0..60),
        own: bool,
        reference: bool,
        seed: u64,
    ) {
        let ids = ids[..ids.len() / per_token * per_token].to_vec();
        let mode = if reference { Activations::F32 } else { Activations::Auto };
        let cols = ty.block_len().max(32) * blocks;
        Case { ty, rows, cols, per_token, ids, own, mode, seed: seed >> 8 }.check();
    }

    #[test]
    fn answers_are_added_in_the_order_of_slots(y in prop::collection::vec(-9f32..9.0, 40), w in prop::collection::vec(-2f32..2.0, 4)) {
        let expected: Vec<f32> =
            (0..10).map(|i| (0..4).fold(0.0, |sum, slot| sum + w[slot] * y[slot * 10 + i])).collect();
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; 10];
            combine_experts(isa, &y, &w, &mut out);
            prop_assert_eq!(&out, &expected);
        }
    }
}

#[test]
fn wrong_shapes_are_refused() {
    assert!(matches!(Routes::new(4, 2, &[0, 4]), Err(Error::Expert { id: 4, experts: 4 })));
    assert!(matches!(Routes::new(4, 2, &[0, 1, 2]), Err(Error::Length { .. })));
    assert!(matches!(Routes::new(0, 1, &[]), Err(Error::Length { .. })));
    assert!(matches!(Routes::new(4, 0, &[]), Err(Error::Length { .. })));
    let bytes = vec![0; 6 * 4 * 32];
    let weight = Weight::new(GgmlType::F32, 6, 32, &bytes).expect("shape");
    let kernels = Kernels::new(Isa::Scalar);
    let run = |experts, x: usize, out: usize, bias: usize| {
        let (mut out, bias) = (vec![0.0; out], vec![0.0; bias]);
        let projection = ExpertProjection { weight, bias: Some(&bias), out: &mut out };
        let routes = Routes::new(experts, 1, &[0, 1]).expect("routes");
        let x = vec![0.0; x];
        kernels.matmul_experts(
            &Serial,
            &mut MatmulScratch::default(),
            Activations::Auto,
            &x,
            routes,
            &mut [projection],
        )
    };
    assert!(run(3, 64, 4, 6).is_ok());
    assert!(run(4, 64, 2, 6).is_err(), "6 rows are not those of 4 experts");
    assert!(run(3, 63, 4, 6).is_err());
    assert!(run(3, 64, 5, 6).is_err());
    assert!(run(3, 64, 4, 5).is_err());
}
