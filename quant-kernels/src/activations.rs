//! Activations of a batch of tokens, quantized once per matmul input and shared by every weight row.
//!
//! Layout: `[group][token][block][block_len]`, where a group is 256 columns (the last may be shorter): a tile of weight
//! columns walks memory linearly over tokens, whatever the length of its blocks; with one token this is the plain row.

use crate::matmul::Shared;
use crate::{Isa, Parallel, Serial, rms_norm};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// How activations meet the weights of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum ActKind {
    /// Not quantized: F32, F16 and BF16 weights, and the reference mode.
    F32,
    /// int8 blocks of 32 values: legacy types, MXFP4, NVFP4, IQ4_NL, Q1_0, Q2_0.
    Q32,
    /// int8 blocks of 256 values: K-quants, i-quants of 256, ternary types.
    Q256,
}

impl ActKind {
    /// Values in a block; 1 for [`ActKind::F32`].
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Q32 => 32,
            Self::Q256 => 256,
        }
    }
}

/// Activations of `tokens` rows of `cols` values. Which of the buffers are filled depends on `kind`.
#[derive(Debug, Default, Clone)]
pub struct Acts {
    /// Form of these activations.
    pub kind: Option<ActKind>,
    /// Different for all contents that were stored in this process; 0: unknown.
    pub stamp: u64,
    /// Rows.
    pub tokens: usize,
    /// Values per row.
    pub cols: usize,
    /// `F32`: `[token][cols]`.
    pub x: Vec<f32>,
    /// Quantized: codes in -127..=127, `[group][token][block][block_len]`.
    pub q: Vec<i8>,
    /// Quantized: scale per block, `[group][token][block]`.
    pub d: Vec<f32>,
    /// Quantized: sums of 16 consecutive codes, `[group][token][block][block_len / 16]`.
    pub sums: Vec<i16>,
    /// Blocks of 256: upper bounds of what codes can sum up to, `[group][token]`.
    pub reach: Vec<Reach>,
}

/// Upper bounds of sums over the codes of a block of 256, from which kernels see whether narrow integers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The largest sum of magnitudes of 16 consecutive codes, counted from a multiple of 16.
    pub of_16: u16,
    /// The largest sum of magnitudes of the codes of one sign among 32 consecutive ones, counted from a multiple of 32.
    pub one_sign_of_32: u16,
}

impl Reach {
    /// What is always true.
    pub const UNKNOWN: Self = Self { of_16: u16::MAX, one_sign_of_32: u16::MAX };
}

/// An RMS norm on the way into a matmul: its output is quantized block by block and never stored.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// One factor per column.
    pub weight: &'a [f32],
    /// Added to the mean of squares.
    pub eps: f32,
}

/// A norm whose factor is known for each row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowNorm<'a> {
    pub weight: &'a [f32],
    /// One per token.
    pub scales: &'a [f32],
}

/// The input of a matmul, `[tokens][cols]`: as it is, or after a norm.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The values.
    pub x: &'a [f32],
    /// What is done to each row first.
    pub norm: Option<Norm<'a>>,
}

impl<'a> From<&'a [f32]> for Input<'a> {
    fn from(x: &'a [f32]) -> Self {
        Self { x, norm: None }
    }
}

impl<'a, const N: usize> From<&'a [f32; N]> for Input<'a> {
    fn from(x: &'a [f32; N]) -> Self {
        x.as_slice().into()
    }
}

impl<'a> From<&'a Vec<f32>> for Input<'a> {
    fn from(x: &'a Vec<f32>) -> Self {
        x.as_slice().into()
    }
}

impl Acts {
    /// Stores the input, `[tokens][cols]`, in the form `kind`; `cols` is a multiple of its block. Reuses the
    /// buffers. Tasks are some tokens each.
    pub(crate) fn quantize(
        &mut self,
        isa: Isa,
        parallel: &dyn Parallel,
        kind: ActKind,
        x: &[f32],
        norm: Option<RowNorm<'_>>,
        cols: usize,
    ) {
        let tokens = x.len() / cols.max(1);
        (self.kind, self.stamp, self.tokens, self.cols) = (Some(kind), stamp(), tokens, cols);
        let len = kind.block_len();
        if kind == ActKind::F32 {
            return self.store(isa, parallel, x, norm);
        }
        self.q.resize(tokens * cols, 0);
        self.d.resize(tokens * (cols / len), 0.0);
        self.sums.resize(tokens * (cols / 16), 0);
        // Blocks of 256 are groups of their own.
        let bounds = usize::from(len == GROUP);
        self.reach.resize(tokens * (cols / GROUP) * bounds, Reach::UNKNOWN);
        let (q, d, sums) = (Shared::new(&mut self.q), Shared::new(&mut self.d), Shared::new(&mut self.sums));
        let reach = Shared::new(&mut self.reach);
        let quantize = quantizer(isa);
        tasks(parallel, x, cols, &|rows| {
            let mut normed = [0.0; GROUP];
            for first in (0..cols).step_by(GROUP) {
                let width = GROUP.min(cols - first);
                // Next to each other in memory, unlike the groups of a token.
                for token in rows.clone() {
                    let mut x = &x[token * cols + first..][..width];
                    if let Some(norm) = norm {
                        let weight = &norm.weight[first..first + width];
                        rms_norm::weighted(isa, x, weight, norm.scales[token], &mut normed[..width]);
                        x = &normed[..width];
                    }
                    let at = first * tokens + token * width;
                    // SAFETY: a token belongs to one task.
                    let (q, d, sums, reach) = unsafe {
                        (
                            q.slice(at, width),
                            d.slice(at / len, width / len),
                            sums.slice(at / 16, width / 16),
                            reach.slice(at / GROUP * bounds, bounds),
                        )
                    };
                    reach.fill(quantize(x, q, d, sums));
                }
            }
        });
    }

    /// Keeps the input in f32.
    fn store(&mut self, isa: Isa, parallel: &dyn Parallel, x: &[f32], norm: Option<RowNorm<'_>>) {
        let Some(norm) = norm else {
            self.x.clear();
            return self.x.extend_from_slice(x);
        };
        self.x.resize(x.len(), 0.0);
        let (cols, out) = (self.cols, Shared::new(&mut self.x));
        rows(parallel, x, cols, &|token, row| {
            // SAFETY: a token's row belongs to one task.
            let out = unsafe { out.slice(token * cols, cols) };
            rms_norm::weighted(isa, row, norm.weight, norm.scales[token], out);
        });
    }

    /// Becomes the given rows of `all`, in the order given.
    pub(crate) fn gather(&mut self, all: &Self, rows: impl ExactSizeIterator<Item = usize> + Clone) {
        let (tokens, cols) = (rows.len(), all.cols);
        (self.kind, self.stamp, self.tokens, self.cols) = (all.kind, stamp(), tokens, cols);
        let len = all.kind.map_or(1, ActKind::block_len);
        if len == 1 {
            self.x.clear();
            rows.for_each(|row| self.x.extend_from_slice(&all.x[row * cols..][..cols]));
            return;
        }
        self.q.resize(tokens * cols, 0);
        self.d.resize(tokens * (cols / len), 0.0);
        self.sums.resize(tokens * (cols / 16), 0);
        self.reach.resize(tokens * (cols / GROUP) * usize::from(len == GROUP), Reach::UNKNOWN);
        for first in (0..cols).step_by(GROUP) {
            let width = GROUP.min(cols - first);
            for (token, row) in rows.clone().enumerate() {
                let (to, from) = (first * tokens + token * width, first * all.tokens + row * width);
                // Of a length known beforehand copies are a few instructions.
                match width {
                    GROUP => copy::<GROUP, _>(&mut self.q[to..], &all.q[from..]),
                    _ => self.q[to..][..width].copy_from_slice(&all.q[from..][..width]),
                }
                match width {
                    GROUP => copy::<{ GROUP / 16 }, _>(&mut self.sums[to / 16..], &all.sums[from / 16..]),
                    _ => self.sums[to / 16..][..width / 16]
                        .copy_from_slice(&all.sums[from / 16..][..width / 16]),
                }
                for (d, from) in self.d[to / len..][..width / len].iter_mut().zip(&all.d[from / len..]) {
                    *d = *from;
                }
                if len == GROUP {
                    self.reach[to / GROUP] = all.reach[from / GROUP];
                }
            }
        }
    }

    /// Quantizes one block by the contract and returns its scale: amax over the block; not finite: NaN and
    /// codes 0; below 2^-100: 0 and codes 0; else d = amax / 127 and q = round_ties_even(x * (127 / amax)).
    pub fn quantize_block(x: &[f32], q: &mut [i8], sums: &mut [i16]) -> f32 {
        let amax = x.iter().fold(0f32, |m, v| {
            if v.is_nan() {
                f32::NAN
            } else if m.is_nan() {
                m
            } else {
                m.max(v.abs())
            }
        });
        if !amax.is_finite() || amax < TINY {
            q.fill(0);
            sums.fill(0);
            return if amax.is_finite() { 0.0 } else { f32::NAN };
        }
        let inverse = 127.0 / amax;
        for (q, x) in q.iter_mut().zip(x) {
            *q = (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
        }
        for (sum, q) in sums.iter_mut().zip(q.chunks_exact(16)) {
            *sum = q.iter().map(|&q| i16::from(q)).sum();
        }
        amax / 127.0
    }

    /// Quantizes the blocks of a token, one scale each, by `block`: [`Self::quantize_block`] or its equal.
    #[inline(always)]
    pub(crate) fn quantize_blocks(
        x: &[f32],
        q: &mut [i8],
        d: &mut [f32],
        sums: &mut [i16],
        block: impl Fn(&[f32], &mut [i8], &mut [i16]) -> f32,
    ) -> Reach {
        let len = x.len() / d.len().max(1);
        let blocks = x.chunks_exact(len).zip(q.chunks_exact_mut(len)).zip(sums.chunks_exact_mut(len / 16));
        for (((x, q), sums), d) in blocks.zip(d) {
            *d = block(x, q, sums);
        }
        Reach::UNKNOWN
    }

    /// Where block `b`, of `len` values, of token `t` stands among the blocks.
    #[inline]
    pub fn place(&self, b: usize, t: usize, len: usize) -> usize {
        let group = GROUP / len;
        let first = b / group * group;
        first * self.tokens + t * group.min(self.cols / len - first) + b % group
    }

    /// Codes of block `b` of token `t`.
    pub fn block(&self, b: usize, t: usize, len: usize) -> &[i8] {
        &self.q[self.place(b, t, len) * len..][..len]
    }
}

fn copy<const LEN: usize, T: Copy>(to: &mut [T], from: &[T]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<LEN>(), from.first_chunk()) {
        *to = *from;
    }
}

/// The next [`Acts::stamp`].
fn stamp() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Columns that lie together for each token.
pub const GROUP: usize = 256;

/// Blocks whose largest magnitude is below this are stored as zero.
pub const TINY: f32 = f32::from_bits((127 - 100) << 23);

/// Inputs of at most this many values are quantized on the calling thread.
pub(crate) const SERIAL_VALUES: usize = 1 << 14;

/// Calls `work(token, row)` for every row, one or several rows to a task.
fn rows(parallel: &dyn Parallel, x: &[f32], cols: usize, work: &(dyn Fn(usize, &[f32]) + Sync)) {
    tasks(parallel, x, cols, &|tokens| {
        for token in tokens {
            work(token, &x[token * cols..][..cols]);
        }
    });
}

/// Calls `work` for all tokens, one or several at a time.
fn tasks(parallel: &dyn Parallel, x: &[f32], cols: usize, work: &(dyn Fn(Range<usize>) + Sync)) {
    let parallel: &dyn Parallel = if x.len() <= SERIAL_VALUES { &Serial } else { parallel };
    let tokens = x.len() / cols.max(1);
    let least = SERIAL_VALUES / 2 / cols.max(1);
    let rows = least.max(tokens / (TASKS_PER_THREAD * parallel.threads())).clamp(1, 8);
    parallel.run(tokens.div_ceil(rows), &|_, task| {
        let first = task * rows;
        work(first..tokens.min(first + rows));
    });
}

/// Tasks that a thread may well have.
const TASKS_PER_THREAD: usize = 8;

/// The factor that an RMS norm multiplies each row with.
pub(crate) fn norm_scales(
    isa: Isa,
    parallel: &dyn Parallel,
    x: &[f32],
    cols: usize,
    eps: f32,
    scales: &mut Vec<f32>,
) {
    scales.clear();
    scales.resize(x.len() / cols.max(1), 0.0);
    let out = Shared::new(scales);
    rows(parallel, x, cols, &|token, row| {
        // SAFETY: a token's scale belongs to one task.
        let scale = unsafe { out.slice(token, 1) };
        scale.fill(rms_norm::scale(isa, row, eps));
    });
}

/// Quantizes the blocks of a token in one group: values to codes, scales (as many as there are blocks) and sums of 16.
/// Only tiers that use the bounds find them out.
pub(crate) type Quantizer = fn(&[f32], &mut [i8], &mut [f32], &mut [i16]) -> Reach;

/// The version of [`Acts::quantize_block`] for a tier, equal bit for bit, for all blocks of a token in one group.
fn quantizer(isa: Isa) -> Quantizer {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(proof) => crate::x86::avx512::activations::quantizer(proof),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(proof) => crate::x86::avx2::activations::quantizer(proof),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni(proof) => crate::x86::avx2::activations::quantizer(proof.into()),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(_) => |x, q, d, sums| {
            let simd = crate::arm::neon::lanes();
            Acts::quantize_blocks(x, q, d, sums, |x, q, sums| crate::vec128::quantize_block(simd, x, q, sums))
        },
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Isa::Simd128(proof) => crate::wasm::simd128::quantizer(proof),
        _ => |x, q, d, sums| Acts::quantize_blocks(x, q, d, sums, Acts::quantize_block),
    }
}
