//! Codecs of keys and values: what a compressed KV cache stores, and the arithmetic on it as it lies.
//!
//! A codec turns one page of one head, [`PAGE`] tokens of `dim` values, into bytes. A [`KeyCodec`] scores queries
//! against an encoded page, a [`ValueCodec`] sums an encoded page by weights; neither decodes the page into memory.
//! Whatever a codec does once per vector (a rotation, a random projection) is done to the query by
//! [`KeyCodec::prepare`] and to the finished sum by [`ValueCodec::finish`], not to every token:
//!
//! ```text
//! q ── prepare ──► prepared ── score(page 0), score(page 1), ... ──► q.k of every token
//! weights ── accumulate(page 0), accumulate(page 1), ... ──► sums ── finish ──► output
//! ```
//!
//! | file | codec | arithmetic | source |
//! |---|---|---|---|
//! | [`planes`] | pages rotated, centred, balanced; codes of 2 to 8 bits in bit planes | integers | this project |
//! | [`turbo_mse`] | TurboQuant for squared error, 1 to 4 bits | f32 | arXiv 2504.19874 |
//! | [`turbo_prod`] | TurboQuant for inner products, 1 to 4 bits | f32 | arXiv 2504.19874 |
//! | [`polar`] | PolarQuant, 4-2-2-2 bits | f32 | arXiv 2502.02617 |
//! | [`qjl`] | sign sketches, 1 bit each | f32 | arXiv 2406.03482 |
//! | [`uniform`] | minimum, step and codes of 2 to 8 bits per token | f32 | arXiv 2402.02750 (per-token form) |
//! | [`ggml`] | ggml's 32-value blocks in ggml's layout | f32 | ggml |
//!
//! [`latent`] joins two of them for multi-head latent attention.
//!
//! Errors in a page's numbers are found when it is encoded; nothing allocates after the first call with a
//! [`CodecScratch`]. Every tier gives the same bits.

#[rustfmt::skip]
mod codebooks;
pub mod ggml;
pub mod latent;
mod matrix;
mod packing;
pub mod planes;
pub mod polar;
pub mod qjl;
mod random;
mod records;
mod registry;
mod rotation;
mod space;
pub mod turbo_mse;
pub mod turbo_prod;
pub mod uniform;

pub use crate::attention::PAGE;
pub use records::{Domain, RecordCodec, ScaleOverflow, Sketch};
pub use registry::{CodecEntry, CodecParams, entry, registry};
pub use rotation::{Rotation, RotationKind};
pub use space::Space;

use crate::{Error, Isa};
use std::fmt;

/// What every codec does.
pub trait Codec: fmt::Debug + Send + Sync {
    /// Values of a vector.
    fn dim(&self) -> usize;

    /// Bytes of an encoded page.
    fn page_bytes(&self) -> usize;

    /// Where prepared queries or sums live. Codecs of keys with one space prepare a query to the same numbers; codecs
    /// of values with one space may add to the same sums and finish them alike.
    fn space(&self) -> Space;

    /// Encodes a page: `x` is `[PAGE][dim]`, `page` has [`Codec::page_bytes`] bytes.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if a value is NaN or infinite; [`Error::Overflow`] if a scale does not fit the format. The
    /// page is then partly written.
    ///
    /// # Panics
    /// If a length is wrong.
    fn encode(&self, isa: Isa, x: &[f32], scratch: &mut CodecScratch, page: &mut [u8]) -> Result<(), Error>;

    /// Decodes a page into `out`, `[PAGE][dim]`: for tests and for other formats; attention does not need it.
    ///
    /// # Panics
    /// If a length is wrong.
    fn decode(&self, isa: Isa, page: &[u8], scratch: &mut CodecScratch, out: &mut [f32]);
}

/// A codec of keys.
pub trait KeyCodec: Codec {
    /// Values of a prepared query.
    fn query_len(&self) -> usize;

    /// Prepares one query of `dim` values for all pages.
    ///
    /// # Panics
    /// If a length is wrong.
    fn prepare(&self, isa: Isa, q: &[f32], scratch: &mut CodecScratch, prepared: &mut [f32]);

    /// Scores a page: `scores[r * stride + t] = q_r . k_t` for every prepared query `r` of `queries`
    /// (`[r][query_len]`) and every token `t` of the page. A query with NaN or infinities scores NaN.
    ///
    /// # Panics
    /// If a length is wrong.
    fn score(
        &self,
        isa: Isa,
        page: &[u8],
        queries: &[f32],
        scratch: &mut CodecScratch,
        scores: &mut [f32],
        stride: usize,
    );

    /// [`KeyCodec::score`] of consecutive pages: `scores[r * stride + i * PAGE + t] = q_r . k_t` for page `i`. The same
    /// bits as page by page.
    ///
    /// # Panics
    /// If a length is wrong.
    fn score_pages(
        &self,
        isa: Isa,
        pages: &[&[u8]],
        queries: &[f32],
        scratch: &mut CodecScratch,
        scores: &mut [f32],
        stride: usize,
    ) {
        for (i, page) in pages.iter().enumerate() {
            self.score(isa, page, queries, scratch, &mut scores[i * PAGE..], stride);
        }
    }
}

/// A codec of values.
pub trait ValueCodec: Codec {
    /// Values of a sum.
    fn sum_len(&self) -> usize;

    /// Adds a page to sums: `sums[r] += sum over t of weights[r * stride + t] * v_t` in the codec's own domain, for as
    /// many `r` as `sums`, `[r][sum_len]`, has rows. Sums start at +0.0; pages are added in ascending order.
    ///
    /// # Panics
    /// If a length is wrong.
    fn accumulate(
        &self,
        isa: Isa,
        page: &[u8],
        weights: &[f32],
        stride: usize,
        scratch: &mut CodecScratch,
        sums: &mut [f32],
    );

    /// [`ValueCodec::accumulate`] of consecutive pages, one after the other: `weights[r * stride + i * PAGE + t]` are
    /// those of page `i`. The same bits as page by page.
    ///
    /// # Panics
    /// If a length is wrong.
    fn accumulate_pages(
        &self,
        isa: Isa,
        pages: &[&[u8]],
        weights: &[f32],
        stride: usize,
        scratch: &mut CodecScratch,
        sums: &mut [f32],
    ) {
        for (i, page) in pages.iter().enumerate() {
            self.accumulate(isa, page, &weights[i * PAGE..], stride, scratch, sums);
        }
    }

    /// One sum back in the values' own coordinates: `out` has `dim` values.
    ///
    /// # Panics
    /// If a length is wrong.
    fn finish(&self, isa: Isa, sum: &[f32], scratch: &mut CodecScratch, out: &mut [f32]);
}

/// Buffers of one worker, kept between calls and grown by the first.
#[derive(Debug, Default, Clone)]
pub struct CodecScratch {
    record: Vec<f32>,
    vector: Vec<f32>,
    part: Vec<f32>,
    more: Vec<f32>,
    planes: planes::PlaneScratch,
}

impl CodecScratch {
    /// Says which pages, most likely, will be read after those of the next call: they may be fetched meanwhile.
    pub fn expect_next<'a>(&mut self, pages: impl Iterator<Item = &'a [u8]>) {
        self.planes.expect_next(pages);
    }
}

/// The first `len` elements of a buffer that only grows.
pub(crate) fn take<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}
