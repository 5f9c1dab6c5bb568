//! F32, F16 and BF16 weights: every tier equals the scalar dot bit for bit, also on hostile values and ragged
//! shapes; dequantization equals the goldens.

use proptest::prelude::*;
use quant_kernels::activations::{ActKind, Acts};
use quant_kernels::matmul::MatmulScratch;
use quant_kernels::types::{DotFn, table};
use quant_kernels::{Activations, GgmlType, Isa, Kernels, Projection, Serial, Weight};

const TYPES: [GgmlType; 3] = [GgmlType::F32, GgmlType::F16, GgmlType::BF16];

/// A cheap generator: the tests need variety, not randomness.
struct Mix(u64);

impl Mix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = self.0 ^ (self.0 >> 29);
        x.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
    }

    /// In -1..1.
    fn unit(&mut self) -> f32 {
        (self.next() % 65536) as f32 / 32768.0 - 1.0
    }
}

/// Weight rows as bytes: tame values, or any bit pattern at all.
fn weights(ty: GgmlType, values: usize, hostile: bool, mix: &mut Mix) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..values {
        let wild = hostile && mix.next().is_multiple_of(29);
        let (bits, value) = (mix.next(), mix.unit());
        match ty {
            GgmlType::F32 if wild => bytes.extend((bits as u32).to_le_bytes()),
            GgmlType::F32 => bytes.extend(value.to_le_bytes()),
            _ if wild => bytes.extend((bits as u16).to_le_bytes()),
            GgmlType::F16 => {
                let mut half = [0u8; 2];
                quant_kernels::types::f16::quantize(&[value], &mut half);
                bytes.extend(half);
            }
            _ => {
                let mut half = [0u8; 2];
                quant_kernels::types::bf16::quantize(&[value], &mut half);
                bytes.extend(half);
            }
        }
    }
    bytes
}

/// Tokens: tame values, or with specials among them.
fn inputs(values: usize, hostile: bool, mix: &mut Mix) -> Vec<f32> {
    const SPECIAL: [f32; 8] =
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40, -1e-40, f32::MAX, f32::MIN_POSITIVE];
    (0..values)
        .map(|_| {
            let pick = mix.next();
            if hostile && pick.is_multiple_of(31) { SPECIAL[(pick / 31 % 8) as usize] } else { mix.unit() }
        })
        .collect()
}

/// Equal bits, NaN payloads aside.
fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// The scalar dot of a type.
fn dot_of(ty: GgmlType) -> DotFn {
    table(Isa::Scalar).into_iter().find(|k| k.ty == ty).map(|k| k.dot).unwrap()
}

/// One matmul without bias.
fn multiply(isa: Isa, weight: Weight<'_>, x: &[f32], tokens: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; tokens * weight.rows()];
    Kernels::new(isa)
        .matmul(
            &Serial,
            &mut MatmulScratch::default(),
            Activations::Auto,
            x,
            tokens,
            &mut [Projection { weight, bias: None, out: &mut out }],
        )
        .unwrap();
    out
}

/// Compares every tier with the scalar dot on one shape.
fn check(ty: GgmlType, rows: usize, cols: usize, tokens: usize, hostile: bool, seed: u64) {
    let mut mix = Mix(seed);
    let bytes = weights(ty, rows * cols, hostile, &mut mix);
    let x = inputs(tokens * cols, hostile, &mut mix);
    let acts = Acts { kind: Some(ActKind::F32), tokens, cols, x: x.clone(), ..Acts::default() };
    let dot = dot_of(ty);
    let weight = Weight::new(ty, rows, cols, &bytes).unwrap();
    for isa in Isa::available() {
        let out = multiply(isa, weight, &x, tokens);
        for token in 0..tokens {
            for row in 0..rows {
                let (want, got) = (dot(weight.row(row), &acts, token), out[token * rows + row]);
                assert!(
                    same(want, got),
                    "{ty} on {isa}, {rows}x{cols}, {tokens} tokens: row {row}, token {token}: {got} for {want}"
                );
            }
        }
    }
}

#[test]
fn ragged_shapes() {
    for ty in TYPES {
        for cols in [1, 7, 15, 16, 17, 33, 172, 576, 1023, 1040, 2065] {
            for tokens in [1, 2, 3, 4, 5, 6, 7, 13] {
                check(ty, 11, cols, tokens, false, cols as u64);
            }
        }
    }
}

#[test]
fn every_count_of_rows_and_tokens() {
    for ty in TYPES {
        for rows in 1..=40 {
            check(ty, rows, 48, 1 + rows % 20, false, rows as u64);
        }
        for tokens in 1..=20 {
            check(ty, 9, 37, tokens, true, tokens as u64);
        }
    }
}

#[test]
fn more_rows_and_tokens_than_a_block() {
    for ty in TYPES {
        check(ty, 131, 80, 197, false, 5);
        check(ty, 259, 80, 13, false, 7);
        check(ty, 5, 1041, 605, true, 8);
        check(ty, 3, 2500, 99, true, 6);
    }
}

/// An output where every product underflows to -0.0 keeps the sign that the contract gives it.
#[test]
fn signs_of_zero() {
    for ty in TYPES {
        let tiny: Vec<u8> = match ty {
            GgmlType::F32 => (-1e-40f32).to_le_bytes().to_vec(),
            GgmlType::F16 => 0x8001u16.to_le_bytes().to_vec(),
            _ => 0x8001u16.to_le_bytes().to_vec(),
        };
        for cols in [1usize, 16, 17, 20, 32] {
            let x = vec![1e-40f32; cols];
            let weight = Weight::new(ty, 1, cols, &tiny.repeat(cols)).unwrap().row(0).to_vec();
            // Whole steps of 16 stay at -0.0; a padded tail turns lanes into +0.0.
            let want = if cols.is_multiple_of(16) { -0.0f32 } else { 0.0 };
            let acts = Acts { kind: Some(ActKind::F32), tokens: 1, cols, x: x.clone(), ..Acts::default() };
            assert_eq!((dot_of(ty))(&weight, &acts, 0).to_bits(), want.to_bits());
            for isa in Isa::available() {
                for tokens in [1, 2, 9] {
                    let bytes = weight.repeat(3);
                    let got =
                        multiply(isa, Weight::new(ty, 3, cols, &bytes).unwrap(), &x.repeat(tokens), tokens);
                    assert!(
                        got.iter().all(|got| got.to_bits() == want.to_bits()),
                        "{ty} on {isa}, {cols}: {got:?}"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_shape_and_any_bits(
        ty in prop::sample::select(&TYPES[..]),
        rows in 1usize..40,
        cols in 1usize..600,
        tokens in 1usize..20,
        seed: u64,
    ) {
        check(ty, rows, cols, tokens, true, seed);
    }
}

#[test]
fn dequantization_goldens() {
    let file = quant_fixtures::safetensors(&quant_fixtures::committed("oracle/dequant/dequant.safetensors"));
    for ty in [GgmlType::F16, GgmlType::BF16] {
        let kernels = table(Isa::Scalar).into_iter().find(|k| k.ty == ty).unwrap();
        for (bytes, values) in [("blocks", "values"), ("quant.bytes", "quant.values")] {
            let (bytes, want) =
                (&file[&format!("{ty}.{bytes}")].bytes, file[&format!("{ty}.{values}")].f32());
            let mut got = vec![0f32; want.len()];
            (kernels.dequantize)(bytes, &mut got);
            for (i, (want, got)) in want.iter().zip(&got).enumerate() {
                assert!(same(*want, *got), "{ty} value {i}: {got} for {want}");
            }
        }
    }
}
