//! Pages in bit planes: rotated, centred and balanced together, then summed in integers as they lie.
//!
//! A page of one head is [`PAGE`] tokens of `dim` values. Its numbers after a random rotation, `y[t][c]`, are stored as
//!
//! ```text
//! y[t][c] = scale * (centre[c] + token[t] * channel[c] * (2 code[t][c] + 1 - 2^bits))
//! ```
//!
//! The centre takes away what all tokens share (biases of keys), `channel` and `token` even out what is left, so that
//! one uniform code fits every number; `channel` is half a step. Keys may be balanced first: channels that queries
//! weigh more are stored larger, and the query is divided by the same weights.
//!
//! ```text
//! byte
//! 0            scale f32 (a power of two), 60 bytes of zeros
//! 64           channel  f16 x dim
//! 64 + 2 dim   centre   f16 x dim
//! 64 + 4 dim   token    f16 x 128
//! 320 + 4 dim  planes, the most significant first: as many of 2 bits as go into `bits`, then one of 1 bit if it is odd
//!
//! plane of 2 bits, 32 dim bytes: [out / 16][in / 16] vectors of 64 bytes
//!     byte l, bits 2i and 2i + 1:  out = l / 4,  in = 4 i + l % 4         (within the 16 x 16 of the vector)
//! plane of 1 bit, 16 dim bytes: [out / 16][in / 16] vectors of 32 bytes
//!     byte l % 32, bit i + 4 (l / 32):  the same
//! ```
//!
//! For keys the sum runs over channels: `in` is the channel, `out` the token. For values it is the other way round. One
//! shift and one mask of a vector give, for 16 outputs, the 4 bytes each that a dot-product instruction takes; nothing is
//! summed across lanes. The planes of a page are a prefix of it for every number of planes kept: a page loses its low
//! planes by being cut off ([`PlaneKeys::cut`]), since a code without its low bits is the code of the wider cell.
//!
//! The arithmetic of a score: the rotated query times `channel`, quantized over all channels (127 steps below 6 bits,
//! else 16256 in two parts of 7 bits), products summed exactly in i32, then
//! `base + (token[t] * step) * f32(sum)` with `base = scale * (q . centre)` by lanes and the tree; of a sum: weights times
//! `token`, quantized to 16256 steps, `sum[c] = (sum[c] + mass * centre[c]) + (step * channel[c]) * f32(isum)` with `mass =
//! scale * (sum of weights)`.

mod dots;
mod encode;
mod fit;
mod layout;
mod ops;
mod quantize;
mod score;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use ops::PlaneKernel;
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
pub(crate) use ops::PlaneOps;

use super::{
    Codec, CodecParams, CodecScratch, KeyCodec, PAGE, Rotation, RotationKind, Space, ValueCodec, take,
};
use crate::{Error, Isa};
use half::f16;

/// Bytes before the channels' scales.
const HEADER: usize = 64;
/// Balance weights lie between this and its inverse.
const MAX_BALANCE: f32 = 256.0;

/// Bytes of an encoded page of which `bits` bits are kept.
pub const fn page_bytes(dim: usize, bits: usize) -> usize {
    planes_at(dim) + 16 * dim * bits
}

/// Where the planes begin.
const fn planes_at(dim: usize) -> usize {
    HEADER + 4 * dim + 2 * PAGE
}

/// Buffers of the plane codecs.
#[derive(Debug, Default, Clone)]
pub(super) struct PlaneScratch {
    /// The page in f32, and its statistics.
    page: Vec<f32>,
    /// Codes of a page.
    codes: Vec<u8>,
    /// The same, channel by channel.
    transposed: Vec<u8>,
    /// Quantized queries or weights.
    ints: Vec<i8>,
    /// Scales and centres in f32.
    numbers: Vec<f32>,
    /// The pages after those of the next call.
    next: [Option<dots::Memory>; quantize::PASS_PAGES],
}

impl PlaneScratch {
    pub(super) fn expect_next<'a>(&mut self, pages: impl Iterator<Item = &'a [u8]>) {
        self.next = Default::default();
        for (next, page) in self.next.iter_mut().zip(pages) {
            *next = (!page.is_empty()).then(|| page.into());
        }
    }
}

/// What keys and values share.
#[derive(Debug, Clone)]
struct Planes {
    dim: usize,
    /// Bits of the codes when the page was encoded.
    bits: usize,
    /// Bits still there.
    kept: usize,
    rotation: Rotation,
    /// Weights of the channels and their inverses; empty if all are 1.
    balance: Vec<f32>,
    inverse_balance: Vec<f32>,
    space: Space,
}

/// Which way the planes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Keys,
    Values,
}

impl Planes {
    fn new(params: &CodecParams<'_>, bits: usize, balance: Option<&[f32]>) -> Result<Self, Error> {
        let codec = "the plane codec";
        if !(2..=8).contains(&bits) {
            return Err(Error::Parameter { codec, takes: "2 to 8 bits", got: bits });
        }
        let dim = params.dim;
        let rotation = Rotation::new(RotationKind::Hadamard, dim, params.seed)?;
        let balance = balance.unwrap_or_default();
        if !balance.is_empty() && balance.len() != dim {
            return Err(Error::Length { what: "balance", expected: dim, got: balance.len() });
        }
        if let Some(channel) = balance.iter().position(|b| !(1.0 / MAX_BALANCE..=MAX_BALANCE).contains(b)) {
            let takes = "balance weights between 1/256 and 256; the first other one is channel";
            return Err(Error::Parameter { codec, takes, got: channel });
        }
        let inverse_balance = balance.iter().map(|b| 1.0 / b).collect();
        let space = rotation.space().then(balance.iter().map(|b| u64::from(b.to_bits())));
        Ok(Self { dim, bits, kept: bits, rotation, balance: balance.to_vec(), inverse_balance, space })
    }

    /// The codec of pages that were cut to `kept` bits.
    fn cut(&self, kept: usize) -> Result<Self, Error> {
        let whole = kept == self.bits || kept.is_multiple_of(2);
        if !(2..=self.bits).contains(&kept) || !whole {
            return Err(Error::Parameter {
                codec: "a cut page",
                takes: "an even number of bits, at least 2, below its own",
                got: kept,
            });
        }
        Ok(Self { kept, ..self.clone() })
    }

    /// How much wider a kept cell is.
    fn widening(&self) -> f32 {
        (1u32 << (self.bits - self.kept)) as f32
    }

    #[inline(always)]
    fn view<'a>(&self, page: &'a [u8]) -> PageView<'a> {
        let dim = self.dim;
        assert!(page.len() >= page_bytes(dim, self.kept), "plane codec: the page is too short");
        let scale = f32::from_le_bytes([page[0], page[1], page[2], page[3]]);
        let (channel, rest) = page[HEADER..].split_at(2 * dim);
        let (centre, rest) = rest.split_at(2 * dim);
        let (token, planes) = rest.split_at(2 * PAGE);
        PageView {
            scale,
            channel: channel.as_chunks().0,
            centre: centre.as_chunks().0,
            token: token.as_chunks().0,
            planes,
        }
    }

    /// The page's numbers in the rotated coordinates, one token after the other, turned back.
    fn decode(&self, side: Side, isa: Isa, page: &[u8], scratch: &mut CodecScratch, out: &mut [f32]) {
        let (dim, view) = (self.dim, self.view(page));
        assert!(out.len() == PAGE * dim, "plane codec: wrong lengths");
        let top = (1i32 << self.kept) - 1;
        let half = |values: &[[u8; 32]], i: usize| halves(&values[i / 16])[i % 16].to_f32();
        for (t, out) in out.chunks_exact_mut(dim).enumerate() {
            let token = half(view.token, t) * self.widening();
            for (c, out) in out.iter_mut().enumerate() {
                let code = match side {
                    Side::Keys => layout::code(view.planes, [PAGE, dim], self.kept, t, c),
                    Side::Values => layout::code(view.planes, [dim, PAGE], self.kept, c, t),
                };
                let step = token * half(view.channel, c);
                *out = (half(view.centre, c) + step * (2 * i32::from(code) - top) as f32) * view.scale;
            }
            self.rotation.invert(isa, out, take(&mut scratch.record, dim));
            for (out, inverse) in out.iter_mut().zip(&self.inverse_balance) {
                *out *= inverse;
            }
        }
    }
}

/// The parts of an encoded page; arrays of halves in pieces of 16.
#[derive(Debug, Clone, Copy)]
struct PageView<'a> {
    scale: f32,
    channel: &'a [[u8; 32]],
    centre: &'a [[u8; 32]],
    token: &'a [[u8; 32]],
    planes: &'a [u8],
}

/// Sixteen little-endian halves.
#[inline(always)]
fn halves(bytes: &[u8; 32]) -> [f16; 16] {
    let mut halves = [f16::ZERO; 16];
    for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *half = f16::from_le_bytes(*bytes);
    }
    halves
}

/// Keys in planes.
#[derive(Debug, Clone)]
pub struct PlaneKeys(Planes);

/// Values in planes.
#[derive(Debug, Clone)]
pub struct PlaneValues(Planes);

impl PlaneKeys {
    /// Keys of `bits` bits (2 to 8), balanced if the parameters say so.
    ///
    /// # Errors
    /// [`Error::Dim`] for a head size without a Hadamard transform; [`Error::Parameter`] for other bits or balance
    /// weights that are not between 1/256 and 256; [`Error::Length`] if there are not `dim` of those.
    pub fn new(params: &CodecParams<'_>, bits: usize) -> Result<Self, Error> {
        Planes::new(params, bits, params.balance).map(Self)
    }

    /// The codec of this one's pages with all but the top `kept` bits cut off: of such a page the first
    /// [`page_bytes`]`(dim, kept)` bytes remain.
    ///
    /// # Errors
    /// [`Error::Parameter`] if `kept` is not even, below 2 or above this codec's bits.
    pub fn cut(&self, kept: usize) -> Result<Self, Error> {
        self.0.cut(kept).map(Self)
    }
}

impl PlaneValues {
    /// Values of `bits` bits (2 to 8).
    ///
    /// # Errors
    /// [`Error::Dim`] for a head size without a Hadamard transform, [`Error::Parameter`] for other bits.
    pub fn new(params: &CodecParams<'_>, bits: usize) -> Result<Self, Error> {
        Planes::new(params, bits, None).map(Self)
    }

    /// As [`PlaneKeys::cut`].
    ///
    /// # Errors
    /// As [`PlaneKeys::cut`].
    pub fn cut(&self, kept: usize) -> Result<Self, Error> {
        self.0.cut(kept).map(Self)
    }
}

macro_rules! codec {
    ($codec:ty, $side:expr) => {
        impl Codec for $codec {
            fn dim(&self) -> usize {
                self.0.dim
            }

            fn page_bytes(&self) -> usize {
                page_bytes(self.0.dim, self.0.kept)
            }

            fn space(&self) -> Space {
                self.0.space
            }

            /// Encodes with all of the codec's bits, then keeps the planes that fit in `page`.
            fn encode(
                &self,
                isa: Isa,
                x: &[f32],
                scratch: &mut CodecScratch,
                page: &mut [u8],
            ) -> Result<(), Error> {
                assert!(page.len() == self.page_bytes(), "plane codec: wrong lengths");
                encode::encode(&self.0, $side, isa, x, &mut scratch.planes, page)
            }

            fn decode(&self, isa: Isa, page: &[u8], scratch: &mut CodecScratch, out: &mut [f32]) {
                self.0.decode($side, isa, page, scratch, out);
            }
        }
    };
}

codec!(PlaneKeys, Side::Keys);
codec!(PlaneValues, Side::Values);

impl KeyCodec for PlaneKeys {
    fn query_len(&self) -> usize {
        self.0.dim
    }

    fn prepare(&self, isa: Isa, q: &[f32], scratch: &mut CodecScratch, prepared: &mut [f32]) {
        assert!(q.len() == self.0.dim && prepared.len() == self.0.dim, "plane codec: wrong lengths");
        if self.0.inverse_balance.is_empty() {
            return self.0.rotation.apply(isa, q, prepared);
        }
        let balanced = take(&mut scratch.record, q.len());
        for ((out, q), inverse) in balanced.iter_mut().zip(q).zip(&self.0.inverse_balance) {
            *out = q * inverse;
        }
        self.0.rotation.apply(isa, balanced, prepared);
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
        self.score_pages(isa, &[page], queries, scratch, scores, stride);
    }

    fn score_pages(
        &self,
        isa: Isa,
        pages: &[&[u8]],
        queries: &[f32],
        scratch: &mut CodecScratch,
        scores: &mut [f32],
        stride: usize,
    ) {
        let run = score::Run { isa, planes: &self.0, pages, stride };
        score::score(run, queries, &mut scratch.planes, scores);
    }
}

impl ValueCodec for PlaneValues {
    fn sum_len(&self) -> usize {
        self.0.dim
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
        self.accumulate_pages(isa, &[page], weights, stride, scratch, sums);
    }

    fn accumulate_pages(
        &self,
        isa: Isa,
        pages: &[&[u8]],
        weights: &[f32],
        stride: usize,
        scratch: &mut CodecScratch,
        sums: &mut [f32],
    ) {
        let run = score::Run { isa, planes: &self.0, pages, stride };
        score::accumulate(run, weights, &mut scratch.planes, sums);
    }

    fn finish(&self, isa: Isa, sum: &[f32], scratch: &mut CodecScratch, out: &mut [f32]) {
        assert!(sum.len() == self.0.dim && out.len() == self.0.dim, "plane codec: wrong lengths");
        out.copy_from_slice(sum);
        self.0.rotation.invert(isa, out, take(&mut scratch.record, self.0.dim));
    }
}
