//! Vectors to encode, and what a codec makes of them.

use quant_kernels::Isa;
use quant_kernels::codecs::{CodecScratch, KeyCodec, PAGE, ValueCodec};

/// A small generator (SplitMix64): the tests are the same every time.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// Where unit vectors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Uniform on the sphere.
    Sphere,
    /// Four channels ten times as large.
    Outliers,
    /// A sine over the channels with a little noise.
    Smooth,
}

/// Unit vectors, `[count][dim]`.
pub fn unit_vectors(source: Source, count: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let mut out = Vec::with_capacity(count * dim);
    for _ in 0..count {
        let (phase, frequency) = (std::f64::consts::TAU * random.uniform(), 0.2 + random.uniform());
        let x: Vec<f64> = (0..dim)
            .map(|i| match source {
                Source::Sphere => random.normal(),
                Source::Outliers if [3, 17, 40, 55].contains(&i) => 10.0 * random.normal(),
                Source::Outliers => random.normal(),
                Source::Smooth => (phase + frequency * i as f64 * 0.1).sin() + 0.1 * random.normal(),
            })
            .collect();
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        out.extend(x.iter().map(|x| (x / norm) as f32));
    }
    out
}

pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// A page of keys, encoded.
pub fn encode_keys(isa: Isa, codec: &dyn KeyCodec, x: &[f32]) -> Vec<u8> {
    let mut page = vec![0xA5; codec.page_bytes()];
    codec.encode(isa, x, &mut CodecScratch::default(), &mut page).unwrap();
    page
}

pub fn decode_keys(isa: Isa, codec: &dyn KeyCodec, page: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; PAGE * codec.dim()];
    codec.decode(isa, page, &mut CodecScratch::default(), &mut out);
    out
}

/// Scores of queries (`[r][dim]`) with a page, `[r][PAGE]`.
pub fn scores(isa: Isa, codec: &dyn KeyCodec, page: &[u8], queries: &[f32]) -> Vec<f32> {
    let (scratch, len) = (&mut CodecScratch::default(), codec.query_len());
    let count = queries.len() / codec.dim();
    let mut prepared = vec![0.0; count * len];
    for (q, out) in queries.chunks_exact(codec.dim()).zip(prepared.chunks_exact_mut(len)) {
        codec.prepare(isa, q, scratch, out);
    }
    let mut scores = vec![0.0; count * PAGE];
    codec.score(isa, page, &prepared, scratch, &mut scores, PAGE);
    scores
}

/// Sums of pages of values by weights (`[page][r][PAGE]`), `[r][dim]`.
pub fn weighted(isa: Isa, codec: &dyn ValueCodec, pages: &[Vec<u8>], weights: &[Vec<f32>]) -> Vec<f32> {
    let (scratch, len) = (&mut CodecScratch::default(), codec.sum_len());
    let rows = weights[0].len() / PAGE;
    let mut sums = vec![0.0; rows * len];
    for (page, weights) in pages.iter().zip(weights) {
        codec.accumulate(isa, page, weights, PAGE, scratch, &mut sums);
    }
    let mut out = vec![0.0; rows * codec.dim()];
    for (sum, out) in sums.chunks_exact(len).zip(out.chunks_exact_mut(codec.dim())) {
        codec.finish(isa, sum, scratch, out);
    }
    out
}
