//! Matrix times activations: several weights with one input are one call, one quantization, one parallel region.

mod experts;
mod tile;

pub use experts::{ExpertProjection, Routes, combine_experts};
#[cfg(target_arch = "x86_64")]
pub(crate) use tile::Arranged;
pub(crate) use tile::Shared;
pub use tile::{Scratch, Tile};

use crate::activations::{ActKind, Acts, Input, RowNorm, norm_scales};
use crate::types::TypeKernels;
use crate::{Error, GgmlType, Kernels, Parallel};
use experts::{ExpertScratch, Gathered};
use std::sync::{Mutex, PoisonError};

/// How activations are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activations {
    /// As the weight type asks: int8 for quantized weights, f32 for float weights.
    #[default]
    Auto,
    /// Never quantized: weights are dequantized and multiplied in f32 (the reference mode).
    F32,
}

/// A weight matrix as it lies in the file: `rows` rows of `cols` values, row after row. Checked on creation.
#[derive(Debug, Clone, Copy)]
pub struct Weight<'a> {
    ty: GgmlType,
    rows: usize,
    cols: usize,
    bytes: &'a [u8],
}

impl<'a> Weight<'a> {
    /// Checks that `bytes` holds exactly this shape.
    ///
    /// # Errors
    /// [`Error::RowLength`] if blocks do not divide a row, [`Error::Length`] if `bytes` has another length.
    pub fn new(ty: GgmlType, rows: usize, cols: usize, bytes: &'a [u8]) -> Result<Self, Error> {
        if !cols.is_multiple_of(ty.block_len()) {
            return Err(Error::RowLength { ty, cols, block: ty.block_len() });
        }
        let expected = ty.row_bytes(cols).saturating_mul(rows);
        if bytes.len() != expected {
            return Err(Error::Length { what: "weight bytes", expected, got: bytes.len() });
        }
        Ok(Self { ty, rows, cols, bytes })
    }

    /// The type.
    pub fn ty(&self) -> GgmlType {
        self.ty
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The bytes of one row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        let bytes = self.ty.row_bytes(self.cols);
        &self.bytes[row * bytes..][..bytes]
    }

    /// The rows `first..first + rows` as a matrix of their own (a fused tensor's part).
    pub fn slice_rows(&self, first: usize, rows: usize) -> Self {
        let bytes = self.ty.row_bytes(self.cols);
        Self { rows, bytes: &self.bytes[first * bytes..][..rows * bytes], ..*self }
    }
}

/// One output of a matmul call: `out[token][rows] = weight * x[token] + bias`.
#[derive(Debug)]
pub struct Projection<'a> {
    /// The weight.
    pub weight: Weight<'a>,
    /// Added once to each output row.
    pub bias: Option<&'a [f32]>,
    /// `[tokens][weight.rows]`.
    pub out: &'a mut [f32],
}

/// Buffers that matmul calls reuse; grows to the largest call and stays.
#[derive(Debug, Default)]
pub struct MatmulScratch {
    acts: [Acts; 3],
    /// The factor of each row, where the input has a norm.
    norms: Vec<f32>,
    workers: Vec<Mutex<Worker>>,
    experts: ExpertScratch,
}

/// What one worker keeps between tasks.
#[derive(Debug, Default)]
struct Worker {
    tile: Scratch,
    /// Reference mode: a row of dequantized values, and rows of them as little-endian bytes.
    values: Vec<f32>,
    rows: Vec<u8>,
    /// Activations of one expert, of each kind.
    gathered: [Gathered; 3],
}

/// Projections that share one parallel region; more are run in groups.
const GROUP: usize = 8;
/// Rows of a task are a multiple of this, which is a multiple of every kernel's row group.
const ROW_GROUP: usize = 64;
/// Tasks wanted per thread, so that a slow core delays nobody.
const TASKS_PER_THREAD: usize = 8;
/// Rows that the reference mode dequantizes at a time.
const REFERENCE_ROWS: usize = 16;

/// One projection, ready for the workers.
#[derive(Debug, Clone, Copy)]
struct Job<'a> {
    weight: Weight<'a>,
    bias: Option<&'a [f32]>,
    out: Shared<'a, f32>,
    /// The output row of each token, if not in order.
    out_tokens: Option<&'a [u32]>,
    /// The rows of the task after this one, if they do not follow in memory.
    next: Option<&'a [u8]>,
    acts: &'a Acts,
    kernels: &'a TypeKernels,
    /// Set in the reference mode: the kernels of dequantized rows.
    reference: Option<&'a TypeKernels>,
}

impl Kernels {
    /// Multiplies every projection's weight with the same input `x`, `[tokens][cols]`; an [`Input`] with a norm is
    /// normed on the way, row by row, with the bits of [`crate::rms_norm::rms_norm`] before the call.
    ///
    /// Bits do not depend on `parallel`, on the tier, or on how tokens are batched.
    ///
    /// # Errors
    /// Shapes that do not fit, or a type without arithmetic.
    pub fn matmul<'x>(
        &self,
        parallel: &dyn Parallel,
        scratch: &mut MatmulScratch,
        activations: Activations,
        x: impl Into<Input<'x>>,
        tokens: usize,
        projections: &mut [Projection<'_>],
    ) -> Result<(), Error> {
        let input = x.into();
        let mut needed = [false; 3];
        for p in projections.iter() {
            needed[self.checked(activations, input, tokens, p)? as usize] = true;
        }
        let Some(cols) = projections.first().map(|p| p.weight.cols) else { return Ok(()) };
        let MatmulScratch { acts, norms, workers, .. } = scratch;
        let norm = input.norm.map(|norm| {
            norm_scales(self.isa(), parallel, input.x, cols, norm.eps, norms);
            RowNorm { weight: norm.weight, scales: norms }
        });
        for kind in [ActKind::F32, ActKind::Q32, ActKind::Q256] {
            if needed[kind as usize] {
                acts[kind as usize].quantize(self.isa(), parallel, kind, input.x, norm, cols);
            }
        }
        if workers.len() < parallel.threads() {
            workers.resize_with(parallel.threads(), Mutex::default);
        }
        for group in projections.chunks_mut(GROUP) {
            let mut jobs = [None; GROUP];
            for (job, p) in jobs.iter_mut().zip(group) {
                *job = self.job(activations, acts, p);
            }
            run(parallel, workers, &jobs);
        }
        Ok(())
    }

    /// Checks the shapes of a projection; returns the form of activations it needs.
    fn checked(
        &self,
        activations: Activations,
        Input { x, norm }: Input<'_>,
        tokens: usize,
        p: &Projection<'_>,
    ) -> Result<ActKind, Error> {
        let Weight { ty, rows, cols, .. } = p.weight;
        let plan = self.plan(activations, ty).ok_or(Error::NoKernel { ty })?;
        let check = |what, expected: usize, got: usize| {
            if expected == got { Ok(()) } else { Err(Error::Length { what, expected, got }) }
        };
        check("matmul input", tokens.saturating_mul(cols), x.len())?;
        check("norm weight", cols, norm.map_or(cols, |norm| norm.weight.len()))?;
        check("matmul output", tokens.saturating_mul(rows), p.out.len())?;
        check("matmul bias", rows, p.bias.map_or(rows, <[f32]>::len))?;
        Ok(plan.kind)
    }

    fn job<'a>(
        &'a self,
        activations: Activations,
        acts: &'a [Acts; 3],
        p: &'a mut Projection<'_>,
    ) -> Option<Job<'a>> {
        let Plan { kind, kernels, reference } = self.plan(activations, p.weight.ty)?;
        Some(Job {
            weight: p.weight,
            bias: p.bias,
            out: Shared::new(p.out),
            out_tokens: None,
            next: None,
            acts: &acts[kind as usize],
            kernels,
            reference,
        })
    }
}

/// How a projection is computed.
struct Plan<'a> {
    kind: ActKind,
    kernels: &'a TypeKernels,
    reference: Option<&'a TypeKernels>,
}

impl Kernels {
    fn plan(&self, activations: Activations, ty: GgmlType) -> Option<Plan<'_>> {
        let kernels = self.of(ty)?;
        let reference = match activations {
            Activations::F32 if kernels.acts != ActKind::F32 => self.of(GgmlType::F32),
            _ => None,
        };
        let kind = if reference.is_some() { ActKind::F32 } else { kernels.acts };
        Some(Plan { kind, kernels, reference })
    }
}

/// Runs all tasks of all jobs in one parallel region.
fn run(parallel: &dyn Parallel, workers: &[Mutex<Worker>], jobs: &[Option<Job<'_>>; GROUP]) {
    let rows: usize = jobs.iter().flatten().map(|job| job.weight.rows).sum();
    let wanted = parallel.threads() * TASKS_PER_THREAD;
    let task_rows = if parallel.threads() == 1 {
        rows.max(1).next_multiple_of(ROW_GROUP)
    } else {
        (rows / wanted).max(1).next_multiple_of(ROW_GROUP)
    };
    let tasks = jobs.iter().flatten().map(|job| job.weight.rows.div_ceil(task_rows)).sum();
    parallel.run(tasks, &|worker, mut index| {
        for job in jobs.iter().flatten() {
            let count = job.weight.rows.div_ceil(task_rows);
            if index < count {
                // A panic in another task poisons nothing that this one reads before it writes.
                let mut worker = workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
                let first = index * task_rows;
                return job.task(&mut worker, first, task_rows.min(job.weight.rows - first));
            }
            index -= count;
        }
    });
}

impl Job<'_> {
    /// Computes `rows` rows from `first`.
    fn task(&self, worker: &mut Worker, first: usize, rows: usize) {
        let part = self.weight.slice_rows(first, rows);
        let mut tile = Tile {
            weight: part.bytes,
            row_bytes: part.ty.row_bytes(part.cols),
            rows,
            acts: self.acts,
            scratch: &mut worker.tile,
            out: self.out,
            bias: self.bias.map(|bias| &bias[first..first + rows]),
            first_row: first,
            stride: self.weight.rows,
            out_tokens: self.out_tokens,
            next: self.next,
        };
        let Some(float) = self.reference else {
            return (self.kernels.tile)(&mut tile);
        };
        worker.values.resize(part.cols, 0.0);
        for first in (0..rows).step_by(REFERENCE_ROWS) {
            let rows = REFERENCE_ROWS.min(rows - first);
            worker.rows.clear();
            for row in first..first + rows {
                (self.kernels.dequantize)(part.row(row), &mut worker.values);
                worker.rows.extend(worker.values.iter().flat_map(|value| value.to_le_bytes()));
            }
            (float.tile)(&mut Tile {
                weight: &worker.rows,
                row_bytes: part.cols * 4,
                rows,
                scratch: tile.scratch,
                bias: tile.bias.map(|bias| &bias[first..first + rows]),
                first_row: tile.first_row + first,
                ..tile
            });
        }
    }
}
