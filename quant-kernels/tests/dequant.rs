//! Every type against ggml's own values, and every dot product against the values it stands for.

use proptest::prelude::*;
use quant_kernels::activations::{ActKind, Acts};
use quant_kernels::types::{self, DequantizeFn, TypeKernels};
use quant_kernels::{GgmlType, Isa};
use std::collections::BTreeMap;

/// Types that no weight has: decoded, not multiplied.
const ACTIVATION_TYPES: [(GgmlType, DequantizeFn); 2] =
    [(GgmlType::Q8_1, types::q8_1::dequantize), (GgmlType::Q8_K, types::q8_k::dequantize)];

/// Values to blocks.
type QuantizeFn = fn(&[f32], &mut [u8]);

/// Types whose quantization equals ggml's byte for byte.
const QUANTIZERS: [(GgmlType, QuantizeFn); 10] = [
    (GgmlType::Q4_1, types::q4_1::quantize),
    (GgmlType::Q5_0, types::q5_0::quantize),
    (GgmlType::Q5_1, types::q5_1::quantize),
    (GgmlType::IQ4_NL, types::iq4_nl::quantize),
    (GgmlType::TQ1_0, types::tq1_0::quantize),
    (GgmlType::TQ2_0, types::tq2_0::quantize),
    (GgmlType::MXFP4, types::mxfp4::quantize),
    (GgmlType::NVFP4, types::nvfp4::quantize),
    (GgmlType::Q1_0, types::q1_0::quantize),
    (GgmlType::Q2_0, types::q2_0::quantize),
];

/// The golden file, or `None` where it is absent.
fn golden() -> Option<BTreeMap<String, quant_fixtures::Tensor>> {
    let folder = quant_fixtures::oracle("dequant")?;
    Some(quant_fixtures::safetensors(&folder.join("dequant.safetensors")))
}

/// Every dequantizer that the goldens know: F32 is plain and has none.
fn dequantizers() -> Vec<(GgmlType, DequantizeFn)> {
    types::table(Isa::Scalar)
        .into_iter()
        .filter(|kernels| kernels.ty != GgmlType::F32)
        .map(|kernels| (kernels.ty, kernels.dequantize))
        .chain(ACTIVATION_TYPES)
        .collect()
}

fn assert_same_bits(what: &str, got: &[f32], wanted: &[f32]) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let same = got.to_bits() == wanted.to_bits() || got.is_nan() && wanted.is_nan();
        assert!(same, "{what}: value {i} is {got:e}, ggml's is {wanted:e}");
    }
}

#[test]
fn dequantization_equals_ggml_bit_for_bit() {
    let Some(golden) = golden() else { return };
    for (ty, dequantize) in dequantizers() {
        let tensor = |what: &str| {
            golden.get(&format!("{ty}.{what}")).unwrap_or_else(|| panic!("{ty}.{what} is not in the goldens"))
        };
        let (blocks, values) = (tensor("blocks"), tensor("values").f32());
        let mut out = vec![f32::NAN; blocks.bytes.len() / ty.block_bytes() * ty.block_len()];
        dequantize(&blocks.bytes, &mut out);
        assert_same_bits(ty.name(), &out, &values);
        for tag in ["quant", "quant.imatrix"] {
            let Some(blocks) = golden.get(&format!("{ty}.{tag}.bytes")) else { continue };
            let mut out = vec![f32::NAN; blocks.bytes.len() / ty.block_bytes() * ty.block_len()];
            dequantize(&blocks.bytes, &mut out);
            assert_same_bits(&format!("{ty}.{tag}"), &out, &tensor(&format!("{tag}.values")).f32());
        }
    }
}

#[test]
fn quantization_equals_ggml_byte_for_byte() {
    let Some(golden) = golden() else { return };
    let input = golden["quant.input"].f32();
    for (ty, quantize) in QUANTIZERS {
        let wanted = &golden[&format!("{ty}.quant.bytes")].bytes;
        let mut got = vec![0xAA; input.len() / ty.block_len() * ty.block_bytes()];
        quantize(&input, &mut got);
        let differing = got.iter().zip(wanted).position(|(got, wanted)| got != wanted);
        assert_eq!((got.len(), differing), (wanted.len(), None), "{ty}");
    }
}

/// SplitMix64: bytes of blocks.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In -1..1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// A row of random blocks whose values are finite and far from overflow, with its values.
    fn row(&mut self, kernels: &TypeKernels, cols: usize) -> (Vec<u8>, Vec<f32>) {
        let (mut row, mut values) = (Vec::new(), Vec::new());
        let mut block = vec![0; kernels.ty.block_bytes()];
        let mut out = vec![0f32; kernels.ty.block_len()];
        while values.len() < cols {
            block.iter_mut().for_each(|byte| *byte = self.next() as u8);
            (kernels.dequantize)(&block, &mut out);
            // Comparisons with NaN are false.
            if out.iter().all(|v| v.abs() < 1e20) {
                row.extend_from_slice(&block);
                values.extend_from_slice(&out);
            }
        }
        (row, values)
    }
}

/// Activations `[tokens][cols]` in the form that `kind` asks for.
fn quantize(kind: ActKind, x: &[f32], tokens: usize) -> Acts {
    let cols = x.len() / tokens;
    let mut acts = Acts { kind: Some(kind), tokens, cols, ..Acts::default() };
    if kind == ActKind::F32 {
        acts.x = x.to_vec();
        return acts;
    }
    let len = kind.block_len();
    acts.q = vec![0; x.len()];
    acts.sums = vec![0; x.len() / 16];
    acts.d = vec![0.0; x.len() / len];
    for block in 0..cols / len {
        for token in 0..tokens {
            let at = acts.place(block, token, len);
            acts.d[at] = Acts::quantize_block(
                &x[token * cols + block * len..][..len],
                &mut acts.q[at * len..][..len],
                &mut acts.sums[at * len / 16..][..len / 16],
            );
        }
    }
    acts
}

/// The values that the activations of one token stand for.
fn values_of(acts: &Acts, kind: ActKind, token: usize) -> Vec<f64> {
    if kind == ActKind::F32 {
        return acts.x[token * acts.cols..][..acts.cols].iter().map(|&x| f64::from(x)).collect();
    }
    let len = kind.block_len();
    (0..acts.cols / len)
        .flat_map(|b| {
            let d = f64::from(acts.d[acts.place(b, token, len)]);
            acts.block(b, token, len).iter().map(move |&q| d * f64::from(q))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// On random blocks and activations the dot is the dot of what both stand for, within the rounding of one
    /// multiply-add chain over the blocks.
    #[test]
    fn dot_equals_the_dot_of_the_values(seed: u64, blocks in 1usize..5, tokens in 1usize..3) {
        let mut random = Random(seed);
        for kernels in types::table(Isa::Scalar) {
            let cols = blocks * 256;
            let (row, weights) = random.row(&kernels, cols);
            let x: Vec<f32> = (0..tokens * cols).map(|_| random.float()).collect();
            let acts = quantize(kernels.acts, &x, tokens);
            for token in 0..tokens {
                let got = f64::from((kernels.dot)(&row, &acts, token));
                let x = values_of(&acts, kernels.acts, token);
                let wanted: f64 = weights.iter().zip(&x).map(|(&w, x)| f64::from(w) * x).sum();
                let size: f64 = weights.iter().zip(&x).map(|(&w, x)| (f64::from(w) * x).abs()).sum();
                let steps = (cols / 16 + 8) as f64;
                let limit = size * steps * f64::from(f32::EPSILON) + f64::from(f32::MIN_POSITIVE);
                prop_assert!(
                    (got - wanted).abs() <= limit,
                    "{}: {got:e} instead of {wanted:e}, limit {limit:e}", kernels.ty
                );
            }
        }
    }

    /// Where every operation of the contract but the last is exact (one group of 16 activations, a power of two as
    /// their scale, no minima), the dot is the true value rounded once: no tolerance hides a wrong code or scale.
    #[test]
    fn dot_of_one_group_is_exact(seed: u64, group in 0usize..16) {
        let mut random = Random(seed);
        for kernels in types::table(Isa::Scalar) {
            use GgmlType::{Q2_K, Q4_1, Q4_K, Q5_1, Q5_K};
            if kernels.acts == ActKind::F32 || [Q4_1, Q5_1, Q2_K, Q4_K, Q5_K].contains(&kernels.ty) {
                continue;
            }
            let (row, weights) = random.row(&kernels, 256);
            let mut x = vec![0.0; 256];
            for x in &mut x[16 * group..][..16] {
                *x = (random.next() % 255) as f32 - 127.0;
            }
            x[16 * group] = 127.0;
            let acts = quantize(kernels.acts, &x, 1);
            prop_assert!(acts.d.iter().all(|&d| d == 0.0 || d == 1.0));
            let wanted: f64 = weights.iter().zip(&x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
            let got = (kernels.dot)(&row, &acts, 0);
            prop_assert_eq!(got, wanted as f32, "{}", kernels.ty);
        }
    }
}

/// The largest codes, scales and activations of both signs: the exact sums stay within i32.
#[test]
fn extreme_blocks_do_not_overflow() {
    for kernels in types::table(Isa::Scalar) {
        if kernels.acts == ActKind::F32 {
            continue;
        }
        for fill in [0x00, 0x0F, 0xF0, 0x7F, 0x80, 0xFF] {
            // d is found by dequantizing: bytes that are NaN or infinite as f16 are no test of integers.
            let row = vec![fill; kernels.ty.row_bytes(256)];
            let mut weights = vec![0.0; 256];
            (kernels.dequantize)(&row, &mut weights);
            if !weights.iter().all(|w| w.is_finite()) {
                continue;
            }
            let x: Vec<f32> = weights.iter().map(|&w| if w < 0.0 { -1.0 } else { 1.0 }).collect();
            let acts = quantize(kernels.acts, &x, 1);
            let got = f64::from((kernels.dot)(&row, &acts, 0));
            let wanted: f64 = weights.iter().map(|&w| f64::from(w).abs()).sum();
            assert!((got - wanted).abs() <= wanted * 1e-5, "{} {fill:#x}: {got} {wanted}", kernels.ty);
        }
    }
}
