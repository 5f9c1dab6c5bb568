//! Scores and sums against the decoded page; the plane codecs against their formula; every tier against scalar.

use crate::common::{Random, Source, decode_keys, dot, encode_keys, scores, unit_vectors, weighted};
use half::f16;
use quant_kernels::Isa;
use quant_kernels::codecs::planes::{PlaneKeys, PlaneValues, page_bytes};
use quant_kernels::codecs::{Codec, CodecParams, CodecScratch, KeyCodec, PAGE, ValueCodec, registry};

const DIMS: [usize; 8] = [64, 80, 96, 112, 128, 192, 256, 512];

/// A page with biased channels, tokens of different length and a few large numbers.
fn page_of(dim: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let bias: Vec<f64> = (0..dim).map(|c| if c % 9 == 0 { 5.0 * random.normal() } else { 0.0 }).collect();
    let mut x = Vec::with_capacity(PAGE * dim);
    for _ in 0..PAGE {
        let length = (0.4 * random.normal()).exp();
        for bias in &bias {
            let spike = if random.uniform() < 0.003 { 6.0 } else { 1.0 };
            x.push((bias + length * spike * random.normal()) as f32);
        }
    }
    x
}

/// Softmax-like weights of some rows: a few large, many small, some zero.
fn weights_of(rows: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    (0..rows * PAGE)
        .map(|i| if i % 17 == 3 { 0.0 } else { (3.0 * random.normal() - 6.0).exp().min(1.0) as f32 })
        .collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
}

/// Every codec that exists for the size.
fn for_each_codec(dim: usize, mut f: impl FnMut(&str, Box<dyn KeyCodec>, Box<dyn ValueCodec>)) {
    let params = CodecParams::new(dim, 11);
    for entry in registry() {
        match ((entry.key)(&params), (entry.value)(&params)) {
            (Ok(key), Ok(value)) => f(entry.name, key, value),
            _ => assert!(!dim.is_multiple_of(32) && entry.name.contains("_"), "{} at {dim}", entry.name),
        }
    }
}

#[test]
fn scores_are_dots_with_the_decoded_page() {
    for dim in DIMS {
        let x = page_of(dim, 3);
        let queries = unit_vectors(Source::Sphere, 3, dim, 4);
        for_each_codec(dim, |name, codec, _| {
            let page = encode_keys(Isa::detect(), &*codec, &x);
            let decoded = decode_keys(Isa::detect(), &*codec, &page);
            let got = scores(Isa::detect(), &*codec, &page, &queries);
            // the plane codecs quantize the query too
            let tolerance = match name {
                "planes-2" | "planes-3" | "planes-4" | "planes-5" => 2e-2,
                _ => 5e-4,
            };
            for (q, got) in queries.chunks_exact(dim).zip(got.chunks_exact(PAGE)) {
                for (k, got) in decoded.chunks_exact(dim).zip(got) {
                    let expected = dot(q, k);
                    let size = dot(k, k).sqrt();
                    let off = (f64::from(*got) - expected).abs();
                    assert!(off <= tolerance * size, "{name} {dim}: {got}, expected {expected}, size {size}");
                }
            }
        });
    }
}

#[test]
fn sums_are_sums_of_the_decoded_pages() {
    for dim in DIMS {
        let pages = [page_of(dim, 5), page_of(dim, 6)];
        let weights = [weights_of(3, 7), weights_of(3, 8)];
        for_each_codec(dim, |name, _, codec| {
            let mut scratch = CodecScratch::default();
            let encoded: Vec<Vec<u8>> = pages
                .iter()
                .map(|x| {
                    let mut page = vec![0xA5; codec.page_bytes()];
                    codec.encode(Isa::detect(), x, &mut scratch, &mut page).unwrap();
                    page
                })
                .collect();
            let got = weighted(Isa::detect(), &*codec, &encoded, &weights);
            let mut expected = vec![0f64; 3 * dim];
            let mut size = 0.0;
            for (page, weights) in encoded.iter().zip(&weights) {
                let mut decoded = vec![0.0; PAGE * dim];
                codec.decode(Isa::detect(), page, &mut scratch, &mut decoded);
                for (expected, weights) in expected.chunks_exact_mut(dim).zip(weights.chunks_exact(PAGE)) {
                    for (v, w) in decoded.chunks_exact(dim).zip(weights) {
                        size += f64::from(*w) * dot(v, v).sqrt() / 3.0;
                        expected.iter_mut().zip(v).for_each(|(e, v)| *e += f64::from(*w) * f64::from(*v));
                    }
                }
            }
            for (got, expected) in got.iter().zip(&expected) {
                let off = (f64::from(*got) - expected).abs();
                assert!(off <= 2e-4 * size, "{name} {dim}: {got}, expected {expected}, size {size}");
            }
        });
    }
}

#[test]
fn every_tier_has_the_scalar_bits() {
    for dim in DIMS {
        let x = page_of(dim, 21);
        // 1 to 21 queries: every block of rows, and more than one pass
        for count in if dim == 128 { vec![1, 2, 3, 7, 8, 15, 21] } else { vec![5] } {
            let queries: Vec<f32> = page_of(dim, 22)[..count * dim].to_vec();
            let weights = weights_of(count, 23);
            for_each_codec(dim, |name, key, value| {
                let mut scratch = CodecScratch::default();
                let mut run = |isa: Isa| {
                    let page = encode_keys(isa, &*key, &x);
                    let mut values = vec![0; value.page_bytes()];
                    value.encode(isa, &x, &mut scratch, &mut values).unwrap();
                    let decoded = bits(&decode_keys(isa, &*key, &page));
                    let scores = bits(&scores(isa, &*key, &page, &queries));
                    let pages = [values.clone(), values.clone()];
                    let sums = bits(&weighted(isa, &*value, &pages, &[weights.clone(), weights.clone()]));
                    (page, values, decoded, scores, sums)
                };
                let expected = run(Isa::Scalar);
                for isa in Isa::available() {
                    let got = run(isa);
                    assert!(got.0 == expected.0, "{name} {dim} {isa}: keys");
                    assert!(got.1 == expected.1, "{name} {dim} {isa}: values");
                    assert!(got.2 == expected.2, "{name} {dim} {isa}: decoded");
                    assert!(got.3 == expected.3, "{name} {dim} {isa}: scores");
                    assert!(got.4 == expected.4, "{name} {dim} {isa}: sums");
                }
            });
        }
    }
}

/// The parts of a plane page, read by the layout's words.
struct Parts<'a> {
    dim: usize,
    bits: usize,
    page: &'a [u8],
}

impl Parts<'_> {
    fn half(&self, at: usize) -> f32 {
        f16::from_le_bytes([self.page[at], self.page[at + 1]]).to_f32()
    }

    fn scale(&self) -> f32 {
        f32::from_le_bytes(self.page[..4].try_into().unwrap())
    }

    fn channel(&self, c: usize) -> f32 {
        self.half(64 + 2 * c)
    }

    fn centre(&self, c: usize) -> f32 {
        self.half(64 + 2 * self.dim + 2 * c)
    }

    fn token(&self, t: usize) -> f32 {
        self.half(64 + 4 * self.dim + 2 * t)
    }

    /// 2 code + 1 - 2^bits.
    fn signed_code(&self, ins: usize, out: usize, input: usize) -> i64 {
        let (vector, lane) = (out / 16 * (ins / 16) + input / 16, out % 16 * 4 + input % 4);
        let (quad, planes) = (input % 16 / 4, 320 + 4 * self.dim);
        let mut code = 0;
        for pair in 0..self.bits / 2 {
            let byte = self.page[planes + pair * 32 * self.dim + vector * 64 + lane];
            code = code * 4 + i64::from(byte >> (2 * quad) & 3);
        }
        if self.bits % 2 == 1 {
            let byte = self.page[planes + self.bits / 2 * 32 * self.dim + vector * 32 + lane % 32];
            code = code * 2 + i64::from(byte >> (quad + 4 * (lane / 32)) & 1);
        }
        2 * code + 1 - (1 << self.bits)
    }
}

/// Integers of a row by the contract's rule, and the value of one step.
fn integers(v: &[f32], steps: f32) -> (Vec<i64>, f32) {
    let max = v.iter().fold(0f32, |m, v| m.max(v.abs()));
    if max < 2f32.powi(-100) {
        return (vec![0; v.len()], 0.0);
    }
    (v.iter().map(|v| (v * (steps / max)).round_ties_even() as i64).collect(), max / steps)
}

fn lane_sum(x: impl Iterator<Item = f32>) -> f32 {
    let mut lanes = [0f32; 16];
    x.enumerate().for_each(|(i, x)| lanes[i % 16] += x);
    quant_kernels::types::f32::tree(lanes)
}

#[test]
fn plane_scores_follow_the_integer_formula() {
    for dim in [64, 80, 128] {
        for bits_of in 2..=8 {
            let params = CodecParams::new(dim, 31);
            let codec = PlaneKeys::new(&params, bits_of).unwrap();
            let page = encode_keys(Isa::Scalar, &codec, &page_of(dim, 32));
            let parts = Parts { dim, bits: bits_of, page: &page };
            let mut q = vec![0.0; dim];
            codec.prepare(Isa::Scalar, &page_of(dim, 33)[..dim], &mut CodecScratch::default(), &mut q);
            let folded: Vec<f32> = (0..dim).map(|c| q[c] * parts.channel(c)).collect();
            let (ints, step) = integers(&folded, if bits_of >= 6 { 16256.0 } else { 127.0 });
            let base = lane_sum((0..dim).map(|c| q[c] * parts.centre(c))) * parts.scale();
            let expected: Vec<f32> = (0..PAGE)
                .map(|t| {
                    let sum: i64 = (0..dim).map(|c| ints[c] * parts.signed_code(dim, t, c)).sum();
                    base + (parts.token(t) * (step * parts.scale())) * sum as f32
                })
                .collect();
            let mut got = vec![0.0; PAGE];
            codec.score(Isa::Scalar, &page, &q, &mut CodecScratch::default(), &mut got, PAGE);
            assert_eq!(bits(&got), bits(&expected), "{dim}, {bits_of} bits");
        }
    }
}

#[test]
fn plane_sums_follow_the_integer_formula() {
    for dim in [64, 80, 128] {
        for bits_of in 2..=8 {
            let codec = PlaneValues::new(&CodecParams::new(dim, 34), bits_of).unwrap();
            let mut page = vec![0; codec.page_bytes()];
            codec.encode(Isa::Scalar, &page_of(dim, 35), &mut CodecScratch::default(), &mut page).unwrap();
            let parts = Parts { dim, bits: bits_of, page: &page };
            let weights = weights_of(1, 36);
            let folded: Vec<f32> = (0..PAGE).map(|t| weights[t] * parts.token(t)).collect();
            let (ints, step) = integers(&folded, 16256.0);
            let mass = lane_sum(weights.iter().copied()) * parts.scale();
            let start: Vec<f32> = (0..dim).map(|c| c as f32 - 3.5).collect();
            let expected: Vec<f32> = (0..dim)
                .map(|c| {
                    let sum: i64 = (0..PAGE).map(|t| ints[t] * parts.signed_code(PAGE, c, t)).sum();
                    let centred = start[c] + mass * parts.centre(c);
                    centred + ((step * parts.scale()) * parts.channel(c)) * sum as f32
                })
                .collect();
            let mut got = start;
            codec.accumulate(Isa::Scalar, &page, &weights, PAGE, &mut CodecScratch::default(), &mut got);
            assert_eq!(bits(&got), bits(&expected), "{dim}, {bits_of} bits");
        }
    }
}

#[test]
fn a_page_cut_to_fewer_planes_is_a_coarser_page() {
    let (dim, x) = (128, page_of(128, 41));
    let error = |codec: &PlaneKeys, page: &[u8]| {
        let decoded = decode_keys(Isa::detect(), codec, page);
        x.iter().zip(&decoded).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>()
    };
    let params = CodecParams::new(dim, 42);
    for (bits_of, kept) in [(8, 6), (8, 4), (8, 2), (6, 4), (5, 4), (7, 2), (4, 2)] {
        let whole = PlaneKeys::new(&params, bits_of).unwrap();
        let cut = whole.cut(kept).unwrap();
        let page = encode_keys(Isa::detect(), &whole, &x);
        let short = &page[..page_bytes(dim, kept)];
        assert_eq!(cut.page_bytes(), short.len());
        let native = PlaneKeys::new(&params, kept).unwrap();
        let (got, best) = (error(&cut, short), error(&native, &encode_keys(Isa::detect(), &native, &x)));
        println!("{bits_of} cut to {kept}: {:.3} times the error of native", got / best);
        assert!(got < best * 2.0, "{bits_of} cut to {kept}: {got}, native {best}");
        let q = unit_vectors(Source::Sphere, 2, dim, 43);
        let decoded = decode_keys(Isa::detect(), &cut, short);
        for (q, got) in q.chunks_exact(dim).zip(scores(Isa::detect(), &cut, short, &q).chunks_exact(PAGE)) {
            for (k, got) in decoded.chunks_exact(dim).zip(got) {
                assert!((f64::from(*got) - dot(q, k)).abs() < 2e-2 * dot(k, k).sqrt());
            }
        }
    }
    let whole = PlaneKeys::new(&params, 5).unwrap();
    assert!(whole.cut(3).is_err() && whole.cut(6).is_err() && whole.cut(0).is_err());
}

#[test]
fn balance_moves_error_to_channels_that_matter_less() {
    let (dim, x) = (128, page_of(128, 51));
    let weight: Vec<f32> = (0..dim).map(|c| if c < 32 { 4.0 } else { 0.5 }).collect();
    let params = CodecParams { balance: Some(&weight), ..CodecParams::new(dim, 52) };
    let error = |codec: PlaneKeys| {
        let decoded = decode_keys(Isa::detect(), &codec, &encode_keys(Isa::detect(), &codec, &x));
        let mut by_channel = vec![0f64; dim];
        for (x, y) in x.chunks_exact(dim).zip(decoded.chunks_exact(dim)) {
            by_channel.iter_mut().zip(x).zip(y).for_each(|((e, x), y)| *e += f64::from(x - y).powi(2));
        }
        (by_channel[..32].iter().sum::<f64>(), by_channel[32..].iter().sum::<f64>())
    };
    let plain = error(PlaneKeys::new(&CodecParams::new(dim, 52), 4).unwrap());
    let balanced = error(PlaneKeys::new(&params, 4).unwrap());
    assert!(balanced.0 < plain.0 * 0.5 && balanced.1 > plain.1, "{plain:?}, balanced {balanced:?}");
    let codec = PlaneKeys::new(&params, 4).unwrap();
    let page = encode_keys(Isa::detect(), &codec, &x);
    let q = unit_vectors(Source::Sphere, 1, dim, 53);
    for (k, got) in x.chunks_exact(dim).zip(scores(Isa::detect(), &codec, &page, &q)) {
        assert!((f64::from(got) - dot(&q, k)).abs() < 0.2 * dot(k, k).sqrt());
    }
}
