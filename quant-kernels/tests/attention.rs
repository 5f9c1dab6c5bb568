//! Attention: every tier and every way of cutting the work gives the specification's bits, and the right values.

use half::f16;
use proptest::prelude::*;
use quant_kernels::Isa;
use quant_kernels::attention::{
    AttentionScratch, AttentionTask, KeyPage, PAGE, QueryVariants, SPAN, ValueDomains, ValuePage, attend,
    attend_span, merge_spans,
};

/// Reproducible values in -2..2, some of them tiny.
fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let x = (state >> 40) as f32 / (1 << 22) as f32 - 2.0;
            if state & 63 == 0 { x * 1e-6 } else { x }
        })
        .collect()
}

#[derive(Debug, Clone)]
struct Case {
    f16: bool,
    group: usize,
    dk: usize,
    dv: usize,
    tokens: usize,
    first: usize,
    window: Option<usize>,
    seed: u64,
}

struct Data {
    case: Case,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    k16: Vec<f16>,
    v16: Vec<f16>,
}

impl Data {
    fn new(case: Case) -> Self {
        let positions = (case.first + case.tokens).next_multiple_of(PAGE);
        let q = values(case.seed, case.tokens * (case.group * case.dk + 3) + 5);
        let (mut k, mut v) =
            (values(case.seed + 1, positions * case.dk), values(case.seed + 2, positions * case.dv));
        let (k16, v16): (Vec<_>, Vec<_>) =
            (k.iter().map(|x| f16::from_f32(*x)).collect(), v.iter().map(|x| f16::from_f32(*x)).collect());
        if case.f16 {
            k = k16.iter().map(|x| x.to_f32()).collect();
            v = v16.iter().map(|x| x.to_f32()).collect();
        }
        Self { case, q, k, v, k16, v16 }
    }

    fn keys(&self) -> Vec<KeyPage<'_>> {
        let len = PAGE * self.case.dk;
        if self.case.f16 {
            self.k16.chunks(len).map(KeyPage::F16).collect()
        } else {
            self.k.chunks(len).map(KeyPage::F32).collect()
        }
    }

    fn values(&self) -> Vec<ValuePage<'_>> {
        let len = PAGE * self.case.dv;
        if self.case.f16 {
            self.v16.chunks(len).map(ValuePage::F16).collect()
        } else {
            self.v.chunks(len).map(ValuePage::F32).collect()
        }
    }

    fn with<T>(&self, tokens: std::ops::Range<usize>, run: impl FnOnce(&AttentionTask<'_>) -> T) -> T {
        let case = &self.case;
        let stride = case.group * case.dk + 3;
        run(&AttentionTask {
            q: &self.q[tokens.start * stride..],
            q_stride: stride,
            q_offset: 2,
            group: case.group,
            dk: case.dk,
            dv: case.dv,
            tokens: tokens.len(),
            first_position: case.first + tokens.start,
            window: case.window,
            k: &self.keys(),
            v: &self.values(),
            domains: ValueDomains::none(),
            variants: QueryVariants::default(),
            scale: 1.0 / (case.dk as f32).sqrt(),
        })
    }

    fn attend(&self, isa: Isa, tokens: std::ops::Range<usize>) -> Vec<f32> {
        self.with(tokens, |task| {
            let mut out = vec![f32::NAN; task.out_len()];
            attend(isa, task, &mut AttentionScratch::default(), &mut out);
            out
        })
    }

    /// Plain softmax attention in f64.
    fn exact(&self) -> Vec<f64> {
        let case = &self.case;
        let stride = case.group * case.dk + 3;
        let scale = f64::from(1.0 / (case.dk as f32).sqrt());
        let mut out = Vec::new();
        for t in 0..case.tokens {
            for g in 0..case.group {
                let q = &self.q[t * stride + 2 + g * case.dk..][..case.dk];
                let end = case.first + t + 1;
                let start = case.window.map_or(0, |w| end.saturating_sub(w));
                let weights: Vec<f64> = (start..end)
                    .map(|p| {
                        let k = &self.k[p * case.dk..][..case.dk];
                        let dot: f64 = q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                        (dot * scale).exp()
                    })
                    .collect();
                let sum: f64 = weights.iter().sum();
                out.extend((0..case.dv).map(|i| {
                    let at = |(p, w): (usize, &f64)| w * f64::from(self.v[(start + p) * case.dv + i]);
                    weights.iter().enumerate().map(at).sum::<f64>() / sum
                }));
            }
        }
        out
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
}

fn case() -> impl Strategy<Value = Case> {
    let dims = prop::sample::select(vec![1, 3, 8, 16, 17, 48, 64, 80, 96, 128, 256]);
    let first = prop_oneof![0usize..300, SPAN - 40..SPAN + 40, 2 * SPAN - 3..2 * SPAN + 200];
    let window = prop_oneof![3 => Just(None), 1 => (1usize..200).prop_map(Some), 1 => (SPAN - 9..SPAN + 9).prop_map(Some)];
    (any::<bool>(), 1usize..9, dims.clone(), dims, 1usize..24, first, window, any::<u32>()).prop_map(
        |(f16, group, dk, dv, tokens, first, window, seed)| Case {
            f16,
            group,
            dk,
            dv,
            tokens,
            first,
            window,
            seed: seed.into(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48.min(ProptestConfig::default().cases), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_tier_and_cut_has_the_scalar_bits(case in case(), cut in 0usize..24) {
        let tokens = case.tokens;
        let row = case.group * case.dv;
        let data = Data::new(case);
        let expected = data.attend(Isa::Scalar, 0..tokens);
        for isa in Isa::available() {
            let together = data.attend(isa, 0..tokens);
            prop_assert_eq!(bits(&together), bits(&expected), "{}", isa);
            // a batch cut in two, and one token alone
            let cut = cut.min(tokens);
            let mut parts = data.attend(isa, 0..cut);
            parts.extend(data.attend(isa, cut..tokens));
            prop_assert_eq!(bits(&parts), bits(&expected), "{} cut at {}", isa, cut);
            let alone = data.attend(isa, tokens - 1..tokens);
            prop_assert_eq!(bits(&alone), bits(&expected[(tokens - 1) * row..]), "{} alone", isa);
            // spans apart, computed in descending order
            let merged = data.with(0..tokens, |task| {
                let len = task.partial_len();
                let spans = task.spans();
                let mut partials = vec![f32::NAN; len * spans.len()];
                let mut scratch = AttentionScratch::default();
                for (i, span) in spans.enumerate().collect::<Vec<_>>().into_iter().rev() {
                    attend_span(isa, task, span, &mut scratch, &mut partials[i * len..][..len]);
                }
                let mut out = vec![f32::NAN; task.out_len()];
                merge_spans(isa, task, &partials, &mut scratch, &mut out);
                out
            });
            prop_assert_eq!(bits(&merged), bits(&expected), "{} by spans", isa);
        }
    }

    #[test]
    fn values_are_those_of_softmax_attention(case in case()) {
        let data = Data::new(case);
        let exact = data.exact();
        let got = data.attend(Isa::detect(), 0..data.case.tokens);
        for (got, exact) in got.iter().zip(&exact) {
            prop_assert!((f64::from(*got) - exact).abs() < 2e-5, "{} {}", got, exact);
        }
    }
}

#[test]
fn what_is_not_seen_is_not_read() {
    let case = Case { f16: true, group: 2, dk: 32, dv: 32, tokens: 3, first: 400, window: Some(70), seed: 7 };
    let data = Data::new(case);
    let expected = data.attend(Isa::Scalar, 0..3);
    let mut hidden = Data::new(data.case.clone());
    for p in (0..331).chain(403..512) {
        hidden.k16[p * 32..][..32].fill(f16::NAN);
        hidden.v16[p * 32..][..32].fill(f16::NAN);
    }
    for isa in Isa::available() {
        assert_eq!(bits(&hidden.attend(isa, 0..3)), bits(&expected), "{isa}");
        // pages below the window may be gone, and the last one may end with the last position
        data.with(0..3, |task| {
            let (mut k, mut v) = (task.k.to_vec(), task.v.to_vec());
            k[..2].fill(KeyPage::F16(&[]));
            v[..2].fill(ValuePage::F16(&[]));
            if let (KeyPage::F16(keys), ValuePage::F16(values)) = (k[3], v[3]) {
                k[3] = KeyPage::F16(&keys[..(403 - 384) * 32]);
                v[3] = ValuePage::F16(&values[..(403 - 384) * 32]);
            }
            let task = AttentionTask { k: &k, v: &v, ..*task };
            let mut out = vec![0.0; task.out_len()];
            attend(isa, &task, &mut AttentionScratch::default(), &mut out);
            assert_eq!(bits(&out), bits(&expected), "{isa}");
        });
    }
}

#[test]
fn nan_and_infinity_come_out_as_nan_in_their_row_alone() {
    let case = Case { f16: false, group: 3, dk: 16, dv: 8, tokens: 5, first: 20, window: None, seed: 3 };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut data = Data::new(case.clone());
        let stride = case.group * case.dk + 3;
        // token 2, head 1
        data.q[2 * stride + 2 + 16..][..16].fill(bad);
        let expected = data.attend(Isa::Scalar, 0..5);
        for isa in Isa::available() {
            let out = data.attend(isa, 0..5);
            assert_eq!(bits(&out), bits(&expected), "{isa} {bad}");
            for (row, out) in out.chunks(8).enumerate() {
                assert_eq!(out.iter().all(|x| x.is_nan()), row == 2 * 3 + 1, "{isa} {bad} row {row}");
            }
        }
    }
}
