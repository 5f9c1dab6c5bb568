//! A latent and a rotary part as one vector, as multi-head latent attention keeps them: each part in a codec of its own.
//!
//! A page is the latent's page, then the rotary part's. A key's score is the sum of the two parts' scores; as a value the
//! vector is its latent alone, and its rotary part counts as zeros. Rotations mix the latent's channels only.

use super::{Codec, CodecScratch, KeyCodec, PAGE, Space, ValueCodec, take};
use crate::{Error, Isa};
use std::sync::Arc;

/// Keys of two parts.
#[derive(Debug, Clone)]
pub struct LatentKeys {
    latent: Arc<dyn KeyCodec>,
    rotary: Arc<dyn KeyCodec>,
}

/// Values that are the latents of such vectors.
#[derive(Debug, Clone)]
pub struct LatentValues {
    latent: Arc<dyn ValueCodec>,
    rotary_dim: usize,
    page_bytes: usize,
}

impl LatentKeys {
    /// Keys whose first values are in one codec, the others in another.
    pub fn new(latent: Arc<dyn KeyCodec>, rotary: Arc<dyn KeyCodec>) -> Self {
        Self { latent, rotary }
    }
}

impl LatentValues {
    /// Values in pages of their own.
    pub fn new(latent: Arc<dyn ValueCodec>, rotary_dim: usize) -> Self {
        let page_bytes = latent.page_bytes();
        Self { latent, rotary_dim, page_bytes }
    }

    /// Values in the pages of keys, whose latents are in the same codec: it must encode keys and values alike.
    ///
    /// # Errors
    /// [`Error::Length`] if the pages of the two codecs' latents differ in size.
    pub fn in_keys(latent: Arc<dyn ValueCodec>, keys: &LatentKeys) -> Result<Self, Error> {
        let (expected, got) = (keys.latent.page_bytes(), latent.page_bytes());
        if expected != got {
            return Err(Error::Length { what: "a page of latents", expected, got });
        }
        Ok(Self { latent, rotary_dim: keys.rotary.dim(), page_bytes: keys.page_bytes() })
    }
}

/// Some columns of rows, one row after the other.
fn columns<'a>(
    x: &[f32],
    width: usize,
    range: std::ops::Range<usize>,
    part: &'a mut Vec<f32>,
) -> &'a mut [f32] {
    let rows = x.len() / width;
    let part = take(part, rows * range.len());
    for (to, from) in part.chunks_exact_mut(range.len()).zip(x.chunks_exact(width)) {
        to.copy_from_slice(&from[range.clone()]);
    }
    part
}

impl Codec for LatentKeys {
    fn dim(&self) -> usize {
        self.latent.dim() + self.rotary.dim()
    }

    fn page_bytes(&self) -> usize {
        self.latent.page_bytes() + self.rotary.page_bytes()
    }

    fn space(&self) -> Space {
        self.latent.space().then([5, self.rotary.space().number()])
    }

    fn encode(&self, isa: Isa, x: &[f32], scratch: &mut CodecScratch, page: &mut [u8]) -> Result<(), Error> {
        let (dim, at) = (self.dim(), self.latent.dim());
        assert!(x.len() == PAGE * dim && page.len() == self.page_bytes(), "latent codec: wrong lengths");
        let (latent, rotary) = page.split_at_mut(self.latent.page_bytes());
        let mut part = std::mem::take(&mut scratch.part);
        let result = self.latent.encode(isa, columns(x, dim, 0..at, &mut part), scratch, latent);
        let result = result
            .and_then(|()| self.rotary.encode(isa, columns(x, dim, at..dim, &mut part), scratch, rotary));
        scratch.part = part;
        result
    }

    fn decode(&self, isa: Isa, page: &[u8], scratch: &mut CodecScratch, out: &mut [f32]) {
        let (dim, at) = (self.dim(), self.latent.dim());
        assert!(out.len() == PAGE * dim && page.len() == self.page_bytes(), "latent codec: wrong lengths");
        let (latent, rotary) = page.split_at(self.latent.page_bytes());
        let mut part = std::mem::take(&mut scratch.part);
        for (codec, page, range) in [(&self.latent, latent, 0..at), (&self.rotary, rotary, at..dim)] {
            let part = take(&mut part, PAGE * range.len());
            codec.decode(isa, page, scratch, part);
            for (out, part) in out.chunks_exact_mut(dim).zip(part.chunks_exact(range.len())) {
                out[range.clone()].copy_from_slice(part);
            }
        }
        scratch.part = part;
    }
}

impl KeyCodec for LatentKeys {
    fn query_len(&self) -> usize {
        self.latent.query_len() + self.rotary.query_len()
    }

    fn prepare(&self, isa: Isa, q: &[f32], scratch: &mut CodecScratch, prepared: &mut [f32]) {
        assert!(q.len() == self.dim() && prepared.len() == self.query_len(), "latent codec: wrong lengths");
        let (latent, rotary) = q.split_at(self.latent.dim());
        let (prepared_latent, prepared_rotary) = prepared.split_at_mut(self.latent.query_len());
        self.latent.prepare(isa, latent, scratch, prepared_latent);
        self.rotary.prepare(isa, rotary, scratch, prepared_rotary);
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
        let (len, at) = (self.query_len(), self.latent.query_len());
        assert!(
            queries.len().is_multiple_of(len) && page.len() == self.page_bytes(),
            "latent codec: wrong lengths"
        );
        let (latent, rotary) = page.split_at(self.latent.page_bytes());
        let mut part = std::mem::take(&mut scratch.part);
        let mut more = std::mem::take(&mut scratch.more);
        self.latent.score(isa, latent, columns(queries, len, 0..at, &mut part), scratch, scores, stride);
        let rows = queries.len() / len;
        let more_scores = take(&mut more, rows * PAGE);
        self.rotary.score(isa, rotary, columns(queries, len, at..len, &mut part), scratch, more_scores, PAGE);
        for (r, more) in more_scores.chunks_exact(PAGE).enumerate() {
            scores[r * stride..][..PAGE].iter_mut().zip(more).for_each(|(score, more)| *score += more);
        }
        scratch.part = part;
        scratch.more = more;
    }
}

impl Codec for LatentValues {
    fn dim(&self) -> usize {
        self.latent.dim() + self.rotary_dim
    }

    fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    fn space(&self) -> Space {
        self.latent.space().then([6, self.rotary_dim as u64])
    }

    /// Encodes the latents; what is behind them in the pages of keys stays as it is.
    fn encode(&self, isa: Isa, x: &[f32], scratch: &mut CodecScratch, page: &mut [u8]) -> Result<(), Error> {
        assert!(x.len() == PAGE * self.dim() && page.len() == self.page_bytes, "latent codec: wrong lengths");
        let mut part = std::mem::take(&mut scratch.part);
        let latents = columns(x, self.dim(), 0..self.latent.dim(), &mut part);
        let result = self.latent.encode(isa, latents, scratch, &mut page[..self.latent.page_bytes()]);
        scratch.part = part;
        result
    }

    fn decode(&self, isa: Isa, page: &[u8], scratch: &mut CodecScratch, out: &mut [f32]) {
        let (dim, at) = (self.dim(), self.latent.dim());
        assert!(out.len() == PAGE * dim && page.len() == self.page_bytes, "latent codec: wrong lengths");
        let mut part = std::mem::take(&mut scratch.part);
        let latents = take(&mut part, PAGE * at);
        self.latent.decode(isa, &page[..self.latent.page_bytes()], scratch, latents);
        for (out, latent) in out.chunks_exact_mut(dim).zip(latents.chunks_exact(at)) {
            out[..at].copy_from_slice(latent);
            out[at..].fill(0.0);
        }
        scratch.part = part;
    }
}

impl ValueCodec for LatentValues {
    fn sum_len(&self) -> usize {
        self.latent.sum_len()
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
        assert!(page.len() == self.page_bytes, "latent codec: wrong lengths");
        self.latent.accumulate(isa, &page[..self.latent.page_bytes()], weights, stride, scratch, sums);
    }

    fn finish(&self, isa: Isa, sum: &[f32], scratch: &mut CodecScratch, out: &mut [f32]) {
        assert!(out.len() == self.dim(), "latent codec: wrong lengths");
        let (latent, rotary) = out.split_at_mut(self.latent.dim());
        self.latent.finish(isa, sum, scratch, latent);
        rotary.fill(0.0);
    }
}
