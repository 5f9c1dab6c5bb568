//! Activations of a batch of tokens, quantized once per matmul input and shared by every weight row.
//!
//! Layout: `[block][token][block_len]`, so that a tile of weight columns walks memory linearly over tokens;
//! with one token this is the plain row.

use crate::matmul::Shared;
use crate::{Isa, Parallel, Serial, rms_norm};
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
    /// Quantized: codes in -127..=127, `[block][token][block_len]`.
    pub q: Vec<i8>,
    /// Quantized: scale per block, `[block][token]`.
    pub d: Vec<f32>,
    /// Quantized: sums of 16 consecutive codes, `[block][token][block_len / 16]`.
    pub sums: Vec<i16>,
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
    /// buffers. Tasks are runs of blocks, whose outputs lie together.
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
        let blocks = cols / len;
        self.q.resize(tokens * cols, 0);
        self.d.resize(tokens * blocks, 0.0);
        self.sums.resize(tokens * cols / 16, 0);
        let (q, d, sums) = (Shared::new(&mut self.q), Shared::new(&mut self.d), Shared::new(&mut self.sums));
        let quantize = quantizer(isa);
        let run = |first: usize, count: usize| {
            // SAFETY: blocks `first..first + count` belong to this task alone.
            let (q, d, sums) = unsafe {
                (
                    q.slice(first * tokens * len, count * tokens * len),
                    d.slice(first * tokens, count * tokens),
                    sums.slice(first * tokens * len / 16, count * tokens * len / 16),
                )
            };
            let mut normed = [0.0; NORMED];
            for token in 0..tokens {
                let row = &x[token * cols + first * len..][..count * len];
                for (part, mut x) in row.chunks(NORMED).enumerate() {
                    if let Some(norm) = norm {
                        let weight = &norm.weight[first * len + part * NORMED..][..x.len()];
                        rms_norm::weighted(isa, x, weight, norm.scales[token], &mut normed[..x.len()]);
                        x = &normed[..x.len()];
                    }
                    let at = part * (NORMED / len) * tokens + token;
                    let (q, sums) = (&mut q[at * len..], &mut sums[at * len / 16..]);
                    quantize(x, Codes { q, d: &mut d[at..], sums, len, step: tokens });
                }
            }
        };
        // A small input is done before a region would have started.
        let task = (256 / len).max(1);
        if x.len() <= SERIAL_VALUES || parallel.threads() == 1 {
            run(0, blocks);
        } else {
            parallel.run(blocks.div_ceil(task), &|_, index| {
                run(index * task, task.min(blocks - index * task));
            });
        }
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
        let (blocks, sums) = (cols / len, len / 16);
        self.q.clear();
        self.d.clear();
        self.sums.clear();
        for b in 0..blocks {
            for row in rows.clone() {
                let at = b * all.tokens + row;
                self.q.extend_from_slice(&all.q[at * len..][..len]);
                self.sums.extend_from_slice(&all.sums[at * sums..][..sums]);
                self.d.push(all.d[at]);
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

    /// Codes of block `b` of token `t`.
    pub fn block(&self, b: usize, t: usize, len: usize) -> &[i8] {
        &self.q[(b * self.tokens + t) * len..][..len]
    }
}

/// The next [`Acts::stamp`].
fn stamp() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Blocks whose largest magnitude is below this are stored as zero.
pub const TINY: f32 = f32::from_bits((127 - 100) << 23);

/// Quantizes runs of blocks.
pub(crate) type Quantizer = fn(&[f32], Codes<'_>);

/// Where the blocks of a run go: each is `step` blocks after the one before it.
pub(crate) struct Codes<'a> {
    pub q: &'a mut [i8],
    pub d: &'a mut [f32],
    pub sums: &'a mut [i16],
    /// Values in a block, 32 or 256.
    pub len: usize,
    pub step: usize,
}

impl Codes<'_> {
    /// Stores what `block` makes of every `LEN` values, as [`Acts::quantize_block`] does. Compiled into its caller, for
    /// whose instructions `block` is.
    #[inline(always)]
    pub fn fill<const LEN: usize>(self, x: &[f32], block: impl Fn(&[f32], &mut [i8], &mut [i16]) -> f32) {
        for (b, x) in x.chunks_exact(LEN).enumerate() {
            let at = b * self.step;
            let (q, sums) = (&mut self.q[at * LEN..][..LEN], &mut self.sums[at * LEN / 16..][..LEN / 16]);
            self.d[at] = block(x, q, sums);
        }
    }

    /// [`Codes::fill`] for blocks of [`Codes::len`].
    #[inline(always)]
    pub fn each(self, x: &[f32], block: impl Fn(&[f32], &mut [i8], &mut [i16]) -> f32) {
        match self.len {
            256 => self.fill::<256>(x, block),
            _ => self.fill::<32>(x, block),
        }
    }
}

/// Values that are normed, then quantized, at a time: a multiple of all blocks.
const NORMED: usize = 1024;

/// Inputs of at most this many values are quantized on the calling thread.
pub(crate) const SERIAL_VALUES: usize = 1 << 14;

/// Calls `work(token, row)` for every row, several rows to a task.
fn rows(parallel: &dyn Parallel, x: &[f32], cols: usize, work: &(dyn Fn(usize, &[f32]) + Sync)) {
    const ROWS: usize = 8;
    let parallel: &dyn Parallel = if x.len() <= SERIAL_VALUES { &Serial } else { parallel };
    parallel.run(x.len().div_ceil(ROWS * cols.max(1)), &|_, task| {
        let first = task * ROWS;
        for (i, row) in x[first * cols..].chunks_exact(cols).take(ROWS).enumerate() {
            work(first + i, row);
        }
    });
}

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

/// The quantizer of a tier, with the bits of [`Acts::quantize_block`].
fn quantizer(isa: Isa) -> Quantizer {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(proof) => crate::x86::avx512::activations::quantizer(proof),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(proof) => crate::x86::avx2::activations::quantizer(proof),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni(proof) => crate::x86::avx2::activations::quantizer(proof.into()),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(_) => |x, codes| {
            let lanes = crate::arm::neon::lanes();
            codes.each(x, |x, q, sums| crate::vec128::quantize_block(lanes, x, q, sums));
        },
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Isa::Simd128(proof) => crate::wasm::simd128::quantizer(proof),
        _ => |x, codes| codes.each(x, Acts::quantize_block),
    }
}
