//! Quantization of every type: errors beside ggml's on generated data, hostile values, threads, refusals.

use proptest::prelude::*;
use quant_kernels::types::quantize::limit;
use quant_kernels::{Error, GgmlType, Isa, Kernels, Serial, Team, types};

const ROWS: usize = 8;
const COLS: usize = 1024;
const CASES: [&str; 4] = ["gaussian", "heavy-tailed", "outlier-channels", "smooth"];

/// The generator of `fixtures/oracle/gen/quantize.c`, bit for bit.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In [0, 1), 24 bits.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 40) as f64 / 16_777_216.0
    }

    /// Nearly normal: the sum of twelve uniforms.
    fn normal(&mut self) -> f64 {
        (0..12).fold(-6.0, |sum, _| sum + self.uniform())
    }

    fn value(&mut self, kind: usize, row: usize, col: usize) -> f32 {
        let value = match kind {
            0 => 0.05 * self.normal(),
            1 => 0.02 * self.normal() / (self.uniform() + 0.05),
            2 => 0.05 * self.normal() * if col % 37 == 5 { 16.0 } else { 1.0 },
            _ => {
                let t = (col + 100 * row) as f64 / 96.0;
                let u = t - t.floor();
                0.3 * (u * (1.0 - u) * (u - 0.3)) + 0.001 * self.normal() + 0.01
            }
        };
        value as f32
    }
}

/// Values and importances of a case.
fn data(kind: usize) -> (Vec<f32>, Vec<f32>) {
    let mut random = Random(1000 + kind as u64);
    let importance = (0..COLS)
        .map(|_| {
            let n = random.normal();
            ((n * n + 0.001) / (random.uniform() + 0.02)) as f32
        })
        .collect();
    let values = (0..ROWS * COLS).map(|i| random.value(kind, i / COLS, i % COLS)).collect();
    (values, importance)
}

fn kernels() -> Kernels {
    Kernels::new(Isa::Scalar)
}

/// Every type with arithmetic.
fn all_types() -> Vec<GgmlType> {
    types::table(Isa::Scalar).iter().map(|kernels| kernels.ty).collect()
}

fn quantized(ty: GgmlType, cols: usize, values: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let mut out = vec![0xAA; values.len() / cols * ty.row_bytes(cols)];
    kernels().quantize(&Serial, ty, cols, values, importance, &mut out).expect("valid input");
    out
}

/// The values that blocks stand for.
fn values_of(ty: GgmlType, blocks: &[u8]) -> Vec<f32> {
    let mut out = vec![f32::NAN; blocks.len() / ty.block_bytes() * ty.block_len()];
    (kernels().of(ty).expect("a type with kernels").dequantize)(blocks, &mut out);
    out
}

fn round_trip(ty: GgmlType, cols: usize, values: &[f32], importance: Option<&[f32]>) -> Vec<f32> {
    values_of(ty, &quantized(ty, cols, values, importance))
}

/// Root mean squared errors as the oracle program measures them: plain, weighted by importance, and by
/// `importance * sqrt(2 sigma^2 + x^2)`, the weighting of most of ggml's searches.
fn errors(values: &[f32], back: &[f32], importance: &[f32]) -> [f64; 3] {
    let (mut sums, mut weights) = ([0.0; 3], [0.0; 3]);
    for (block, (values, back)) in values.chunks(256).zip(back.chunks(256)).enumerate() {
        let sigma2: f64 = values.iter().map(|&v| 2.0 * f64::from(v) * f64::from(v) / 256.0).sum();
        for (i, (&v, &b)) in values.iter().zip(back).enumerate() {
            let (v, w) = (f64::from(v), f64::from(importance[(block * 256 + i) % COLS]));
            let e = f64::from(b) - v;
            for (k, w) in [1.0, w, w * (sigma2 + v * v).sqrt()].into_iter().enumerate() {
                sums[k] += w * e * e;
                weights[k] += w;
            }
        }
    }
    std::array::from_fn(|k| (sums[k] / weights[k]).sqrt())
}

/// Without importances the root mean squared error, with them the weighted one: never above ggml's. Where ggml's is the
/// best there is (F16, BF16, Q1_0 without importances) the two may differ by the rounding of the JSON and of one f16.
#[test]
fn errors_are_no_larger_than_those_of_ggml() {
    let golden = quant_fixtures::json(&quant_fixtures::committed("oracle/quantize.json"));
    let mut worse = Vec::new();
    for (kind, case) in CASES.into_iter().enumerate() {
        let (values, importance) = data(kind);
        for ty in all_types() {
            let Some(golden) = golden[case].get(ty.name()) else { continue };
            for (mode, given, metric) in [("plain", None, 0), ("importance", Some(&importance[..]), 1)] {
                let ours = errors(&values, &round_trip(ty, COLS, &values, given), &importance)[metric];
                let theirs = golden[mode][metric].as_f64().expect("a number");
                if ours > theirs * (1.0 + 1e-6) {
                    worse.push(format!("{case} {ty} {mode}: {ours:.6e}, ggml {theirs:.6e}"));
                }
            }
        }
    }
    assert!(worse.is_empty(), "{worse:#?}");
}

/// Bounds of the weighted error in itself, so that a golden file that is wrong shows: a code of b bits on normal values
/// errs by about 2^-b of their size, more where scales are coarse.
#[test]
fn more_bits_mean_less_error() {
    let (values, importance) = data(0);
    let error =
        |ty| errors(&values, &round_trip(ty, COLS, &values, Some(&importance)), &importance)[1] / 0.05;
    use GgmlType::{BF16, IQ1_S, IQ2_XXS, IQ3_S, IQ3_XXS, Q2_K, Q4_K, Q5_K, Q6_K, Q8_0};
    let ladder = [IQ1_S, IQ2_XXS, Q2_K, IQ3_XXS, IQ3_S, Q4_K, Q5_K, Q6_K, Q8_0, BF16].map(error);
    assert!(ladder.is_sorted_by(|a, b| a > b), "{ladder:?}");
    assert!(ladder[0] < 0.5 && ladder[5] < 0.06 && ladder[8] < 0.005, "{ladder:?}");
}

/// What a type can hold exactly comes back exactly: its own values, quantized again.
#[test]
fn own_values_survive() {
    use GgmlType::{BF16, F16, F32, MXFP4, NVFP4, Q1_0, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
    let (values, _) = data(0);
    for ty in [F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, MXFP4, NVFP4, Q1_0] {
        let once = round_trip(ty, COLS, &values, None);
        let twice = round_trip(ty, COLS, &once, None);
        let size = once.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (once, twice) in once.iter().zip(&twice) {
            assert!((once - twice).abs() <= size * 2e-3, "{ty}: {once} became {twice}");
        }
    }
    // Ternary weights, as BitNet has them, keep their scale and their signs.
    let ternary: Vec<f32> = values.iter().map(|v| (v * 20.0).round().clamp(-1.0, 1.0) * 0.0625).collect();
    for ty in [GgmlType::TQ1_0, GgmlType::TQ2_0, GgmlType::Q2_0] {
        assert_eq!(round_trip(ty, COLS, &ternary, None), ternary, "{ty}");
    }
}

/// Zero is zero, negative zero and subnormals included, even in types that have no code for it: the scale is zero.
#[test]
fn zeros_and_subnormals() {
    let smallest = f32::from_bits(1);
    for ty in all_types() {
        for value in [0.0, -0.0, smallest, -smallest, f32::MIN_POSITIVE / 2.0] {
            for importance in
                [None, Some(&[0.0; 256][..]), Some(&[smallest; 256][..]), Some(&[f32::MAX; 256])]
            {
                let back = round_trip(ty, 256, &[value; 256], importance);
                assert!(
                    back.iter().all(|b| b.abs() <= 2.0 * value.abs()),
                    "{ty}: {value:e} became {:?}",
                    back[0]
                );
            }
        }
    }
}

/// Rows of one value: every type but those without a fitting level is near it.
#[test]
fn constant_rows() {
    for ty in all_types() {
        for value in [1.0, -0.3, 1000.0, 3e-3] {
            let back = round_trip(ty, 256, &[value; 256], None);
            // A scale that is a power of two; elsewhere an offset of an eighth, or whole steps of scales.
            let tolerance = if ty == GgmlType::MXFP4 { 0.2 } else { 0.07 };
            for back in back {
                assert!((back - value).abs() <= tolerance * f32::abs(value), "{ty}: {value} became {back}");
            }
        }
    }
}

/// Values at the limit of a type stay finite; beyond it they are refused.
#[test]
fn the_largest_values() {
    for ty in all_types() {
        let limit = limit(ty);
        let values: Vec<f32> = (0..256).map(|i| if i % 2 == 0 { limit } else { -limit }).collect();
        let back = round_trip(ty, 256, &values, None);
        assert!(back.iter().all(|b| b.is_finite()), "{ty}");
        let refused = |value: f32| {
            let (mut values, mut out) = (vec![0.0; 512], vec![0; 2 * ty.row_bytes(256)]);
            values[256 + 3] = value;
            kernels().quantize(&Serial, ty, 256, &values, None, &mut out)
        };
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, limit * 1.01] {
            assert_eq!(refused(value), Err(Error::ValueRange { ty, row: 1, col: 3 }), "{ty} {value}");
        }
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let kernels = kernels();
    let run = |ty, cols, values: usize, importance: Option<&[f32]>, out: usize| {
        kernels.quantize(&Serial, ty, cols, &vec![0.0; values], importance, &mut vec![0; out])
    };
    let ty = GgmlType::Q4_K;
    assert_eq!(run(ty, 256, 512, None, 288), Ok(()));
    assert_eq!(run(ty, 256, 0, None, 0), Ok(()));
    assert_eq!(run(ty, 32, 512, None, 288), Err(Error::RowLength { ty, cols: 32, block: 256 }));
    assert_eq!(run(ty, 0, 0, None, 0), Err(Error::RowLength { ty, cols: 0, block: 256 }));
    assert!(matches!(run(ty, 256, 500, None, 288), Err(Error::Length { expected: 256, got: 500, .. })));
    assert!(matches!(run(ty, 256, 512, None, 287), Err(Error::Length { expected: 288, got: 287, .. })));
    assert!(matches!(run(ty, 256, 512, Some(&[1.0; 512]), 288), Err(Error::Length { expected: 256, .. })));
    for bad in [-1.0, f32::NAN, f32::INFINITY] {
        let mut importance = [1.0; 256];
        importance[7] = bad;
        assert_eq!(run(ty, 256, 512, Some(&importance), 288), Err(Error::Importance { col: 7 }));
    }
    assert_eq!(run(GgmlType::I8, 256, 512, None, 512), Err(Error::NoKernel { ty: GgmlType::I8 }));
}

/// Values of all magnitudes, negative zeros and subnormals among them.
fn hostile() -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![
        4 => -1f32..1.0,
        2 => any::<f32>().prop_map(|v| if v.is_finite() { v.clamp(-2000.0, 2000.0) } else { -0.0 }),
        1 => Just(0.0),
    ];
    proptest::collection::vec(value, 512)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Finite values come back finite and no larger than they were but for the rounding of a scale; and a row's bytes
    /// depend on nothing around it.
    #[test]
    fn finite_in_finite_out(values in hostile(), weights in proptest::collection::vec(0f32..100.0, 256)) {
        let weights: Vec<f32> = weights.iter().map(|w| if *w < 20.0 { 0.0 } else { *w }).collect();
        for ty in all_types() {
            for importance in [None, Some(&weights[..])] {
                let both = quantized(ty, 256, &values, importance);
                let (first, second) = both.split_at(ty.row_bytes(256));
                prop_assert_eq!(first, &quantized(ty, 256, &values[..256], importance)[..], "{}", ty);
                prop_assert_eq!(second, &quantized(ty, 256, &values[256..], importance)[..], "{}", ty);
                let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
                for back in values_of(ty, &both) {
                    prop_assert!(back.abs() <= 2.0 * largest, "{}: {} from at most {}", ty, back, largest);
                }
            }
        }
    }
}

/// Any number of threads, any tier: the same bytes, and the same refusal.
#[test]
fn bytes_do_not_depend_on_threads() {
    let (values, importance) = data(1);
    for ty in all_types() {
        let wanted = quantized(ty, 256, &values, Some(&importance[..256]));
        for threads in [1, 2, 3] {
            let team = Team::new(threads).expect("threads");
            let mut out = vec![0; wanted.len()];
            let kernels = Kernels::new(Isa::detect());
            kernels
                .quantize(&team, ty, 256, &values, Some(&importance[..256]), &mut out)
                .expect("valid input");
            assert!(out == wanted, "{ty} on {threads} threads");
        }
    }
    let mut values = values;
    (values[300], values[8000]) = (f32::NAN, f32::NAN);
    let team = Team::new(2).expect("threads");
    let mut out = vec![0; GgmlType::Q8_0.row_bytes(values.len())];
    let refused = kernels().quantize(&team, GgmlType::Q8_0, 256, &values, None, &mut out);
    assert_eq!(refused, Err(Error::ValueRange { ty: GgmlType::Q8_0, row: 1, col: 44 }));
}
