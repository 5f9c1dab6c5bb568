//! Attention heads made up to be hard on KV codecs: what trained models were seen to do, one trait at a time.
//!
//! Keys are content with a scale per channel and a length per token, plus a bias, turned by RoPE. A query looks for the
//! content of a few tokens. The traits and their sizes follow what is reported of real models: biased keys of Qwen2
//! (ollama #15505), heavy tails (QuaRot, arXiv 2404.00456), attention sinks (arXiv 2309.17453).

use quant_kernels::Isa;
use quant_kernels::rope::{Rope, RopePairs, RopeScaling};

/// Tokens of a head: whole pages.
pub const TOKENS: usize = 2048;
/// Queries of a head.
pub const QUERIES: usize = 48;
/// Where keys carry their bias: pairs that RoPE turns slowly, as shares of the pairs.
const BIASED: [f64; 4] = [0.69, 0.78, 0.86, 0.94];

/// What makes a head hard.
#[derive(Debug, Clone, Copy)]
pub struct Trait {
    pub name: &'static str,
    /// Spread of the channels' scales, in the exponent.
    channels: f64,
    /// Spread of the tokens' lengths, in the exponent.
    tokens: f64,
    /// Size of the bias.
    bias: f64,
    /// Laplace tails with rare spikes in place of normal content.
    heavy: bool,
    /// The first token is a sink.
    sink: bool,
}

pub const TRAITS: [Trait; 4] = [
    Trait { name: "mild", channels: 0.35, tokens: 0.12, bias: 3.0, heavy: false, sink: false },
    Trait { name: "biased channels", channels: 0.6, tokens: 0.25, bias: 25.0, heavy: false, sink: false },
    Trait { name: "heavy tails", channels: 0.5, tokens: 0.3, bias: 10.0, heavy: true, sink: false },
    Trait { name: "attention sink", channels: 0.35, tokens: 0.12, bias: 3.0, heavy: false, sink: true },
];

/// Keys, values and queries of one head.
pub struct Head {
    pub dim: usize,
    /// `[TOKENS][dim]`
    pub keys: Vec<f32>,
    /// `[TOKENS][dim]`
    pub values: Vec<f32>,
    /// `[QUERIES][dim]`, after the last token.
    pub queries: Vec<f32>,
    /// Root mean square of the queries, pair by pair.
    pub balance: Vec<f32>,
}

impl Head {
    /// The head of a seed.
    pub fn new(of: &Trait, dim: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let scales: Vec<f64> = (0..dim).map(|_| (of.channels * random.normal()).exp()).collect();
        let mut bias: Vec<f64> = (0..dim).map(|_| 0.15 * of.bias.min(3.0) * random.normal()).collect();
        for share in BIASED {
            let pair = (share * (dim / 2) as f64) as usize;
            bias[2 * pair] += of.bias * random.normal();
            bias[2 * pair + 1] += of.bias * random.normal();
        }
        let mut content = vec![0f64; TOKENS * dim];
        for token in content.chunks_exact_mut(dim) {
            let length = (of.tokens * random.normal()).exp();
            for (x, scale) in token.iter_mut().zip(&scales) {
                *x = length * scale * if of.heavy { random.heavy() } else { random.normal() };
            }
        }
        let value_scales: Vec<f64> = (0..dim).map(|_| (0.3 * random.normal()).exp()).collect();
        let mut values = Vec::with_capacity(TOKENS * dim);
        for _ in 0..TOKENS {
            let length = (0.25 * random.normal()).exp();
            values.extend(value_scales.iter().map(|scale| (length * scale * random.normal()) as f32));
        }
        let mut keys: Vec<f32> = content
            .chunks_exact(dim)
            .flat_map(|x| x.iter().zip(&bias).map(|(x, b)| (x + b) as f32))
            .collect();
        let sharpness = 0.75 * (128.0 / dim as f64).sqrt();
        let mut queries = Vec::with_capacity(QUERIES * dim);
        for _ in 0..QUERIES {
            let mut query = vec![0f64; dim];
            for _ in 0..6 {
                let token = (random.uniform() * TOKENS as f64) as usize % TOKENS;
                let weight = (0.6 + 0.8 * random.uniform()) * sharpness;
                let looked_for = &content[token * dim..][..dim];
                for ((q, x), scale) in query.iter_mut().zip(looked_for).zip(&scales) {
                    *q += weight * x / (scale * scale);
                }
            }
            for (q, scale) in query.iter_mut().zip(&scales) {
                *q += 0.5 * random.normal() / scale;
            }
            queries.extend(query.into_iter().map(|q| q as f32));
        }
        if of.sink {
            make_sink(dim, &mut keys, &mut values, &mut queries);
        }
        turn(dim, &mut keys, &mut queries);
        let balance = balance(dim, &queries);
        Self { dim, keys, values, queries, balance }
    }
}

/// The first key is huge in the channels that RoPE hardly turns, its value next to nothing, and every query looks that
/// way: it takes most of the weight.
fn make_sink(dim: usize, keys: &mut [f32], values: &mut [f32], queries: &mut [f32]) {
    const SIZE: f32 = 40.0;
    const SCORE: f32 = 12.0;
    let slow = dim - 4..dim;
    for c in slow.clone() {
        keys[c] = SIZE;
    }
    values[..dim].iter_mut().for_each(|v| *v *= 0.02);
    let toward = SCORE * (dim as f32).sqrt() / (SIZE * slow.len() as f32);
    for query in queries.chunks_exact_mut(dim) {
        query[slow.clone()].iter_mut().for_each(|q| *q = toward);
    }
}

/// RoPE, base 10000: token after token, queries at the position after the last token.
fn turn(dim: usize, keys: &mut [f32], queries: &mut [f32]) {
    let rope = Rope::new(RopePairs::Interleaved, dim, 10_000.0, None, RopeScaling::None);
    let (mut cos, mut sin) = (vec![0f32; dim / 2], vec![0f32; dim / 2]);
    for (position, key) in keys.chunks_exact_mut(dim).enumerate() {
        rope.angles(position, &mut cos, &mut sin);
        rope.apply(Isa::detect(), key, dim, &cos, &sin);
    }
    rope.angles(TOKENS, &mut cos, &mut sin);
    for query in queries.chunks_exact_mut(dim) {
        rope.apply(Isa::detect(), query, dim, &cos, &sin);
    }
}

/// The root mean square of each pair of channels over the queries, around 1.
fn balance(dim: usize, queries: &[f32]) -> Vec<f32> {
    let mut squares = vec![0f64; dim];
    for query in queries.chunks_exact(dim) {
        for (c, q) in query.iter().enumerate() {
            squares[c / 2 * 2] += f64::from(q * q);
            squares[c / 2 * 2 + 1] += f64::from(q * q);
        }
    }
    let logarithms = squares.iter().map(|x| 0.5 * x.max(1e-30).ln());
    let mean = logarithms.clone().sum::<f64>() / dim as f64;
    logarithms.map(|x| (x - mean).exp().clamp(1.0 / 256.0, 256.0) as f32).collect()
}

/// SplitMix64: the same heads every time.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Laplace with variance 1; three of a thousand are four times as large.
    fn heavy(&mut self) -> f64 {
        let u = self.uniform() - 0.5;
        let size = -(1.0 - 2.0 * u.abs()).max(1e-12).ln() * std::f64::consts::FRAC_1_SQRT_2;
        size.copysign(u) * if self.uniform() < 0.003 { 4.0 } else { 1.0 }
    }
}
