//! What forward passes run with and reuse: kernels, workers, buffers.

use crate::attention::AttentionBuffers;
use crate::rows::sized;
use quant_kernels::matmul::MatmulScratch;
use quant_kernels::rope::Rope;
use quant_kernels::{Activations, Kernels, Parallel};
use quant_kvcache::SequenceId;
use std::fmt;
use std::sync::Arc;

/// Kernels, workers and buffers of forward passes. Buffers grow to the largest pass and stay: after that a pass
/// allocates nothing. One context serves one pass at a time and any number of models and caches.
pub struct Context {
    pub(crate) kernels: Arc<Kernels>,
    pub(crate) parallel: Arc<dyn Parallel + Send>,
    pub(crate) activations: Activations,
    pub(crate) limit: Option<usize>,
    pub(crate) matmul: MatmulScratch,
    pub(crate) batch: Batch,
    pub(crate) buffers: Buffers,
    pub(crate) attention: AttentionBuffers,
}

impl Context {
    /// A context with these kernels and workers.
    pub fn new(kernels: Arc<Kernels>, parallel: Arc<dyn Parallel + Send>, activations: Activations) -> Self {
        Self {
            kernels,
            parallel,
            activations,
            limit: None,
            matmul: MatmulScratch::default(),
            batch: Batch::default(),
            buffers: Buffers::default(),
            attention: AttentionBuffers::default(),
        }
    }

    /// Refuses positions from `limit` on; `None` refuses none.
    #[must_use]
    pub fn with_context_limit(mut self, limit: Option<usize>) -> Self {
        self.limit = limit;
        self
    }

    /// How activations are treated.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// The kernels.
    pub fn kernels(&self) -> &Arc<Kernels> {
        &self.kernels
    }

    /// The workers.
    pub fn parallel(&self) -> &Arc<dyn Parallel + Send> {
        &self.parallel
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("isa", &self.kernels.isa())
            .field("threads", &self.parallel.threads())
            .field("activations", &self.activations)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// A span's rows in the batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub sequence: SequenceId,
    /// First row of the batch.
    pub first_row: usize,
    /// Rows.
    pub tokens: usize,
    /// Position of the first row in its sequence.
    pub first_position: usize,
}

/// The rows of all spans, stacked.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub entries: Vec<Entry>,
    /// Position of each row, as its angles have it.
    pub positions: Vec<usize>,
    /// For sequences that were shifted: the rows' positions with each offset that their pages have.
    pub turned: Vec<Turned>,
    /// Rows that get logits.
    pub wanted: Vec<usize>,
    /// cos and sin of each rope for each row.
    pub angles: Vec<Angles>,
}

/// The rows as they meet pages of another offset.
#[derive(Debug, Default)]
pub(crate) struct Turned {
    pub positions: Vec<usize>,
    pub angles: Vec<Angles>,
}

/// cos and sin of one rope, `[row][pairs]`.
#[derive(Debug, Default)]
pub(crate) struct Angles {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

impl Batch {
    /// Rows of all spans.
    pub fn rows(&self) -> usize {
        self.positions.len()
    }

    /// Computes the rotations of every row, once for all layers.
    pub fn rotate(&mut self, parallel: &dyn Parallel, ropes: &[Rope]) {
        turn(parallel, ropes, &self.positions, &mut self.angles);
        for turned in &mut self.turned {
            turn(parallel, ropes, &turned.positions, &mut turned.angles);
        }
    }
}

fn turn(parallel: &dyn Parallel, ropes: &[Rope], positions: &[usize], angles: &mut Vec<Angles>) {
    angles.resize_with(ropes.len().max(angles.len()), Angles::default);
    for (angles, rope) in angles.iter_mut().zip(ropes) {
        let pairs = rope.inv_freq.len();
        let cos = sized(&mut angles.cos, positions.len() * pairs);
        let sin = sized(&mut angles.sin, positions.len() * pairs);
        let rows = cos.chunks_exact_mut(pairs).zip(sin.chunks_exact_mut(pairs)).zip(positions);
        crate::rows::for_each(parallel, rows, |_, ((cos, sin), &position)| rope.angles(position, cos, sin));
    }
}

/// Activations, each `[row][width]`.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// The residual stream.
    pub stream: Vec<f32>,
    /// Output of a mixer or feed-forward part.
    pub branch: Vec<f32>,
    /// What one part needs while it runs; nothing in it outlives the part, so that all parts share the memory.
    pub work: Vec<f32>,
}
