//! Attention over pages of every form: every tier and every way of cutting the work gives the specification's bits, and
//! the values are those of softmax attention over the decoded pages.

use half::f16;
use proptest::prelude::*;
use quant_kernels::Isa;
use quant_kernels::attention::{
    AttentionScratch, AttentionTask, KeyPage, PAGE, QueryVariants, SPAN, ValueDomains, ValuePage, attend,
    attend_span, merge_spans,
};
use quant_kernels::codecs::{CodecParams, CodecScratch, KeyCodec, RotationKind, ValueCodec, registry};
use std::ops::Range;
use std::sync::Arc;

/// Reproducible values around 0, some of them large.
fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|i| (next() + next() + next()) * if i % 37 == 5 { 3.0 } else { 0.7 }).collect()
}

/// What every page of a task is: the form of keys and values, by their number among the case's codecs; 0 is f16, 1 f32.
#[derive(Debug, Clone)]
struct Case {
    dim: usize,
    group: usize,
    tokens: usize,
    first: usize,
    window: Option<usize>,
    seed: u64,
    /// Codecs of the registry for keys and values.
    codecs: [Vec<usize>; 2],
    /// For each page which forms, and which queries score it.
    pages: Vec<(usize, usize, usize)>,
}

/// Positions that no query of another page sees coded: as a cache seals.
fn sealed(case: &Case) -> usize {
    case.first / PAGE
}

struct Data {
    case: Case,
    queries: Vec<Vec<f32>>,
    /// `[page][PAGE][dim]` as the form decodes.
    k: Vec<Vec<f32>>,
    v: Vec<Vec<f32>>,
    k16: Vec<Vec<f16>>,
    v16: Vec<Vec<f16>>,
    k_codecs: Vec<Box<dyn KeyCodec>>,
    v_codecs: Vec<Arc<dyn ValueCodec>>,
    k_bytes: Vec<Vec<u8>>,
    v_bytes: Vec<Vec<u8>>,
    of_page: Vec<usize>,
    domains: ValueDomains,
}

const Q_PAD: usize = 3;

impl Data {
    fn new(case: Case) -> Self {
        let Case { dim, seed, .. } = case;
        let balance: Vec<f32> = (0..dim).map(|i| if i % 2 == 0 { 1.5 } else { 0.75 }).collect();
        let rotation = if seed % 2 == 0 { RotationKind::HadamardTwice } else { RotationKind::Qr };
        let params = CodecParams { dim, seed: 9, rotation, balance: (seed % 3 == 0).then_some(&*balance) };
        let k_codecs: Vec<_> =
            case.codecs[0].iter().filter_map(|i| (registry()[*i].key)(&params).ok()).collect();
        let v_codecs: Vec<Arc<dyn ValueCodec>> = case.codecs[1]
            .iter()
            .filter_map(|i| Some((registry()[*i].value)(&params).ok()?.into()))
            .collect();
        let pages = (case.first + case.tokens).div_ceil(PAGE);
        let queries =
            (0..3).map(|i| values(seed + i, case.tokens * (case.group * dim + Q_PAD) + 2)).collect();
        let mut data = Self {
            queries,
            k: Vec::new(),
            v: Vec::new(),
            k16: Vec::new(),
            v16: Vec::new(),
            k_bytes: Vec::new(),
            v_bytes: Vec::new(),
            of_page: case.pages.iter().map(|page| page.2).collect(),
            domains: ValueDomains::new(v_codecs.iter().cloned()),
            k_codecs,
            v_codecs,
            case,
        };
        let scratch = &mut CodecScratch::default();
        for page in 0..pages {
            let x = values(seed + 10 + 2 * page as u64, PAGE * dim);
            let y = values(seed + 11 + 2 * page as u64, PAGE * dim);
            let half = |x: &[f32]| x.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>();
            let (kind, _) = data.forms(page);
            let mut bytes = Vec::new();
            let mut decoded = x.clone();
            if let Some(codec) = kind.checked_sub(2).map(|i| &data.k_codecs[i]) {
                bytes.resize(codec.page_bytes(), 0);
                codec.encode(Isa::Scalar, &x, scratch, &mut bytes).unwrap();
                codec.decode(Isa::Scalar, &bytes, scratch, &mut decoded);
            } else if kind == 0 {
                decoded = half(&x).iter().map(|x| x.to_f32()).collect();
            }
            data.k_bytes.push(bytes);
            data.k16.push(half(&x));
            data.k.push(decoded);
            let (_, kind) = data.forms(page);
            let mut bytes = Vec::new();
            let mut decoded = y.clone();
            if let Some(codec) = kind.checked_sub(2).map(|i| &data.v_codecs[i]) {
                bytes.resize(codec.page_bytes(), 0);
                codec.encode(Isa::Scalar, &y, scratch, &mut bytes).unwrap();
                codec.decode(Isa::Scalar, &bytes, scratch, &mut decoded);
            } else if kind == 0 {
                decoded = half(&y).iter().map(|x| x.to_f32()).collect();
            }
            data.v_bytes.push(bytes);
            data.v16.push(half(&y));
            data.v.push(decoded);
        }
        data
    }

    /// The forms of a page: coded ones only where a cache may have sealed.
    fn forms(&self, page: usize) -> (usize, usize) {
        let (k, v, _) = self.case.pages[page % self.case.pages.len()];
        if page >= sealed(&self.case) {
            return (k.min(1), v.min(1));
        }
        // not every codec has every head size
        (k.min(1 + self.k_codecs.len()), v.min(1 + self.v_codecs.len()))
    }

    fn with<T>(&self, tokens: Range<usize>, run: impl FnOnce(&AttentionTask<'_>) -> T) -> T {
        let case = &self.case;
        let pages = 0..self.k.len();
        let keys: Vec<_> = pages
            .clone()
            .map(|p| match self.forms(p).0 {
                0 => KeyPage::F16(&self.k16[p]),
                1 => KeyPage::F32(&self.k[p]),
                i => KeyPage::Coded { codec: &*self.k_codecs[i - 2], bytes: &self.k_bytes[p] },
            })
            .collect();
        let values: Vec<_> = pages
            .map(|p| match self.forms(p).1 {
                0 => ValuePage::F16(&self.v16[p]),
                1 => ValuePage::F32(&self.v[p]),
                i => ValuePage::Coded { codec: &*self.v_codecs[i - 2], bytes: &self.v_bytes[p] },
            })
            .collect();
        let stride = case.group * case.dim + Q_PAD;
        let queries: Vec<&[f32]> = self.queries.iter().map(|q| &q[tokens.start * stride..]).collect();
        run(&AttentionTask {
            q: queries[0],
            q_stride: stride,
            q_offset: 2,
            group: case.group,
            dk: case.dim,
            dv: case.dim,
            tokens: tokens.len(),
            first_position: case.first + tokens.start,
            window: case.window,
            k: &keys,
            v: &values,
            domains: &self.domains,
            variants: QueryVariants { queries: &queries[1..], of_page: &self.of_page },
            scale: 1.0 / (case.dim as f32).sqrt(),
        })
    }

    fn attend(&self, isa: Isa, tokens: Range<usize>) -> Vec<f32> {
        self.with(tokens, |task| {
            let mut out = vec![f32::NAN; task.out_len()];
            attend(isa, task, &mut AttentionScratch::default(), &mut out);
            out
        })
    }

    /// Softmax attention in f64 over what the pages decode to; and how far off the integers may be.
    ///
    /// A query's channels are rounded to 127 steps of the largest, which is 4.5 times the usual one at most, and that
    /// moves a score by `sigma`; weights are rounded to 16256 steps. Such errors are independent, so that of an output
    /// grows with the root of the squares of what each position brings to it; eight times that never happens.
    fn exact(&self) -> Vec<(f64, f64)> {
        let Case { dim, group, tokens, first, window, .. } = self.case;
        let stride = group * dim + Q_PAD;
        let scale = f64::from(1.0 / (dim as f32).sqrt());
        let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let mut out = Vec::new();
        for row in 0..tokens * group {
            let (t, g) = (row / group, row % group);
            let end = first + t + 1;
            let start = window.map_or(0, |window| end.saturating_sub(window));
            let mut sigma = 0f64;
            let mut weight = |p: usize| {
                let set = self.of_page.get(p / PAGE).copied().unwrap_or(0);
                let q = &self.queries[set][t * stride + 2 + g * dim..][..dim];
                let k = &self.k[p / PAGE][p % PAGE * dim..][..dim];
                // balanced channels are up to twice as far apart
                let step = 2.0 * 4.5 * norm(q) / (dim as f64).sqrt() / 127.0;
                sigma = sigma.max(scale * step / 12f64.sqrt() * norm(k));
                (scale * q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()).exp()
            };
            let weights: Vec<f64> = (start..end).map(&mut weight).collect();
            let sum: f64 = weights.iter().sum();
            let largest = weights.iter().copied().fold(0.0, f64::max) / sum;
            out.extend((0..dim).map(|i| {
                let value = |p: usize| f64::from(self.v[p / PAGE][p % PAGE * dim + i]);
                let exact = (start..end).zip(&weights).map(|(p, w)| w * value(p)).sum::<f64>() / sum;
                let (mut moved, mut squares) = (0.0, 0.0);
                for (p, w) in (start..end).zip(&weights) {
                    moved += (w / sum * (value(p) - exact)).powi(2);
                    squares += value(p).powi(2);
                }
                let weights = 2.0 * largest / 16256.0 / 12f64.sqrt() * squares.sqrt();
                (exact, 8.0 * (sigma * moved.sqrt() + weights) + 1e-5)
            }));
        }
        out
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
}

/// Cases of codecs whose arithmetic is all integers and of all others.
fn case(dims: Vec<usize>) -> impl Strategy<Value = Case> {
    let codec = || prop_oneof![0..7usize, 0..registry().len()];
    let codecs = || proptest::collection::vec(codec(), 1..3);
    let first = prop_oneof![130usize..900, SPAN - 130..SPAN + 130, 2 * SPAN..2 * SPAN + 300];
    let window = prop_oneof![3 => Just(None), 1 => (1usize..700).prop_map(Some), 1 => (SPAN - 9..SPAN + 9).prop_map(Some)];
    let page = (0usize..4, 0usize..4, prop_oneof![3 => Just(0usize), 1 => 0usize..3]);
    let shape = (prop::sample::select(dims), 1usize..9, 1usize..24);
    (shape, first, window, any::<u32>(), [codecs(), codecs()], proptest::collection::vec(page, 1..40))
        .prop_map(|((dim, group, tokens), first, window, seed, codecs, pages)| {
            // no task of a cache straddles the end of a page
            let tokens = tokens.min(PAGE - first % PAGE);
            Case { dim, group, tokens, first, window, seed: seed.into(), codecs, pages }
        })
}

/// Every tier, every cut of the tokens, spans apart: one answer.
fn one_answer(data: &Data, cut: usize) -> Result<(), TestCaseError> {
    let tokens = data.case.tokens;
    let expected = data.attend(Isa::Scalar, 0..tokens);
    for isa in Isa::available() {
        prop_assert_eq!(bits(&data.attend(isa, 0..tokens)), bits(&expected), "{}", isa);
        let cut = cut.min(tokens);
        let mut parts = data.attend(isa, 0..cut);
        parts.extend(data.attend(isa, cut..tokens));
        prop_assert_eq!(bits(&parts), bits(&expected), "{} cut at {}", isa, cut);
        let alone = data.attend(isa, tokens - 1..tokens);
        let last = &expected[(tokens - 1) * data.case.group * data.case.dim..];
        prop_assert_eq!(bits(&alone), bits(last), "{} alone", isa);
        let merged = data.with(0..tokens, |task| {
            let len = task.partial_len();
            let mut partials = vec![f32::NAN; len * task.spans().len()];
            let mut scratch = AttentionScratch::default();
            for (i, span) in task.spans().enumerate().collect::<Vec<_>>().into_iter().rev() {
                attend_span(isa, task, span, &mut scratch, &mut partials[i * len..][..len]);
            }
            let mut out = vec![f32::NAN; task.out_len()];
            merge_spans(isa, task, &partials, &mut scratch, &mut out);
            out
        });
        prop_assert_eq!(bits(&merged), bits(&expected), "{} by spans", isa);
    }
    Ok(())
}

fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: cases.min(default.cases), failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn every_tier_and_cut_has_the_scalar_bits(case in case(vec![64, 80, 96, 112, 128, 192]), cut in 0usize..24) {
        one_answer(&Data::new(case), cut)?;
    }

    #[test]
    fn values_are_those_of_attention_over_decoded_pages(case in case(vec![64, 128])) {
        let data = Data::new(case);
        let got = data.attend(Isa::detect(), 0..data.case.tokens);
        for (got, (exact, tolerance)) in got.iter().zip(&data.exact()) {
            prop_assert!((f64::from(*got) - exact).abs() < *tolerance, "{got} {exact} {tolerance}");
        }
    }
}

/// Every head size with planes of every width, as many rows as a pass quantizes for four pages and for fewer, and more
/// pages than a pass has.
#[test]
fn every_head_size_has_the_scalar_bits() {
    let planes = |bits: usize| registry().iter().position(|entry| entry.name == format!("planes-{bits}"));
    for (i, dim) in [64, 80, 96, 112, 128, 192, 256, 512].into_iter().enumerate() {
        for (j, group) in [1, 2, 3, 6].into_iter().enumerate() {
            let (k, v) = (2 + (2 * i + j) % 7, 2 + (i + 3 * j) % 7);
            let codecs = [planes(k), planes(v)].map(|codec| codec.into_iter().collect());
            let case = Case {
                dim,
                group,
                tokens: 1,
                first: 6 * PAGE + 5,
                window: None,
                seed: 2 + i as u64,
                codecs,
                // the third page keeps its keys as they were: runs end before it
                pages: vec![(2, 2, 0), (2, 2, 0), (0, 2, 0), (2, 2, 0), (2, 2, 1), (2, 2, 0), (0, 0, 0)],
            };
            let data = Data::new(case);
            let expected = data.attend(Isa::Scalar, 0..1);
            for isa in Isa::available() {
                let got = data.attend(isa, 0..1);
                assert_eq!(bits(&got), bits(&expected), "{isa}: head {dim}, group {group}, {k} and {v} bits");
            }
        }
    }
}

/// An encoder's tiers agree on pages that are hard to code: a token far larger than the others, constant channels,
/// channels of zeros, numbers too small for halves.
#[test]
fn every_tier_encodes_the_same_planes() {
    for entry in registry().iter().filter(|entry| entry.name.starts_with("planes-")) {
        for dim in [64, 112, 128, 192] {
            let params = CodecParams::new(dim, 7);
            let (keys, values) = ((entry.key)(&params).unwrap(), (entry.value)(&params).unwrap());
            for hard in 0..4 {
                let x = values_of(hard, dim);
                let scratch = &mut CodecScratch::default();
                let mut encode = |isa: Isa, x: &[f32]| {
                    let (mut k, mut v) = (vec![0; keys.page_bytes()], vec![0; values.page_bytes()]);
                    keys.encode(isa, x, scratch, &mut k).unwrap();
                    values.encode(isa, x, scratch, &mut v).unwrap();
                    (k, v)
                };
                let expected = encode(Isa::Scalar, &x);
                for isa in Isa::available() {
                    assert!(encode(isa, &x) == expected, "{isa}: {} of {dim}, page {hard}", entry.name);
                }
            }
        }
    }
}

/// A page of numbers, hard to code in one of four ways.
fn values_of(hard: u64, dim: usize) -> Vec<f32> {
    let mut x = values(50 + hard, PAGE * dim);
    for (i, x) in x.iter_mut().enumerate() {
        let (token, channel) = (i / dim, i % dim);
        match hard {
            0 if token == 9 => *x *= 300.0,
            1 => *x = 1.0 + *x * 1e-7,
            2 if channel % 3 == 0 || token > 100 => *x = 0.0,
            3 => *x *= if channel == 1 { 1.0 } else { 1e-12 },
            _ => {}
        }
    }
    x
}
