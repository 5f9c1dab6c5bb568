//! Matmul equals the scalar dot bit for bit: every tier, type, shape, batch and number of threads.

use proptest::prelude::*;
use quant_kernels::activations::{ActKind, Acts, Input, Norm};
use quant_kernels::matmul::MatmulScratch;
use quant_kernels::rms_norm::rms_norm;
use quant_kernels::types::TypeKernels;
use quant_kernels::{Activations, Error, GgmlType, Isa, Kernels, Parallel, Projection, Serial, Team, Weight};

/// Xorshift: weights need many bytes, not good ones.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn f32(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Random bytes: random codes and, more often than any model, subnormal, infinite and NaN scales. `tame` keeps the
    /// upper exponent bit of every 16-bit word clear, so that most sums stay finite.
    fn weights(&mut self, bytes: usize, tame: bool) -> Vec<u8> {
        let mut out: Vec<u8> = (0..bytes).map(|_| (self.next() >> 32) as u8).collect();
        if self.next().is_multiple_of(4) {
            // The extreme codes of every type, -128 of Q8_0 among them.
            let code = if self.next().is_multiple_of(2) { 0x80 } else { 0xff };
            for byte in &mut out {
                if !self.next().is_multiple_of(8) {
                    *byte = code;
                }
            }
        }
        if tame {
            for word in out.chunks_exact_mut(2) {
                word[1] &= 0xbf;
            }
        }
        out
    }

    fn activations(&mut self, tokens: usize, cols: usize) -> Vec<f32> {
        let mut x: Vec<f32> = (0..tokens * cols).map(|_| self.f32()).collect();
        for token in x.chunks_exact_mut(cols) {
            match self.next() % 8 {
                0 => token.fill(0.0),
                1 => token[0] = 1e-38,
                2 => token.iter_mut().for_each(|v| *v *= 1e20),
                3 => token[cols / 2] = f32::NAN,
                4 => token[cols - 1] = f32::INFINITY,
                _ => {}
            }
        }
        x
    }
}

fn types() -> Vec<TypeKernels> {
    let kernels = Kernels::new(Isa::Scalar);
    GgmlType::ALL.iter().filter_map(|&ty| kernels.of(ty).copied()).collect()
}

/// The specification: activations by `quantize_block`, outputs by the scalar dot.
fn expected(kernels: &TypeKernels, weight: &Weight<'_>, x: &[f32], tokens: usize, bias: &[f32]) -> Vec<f32> {
    let (cols, len) = (weight.cols(), kernels.acts.block_len());
    let mut acts = Acts { kind: Some(kernels.acts), tokens, cols, x: x.to_vec(), ..Acts::default() };
    if kernels.acts != ActKind::F32 {
        acts.q = vec![0; tokens * cols];
        acts.sums = vec![0; tokens * cols / 16];
        acts.d = vec![0.0; tokens * cols / len];
        for b in 0..cols / len {
            for t in 0..tokens {
                let at = acts.place(b, t, len);
                acts.d[at] = Acts::quantize_block(
                    &x[t * cols + b * len..][..len],
                    &mut acts.q[at * len..][..len],
                    &mut acts.sums[at * len / 16..][..len / 16],
                );
            }
        }
    }
    let mut out = Vec::new();
    for t in 0..tokens {
        for (r, bias) in bias.iter().enumerate() {
            out.push((kernels.dot)(weight.row(r), &acts, t) + bias);
        }
    }
    out
}

/// Equal bits; any NaN equals any NaN.
fn assert_same(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let same = got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan());
        assert!(same, "{what}: element {i} is {got:e} instead of {expected:e}");
    }
}

fn run(
    kernels: &Kernels,
    parallel: &dyn Parallel,
    mode: Activations,
    weight: Weight<'_>,
    x: &[f32],
    bias: &[f32],
) -> Vec<f32> {
    let tokens = x.len() / weight.cols();
    let mut out = vec![f32::NAN; tokens * weight.rows()];
    let projection = Projection { weight, bias: Some(bias), out: &mut out };
    kernels
        .matmul(parallel, &mut MatmulScratch::default(), mode, x, tokens, &mut [projection])
        .expect("shapes fit");
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60.min(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_norm_on_the_way_has_the_bits_of_a_norm_before(
        ty in prop::sample::select(vec![GgmlType::Q4_K, GgmlType::Q8_0, GgmlType::F16]),
        tokens in prop::sample::select(vec![1usize, 3, 9, 40]),
        blocks in 1usize..4,
        reference: bool,
        seed: u64,
    ) {
        let mut rng = Rng(seed | 1);
        let (rows, cols) = (17, 256 * blocks);
        let bytes = rng.weights(rows * ty.row_bytes(cols), true);
        let weight = Weight::new(ty, rows, cols, &bytes).expect("shape");
        let x = rng.activations(tokens, cols);
        let scale: Vec<f32> = (0..cols).map(|_| rng.f32()).collect();
        let mode = if reference { Activations::F32 } else { Activations::Auto };
        let team = Team::new(2).expect("threads");
        for isa in Isa::available() {
            let mut normed = vec![0.0; x.len()];
            for (out, x) in normed.chunks_exact_mut(cols).zip(x.chunks_exact(cols)) {
                rms_norm(isa, x, &scale, 1e-5, out);
            }
            let kernels = Kernels::new(isa);
            for parallel in [&Serial as &dyn Parallel, &team] {
                let (mut a, mut b) = (vec![f32::NAN; tokens * rows], vec![f32::NAN; tokens * rows]);
                let mut scratch = MatmulScratch::default();
                let mut run = |x: Input<'_>, out| {
                    let projection = Projection { weight, bias: None, out };
                    kernels.matmul(parallel, &mut scratch, mode, x, tokens, &mut [projection]).expect("shapes");
                };
                run(Input { x: &x, norm: Some(Norm { weight: &scale, eps: 1e-5 }) }, &mut a);
                run(Input::from(&normed), &mut b);
                assert_same(&format!("{ty} on {isa}"), &a, &b);
            }
        }
    }
}

fn check(ty: &TypeKernels, rows: usize, blocks: usize, tokens: usize, tame: bool, seed: u64) {
    let mut rng = Rng(seed | 1);
    let unit = ty.ty.block_len().max(ty.acts.block_len());
    let cols = blocks * unit;
    let bytes = rng.weights(ty.ty.row_bytes(cols) * rows, tame);
    let weight = Weight::new(ty.ty, rows, cols, &bytes).expect("a valid shape");
    let x = rng.activations(tokens, cols);
    let bias: Vec<f32> = (0..rows).map(|_| rng.f32()).collect();
    let expected = expected(ty, &weight, &x, tokens, &bias);
    let teams = [Team::new(2).expect("threads"), Team::new(3).expect("threads")];
    let parallels: [&dyn Parallel; 3] = [&Serial, &teams[0], &teams[1]];
    for isa in Isa::available() {
        let kernels = Kernels::new(isa);
        let what = format!("{} {isa} {rows}x{cols} by {tokens}", ty.ty);
        for parallel in parallels {
            let got = run(&kernels, parallel, Activations::Auto, weight, &x, &bias);
            assert_same(&what, &got, &expected);
        }
        for (t, x) in x.chunks_exact(cols).enumerate() {
            let alone = run(&kernels, &Serial, Activations::Auto, weight, x, &bias);
            assert_same(&format!("{what}, token {t} alone"), &alone, &expected[t * rows..][..rows]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24.min(ProptestConfig::default().cases), ..ProptestConfig::default() })]

    #[test]
    fn every_tier_equals_the_scalar_dot(
        rows in 1usize..=70,
        blocks in 1usize..=9,
        tokens in 1usize..=20,
        tame: bool,
        seed: u64,
    ) {
        for ty in types() {
            check(&ty, rows, blocks, tokens, tame, seed);
        }
    }
}

#[test]
fn large_shapes_equal_the_scalar_dot() {
    for ty in types() {
        let blocks = 2048 / ty.ty.block_len().max(ty.acts.block_len());
        check(&ty, 300, blocks, 1, true, 11);
        check(&ty, 150, blocks / 4, 33, true, 12);
        // Terms and activations of long rows are more than the caches nearby hold.
        check(&ty, 19, 4 * blocks + 3, 1, true, 13);
        check(&ty, 19, 4 * blocks + 3, 4, true, 14);
    }
}

#[test]
fn reference_mode_multiplies_dequantized_weights() {
    let mut rng = Rng(77);
    let f32_kernels = *Kernels::new(Isa::Scalar).of(GgmlType::F32).expect("F32");
    for ty in types() {
        let (rows, cols, tokens) = (37, 512, 3);
        let bytes = rng.weights(ty.ty.row_bytes(cols) * rows, true);
        let weight = Weight::new(ty.ty, rows, cols, &bytes).expect("a valid shape");
        let x: Vec<f32> = (0..tokens * cols).map(|_| rng.f32()).collect();
        let bias = vec![0.5; rows];
        let mut values = vec![0.0; rows * cols];
        (ty.dequantize)(&bytes, &mut values);
        let floats: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let float = Weight::new(GgmlType::F32, rows, cols, &floats).expect("a valid shape");
        let expected = expected(&f32_kernels, &float, &x, tokens, &bias);
        for isa in Isa::available() {
            let got = run(&Kernels::new(isa), &Serial, Activations::F32, weight, &x, &bias);
            assert_same(&format!("{} {isa} reference mode", ty.ty), &got, &expected);
        }
    }
}

#[test]
fn several_projections_share_one_input() {
    let mut rng = Rng(5);
    let kernels = Kernels::new(Isa::detect());
    let (cols, tokens) = (256, 4);
    let x: Vec<f32> = (0..tokens * cols).map(|_| rng.f32()).collect();
    let all: Vec<TypeKernels> = types().into_iter().cycle().take(19).collect();
    let bytes: Vec<Vec<u8>> =
        all.iter().enumerate().map(|(i, t)| rng.weights(t.ty.row_bytes(cols) * (i + 1), true)).collect();
    let weights: Vec<Weight<'_>> = all
        .iter()
        .zip(&bytes)
        .enumerate()
        .map(|(i, (t, bytes))| Weight::new(t.ty, i + 1, cols, bytes).expect("a valid shape"))
        .collect();
    let mut outs: Vec<Vec<f32>> = weights.iter().map(|w| vec![0.0; w.rows() * tokens]).collect();
    let mut projections: Vec<Projection<'_>> =
        weights.iter().zip(&mut outs).map(|(&weight, out)| Projection { weight, bias: None, out }).collect();
    let team = Team::new(2).expect("threads");
    kernels
        .matmul(&team, &mut MatmulScratch::default(), Activations::Auto, &x, tokens, &mut projections)
        .expect("shapes fit");
    for ((ty, weight), out) in all.iter().zip(&weights).zip(&outs) {
        let expected = expected(ty, weight, &x, tokens, &vec![0.0; weight.rows()]);
        assert_same(&ty.ty.to_string(), out, &expected);
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let kernels = Kernels::new(Isa::detect());
    let bytes = [0u8; 34 * 3];
    let weight = Weight::new(GgmlType::Q8_0, 3, 32, &bytes).expect("a valid shape");
    let call = |x: &[f32], tokens, out: &mut [f32], bias: Option<&[f32]>| {
        let projection = Projection { weight, bias, out };
        kernels.matmul(
            &Serial,
            &mut MatmulScratch::default(),
            Activations::Auto,
            x,
            tokens,
            &mut [projection],
        )
    };
    assert_eq!(call(&[0.0; 64], 2, &mut [0.0; 6], None), Ok(()));
    assert_eq!(call(&[], 0, &mut [], None), Ok(()));
    let length = |r: Result<(), Error>| matches!(r, Err(Error::Length { .. }));
    assert!(length(call(&[0.0; 63], 2, &mut [0.0; 6], None)));
    assert!(length(call(&[0.0; 64], 2, &mut [0.0; 7], None)));
    assert!(length(call(&[0.0; 64], 2, &mut [0.0; 6], Some(&[0.0; 2]))));
    assert!(length(call(&[0.0; 64], usize::MAX, &mut [0.0; 6], None)));
    assert!(matches!(Weight::new(GgmlType::Q8_0, 1, 33, &bytes), Err(Error::RowLength { .. })));
    assert!(matches!(Weight::new(GgmlType::Q8_0, usize::MAX, 32, &bytes), Err(Error::Length { .. })));
}
