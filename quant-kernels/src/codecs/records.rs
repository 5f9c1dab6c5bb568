//! Codecs that encode every token alone: a page is [`PAGE`] records of equal length, one after the other.
//!
//! All of them are linear in the decoded record: with `z` the numbers a record stands for and `T` the codec's fixed
//! linear map ([`Domain`]), the decoded vector is `T^T z`. So `q.k = (T q).z`, and a weighted sum of values is
//! `T^T (sum of w z)`: a codec of this kind says how a vector becomes a record and a record `z`, and is done.
//!
//! The arithmetic: dots by lanes (index mod 16, multiply then add) and the tree; sums token after token,
//! `sum = sum + w * z`, where weights of zero are skipped.

use super::matrix::{Matrix, dot};
use super::rotation::Rotation;
use super::{Codec, CodecScratch, KeyCodec, PAGE, Space, ValueCodec, take};
use crate::simd::{self, Kernel, Simd};
use crate::{Error, Isa};
use half::f16;
use std::fmt;

/// The linear map `T` of a codec.
#[derive(Debug, Clone)]
pub enum Domain {
    /// The vector itself, of this many values.
    Plain(usize),
    /// A rotation.
    Rotated(Rotation),
    /// A random projection to `len` values.
    Sketched(Sketch),
    /// A rotation, and beside its result a random projection of it.
    RotatedAndSketched(Rotation, Sketch),
}

/// A Gaussian projection `S` of `dim` values to `len`.
#[derive(Debug, Clone)]
pub struct Sketch {
    matrix: Matrix,
    dim: usize,
    seed: u64,
}

impl Sketch {
    /// The projection of a seed.
    ///
    /// # Panics
    /// If `dim` is no multiple of 16.
    pub fn new(dim: usize, len: usize, seed: u64) -> Self {
        assert!(dim.is_multiple_of(16), "sketch: the dimension is no multiple of 16");
        Self { matrix: Matrix::gaussian(len, dim, seed), dim, seed }
    }

    /// What tells this sketch from others.
    fn numbers(&self) -> [u64; 3] {
        [4, self.len() as u64, self.seed]
    }

    /// Values of a sketch.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.matrix.rows()
    }

    /// `out = S x`.
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn apply(&self, isa: Isa, x: &[f32], out: &mut [f32]) {
        self.matrix.apply(isa, x, out);
    }

    /// `sqrt(pi / 2) / len`, the factor of QJL's unbiased estimate.
    pub fn factor(&self) -> f32 {
        ((std::f64::consts::PI / 2.0).sqrt() / self.len() as f64) as f32
    }
}

impl Domain {
    /// Values of a vector.
    fn dim(&self) -> usize {
        match self {
            Self::Plain(dim) => *dim,
            Self::Rotated(rotation) | Self::RotatedAndSketched(rotation, _) => rotation.dim(),
            Self::Sketched(sketch) => sketch.dim,
        }
    }

    /// Values of `z`.
    fn len(&self) -> usize {
        match self {
            Self::Plain(dim) => *dim,
            Self::Rotated(rotation) => rotation.dim(),
            Self::Sketched(sketch) => sketch.len(),
            Self::RotatedAndSketched(rotation, sketch) => rotation.dim() + sketch.len(),
        }
    }

    /// The coordinates of `z`.
    fn space(&self) -> Space {
        match self {
            Self::Plain(dim) => Space::plain(*dim),
            Self::Rotated(rotation) => rotation.space(),
            Self::Sketched(sketch) => Space::plain(sketch.dim).then(sketch.numbers()),
            Self::RotatedAndSketched(rotation, sketch) => rotation.space().then(sketch.numbers()),
        }
    }

    /// `out = T x`.
    fn apply(&self, isa: Isa, x: &[f32], out: &mut [f32]) {
        match self {
            Self::Plain(_) => out.copy_from_slice(x),
            Self::Rotated(rotation) => rotation.apply(isa, x, out),
            Self::Sketched(sketch) => sketch.apply(isa, x, out),
            Self::RotatedAndSketched(rotation, sketch) => {
                let (rotated, sketched) = out.split_at_mut(rotation.dim());
                rotation.apply(isa, x, rotated);
                sketch.apply(isa, rotated, sketched);
            }
        }
    }

    /// `out = T^T z`.
    fn apply_transposed(&self, isa: Isa, z: &[f32], buffer: &mut Vec<f32>, out: &mut [f32]) {
        match self {
            Self::Plain(_) => out.copy_from_slice(z),
            Self::Rotated(rotation) => {
                out.copy_from_slice(z);
                rotation.invert(isa, out, take(buffer, rotation.dim()));
            }
            Self::Sketched(sketch) => {
                out.fill(0.0);
                sketch.matrix.add_transposed(isa, z, out);
            }
            Self::RotatedAndSketched(rotation, sketch) => {
                let (rotated, sketched) = z.split_at(rotation.dim());
                out.copy_from_slice(rotated);
                sketch.matrix.add_transposed(isa, sketched, out);
                rotation.invert(isa, out, take(buffer, rotation.dim()));
            }
        }
    }
}

/// A scale or norm beyond the range of the record's half-precision field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleOverflow;

/// A codec of single vectors. Implementing it gives [`KeyCodec`] and [`ValueCodec`].
pub trait RecordCodec: fmt::Debug + Send + Sync {
    /// The codec's name for messages.
    fn name(&self) -> &'static str;

    /// The codec's linear map.
    fn domain(&self) -> &Domain;

    /// Bytes of a record.
    fn record_bytes(&self) -> usize;

    /// Encodes one vector of finite values.
    ///
    /// # Errors
    /// [`ScaleOverflow`] if a scale does not fit.
    fn encode_record(
        &self,
        isa: Isa,
        x: &[f32],
        buffer: &mut Vec<f32>,
        record: &mut [u8],
    ) -> Result<(), ScaleOverflow>;

    /// The numbers `z` that a record stands for.
    fn expand(&self, record: &[u8], z: &mut [f32]);
}

impl<C: RecordCodec> Codec for C {
    fn dim(&self) -> usize {
        self.domain().dim()
    }

    fn page_bytes(&self) -> usize {
        self.record_bytes() * PAGE
    }

    fn space(&self) -> Space {
        self.domain().space()
    }

    fn encode(&self, isa: Isa, x: &[f32], scratch: &mut CodecScratch, page: &mut [u8]) -> Result<(), Error> {
        let dim = self.dim();
        assert!(x.len() == PAGE * dim && page.len() == self.page_bytes(), "codec: wrong lengths");
        let records = page.chunks_exact_mut(self.record_bytes());
        for (token, (x, record)) in x.chunks_exact(dim).zip(records).enumerate() {
            if !x.iter().all(|x| x.is_finite()) {
                return Err(Error::NotFinite { token });
            }
            self.encode_record(isa, x, &mut scratch.record, record)
                .map_err(|ScaleOverflow| Error::Overflow { codec: self.name(), token })?;
        }
        Ok(())
    }

    fn decode(&self, isa: Isa, page: &[u8], scratch: &mut CodecScratch, out: &mut [f32]) {
        let dim = self.dim();
        assert!(out.len() == PAGE * dim && page.len() == self.page_bytes(), "codec: wrong lengths");
        for (record, out) in page.chunks_exact(self.record_bytes()).zip(out.chunks_exact_mut(dim)) {
            let z = take(&mut scratch.vector, self.domain().len());
            self.expand(record, z);
            self.domain().apply_transposed(isa, z, &mut scratch.record, out);
        }
    }
}

impl<C: RecordCodec> KeyCodec for C {
    fn query_len(&self) -> usize {
        self.domain().len()
    }

    fn prepare(&self, isa: Isa, q: &[f32], _scratch: &mut CodecScratch, prepared: &mut [f32]) {
        assert!(q.len() == self.dim() && prepared.len() == self.query_len(), "codec: wrong lengths");
        self.domain().apply(isa, q, prepared);
    }

    fn score(
        &self,
        isa: Isa,
        page: &[u8],
        queries: &[f32],
        scratch: &mut CodecScratch,
        scores: &mut [f32],
        stride: usize,
    ) {
        let len = self.query_len();
        assert!(queries.len().is_multiple_of(len) && page.len() == self.page_bytes(), "codec: wrong lengths");
        for (t, record) in page.chunks_exact(self.record_bytes()).enumerate() {
            let z = take(&mut scratch.vector, len);
            self.expand(record, z);
            simd::dispatch(isa, Dots { queries, z, scores: &mut scores[t..], stride });
        }
    }
}

impl<C: RecordCodec> ValueCodec for C {
    fn sum_len(&self) -> usize {
        self.domain().len()
    }

    fn accumulate(
        &self,
        isa: Isa,
        page: &[u8],
        weights: &[f32],
        stride: usize,
        scratch: &mut CodecScratch,
        sums: &mut [f32],
    ) {
        let len = self.sum_len();
        assert!(sums.len().is_multiple_of(len) && page.len() == self.page_bytes(), "codec: wrong lengths");
        for (t, record) in page.chunks_exact(self.record_bytes()).enumerate() {
            let z = take(&mut scratch.vector, len);
            self.expand(record, z);
            for (r, sum) in sums.chunks_exact_mut(len).enumerate() {
                let weight = weights[r * stride + t];
                if weight != 0.0 {
                    simd::dispatch(isa, simd::Zip { x: sum, y: z, f: |sum, z| sum + weight * z });
                }
            }
        }
    }

    fn finish(&self, isa: Isa, sum: &[f32], scratch: &mut CodecScratch, out: &mut [f32]) {
        assert!(sum.len() == self.sum_len() && out.len() == self.dim(), "codec: wrong lengths");
        self.domain().apply_transposed(isa, sum, &mut scratch.record, out);
    }
}

/// One record with all queries.
struct Dots<'a> {
    queries: &'a [f32],
    z: &'a [f32],
    scores: &'a mut [f32],
    stride: usize,
}

impl Kernel for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (r, query) in self.queries.chunks_exact(self.z.len()).enumerate() {
            self.scores[r * self.stride] = dot(s, query, self.z);
        }
    }
}

/// Writes a half at the start of `record`, rounded to nearest, and returns what it holds.
pub(super) fn put_half(x: f32, record: &mut [u8]) -> Result<f32, ScaleOverflow> {
    let half = f16::from_f32(x);
    record[..2].copy_from_slice(&half.to_le_bytes());
    if half.is_finite() { Ok(half.to_f32()) } else { Err(ScaleOverflow) }
}

/// Euclidean norm by lanes and the tree; infinite if a square overflows.
pub(super) fn norm(isa: Isa, x: &[f32]) -> f32 {
    simd::dispatch(isa, Norm { x })
}

struct Norm<'a> {
    x: &'a [f32],
}

impl Kernel for Norm<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        dot(s, self.x, self.x).sqrt()
    }
}
