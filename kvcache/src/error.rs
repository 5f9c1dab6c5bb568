//! What can go wrong in this crate.

use std::fmt;

/// Which half of the memory a value belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// A key.
    Key,
    /// A value.
    Value,
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Value => "value",
        })
    }
}

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The byte budget does not hold what was asked for. Nothing was allocated.
    #[error(
        "the KV cache needs {needed} more bytes and has {available} left of its budget of {budget}: \
         release sequences or raise the budget"
    )]
    OutOfMemory {
        /// Bytes that the new pages take.
        needed: usize,
        /// Bytes that the budget still has.
        available: usize,
        /// The budget.
        budget: usize,
    },
    /// The sequence was released, or is of another cache.
    #[error("sequence {index}.{generation} is not in this KV cache: it was released, or is another cache's")]
    UnknownSequence {
        /// Slot of the id.
        index: u32,
        /// Which use of the slot.
        generation: u32,
    },
    /// A value is too large for f16.
    #[error(
        "layer {layer}, position {position}: the {half} {value:e} does not fit in f16 (largest 65504): \
         use the f32 KV cache"
    )]
    Overflow {
        /// The layer.
        layer: usize,
        /// The position.
        position: usize,
        /// Key or value.
        half: Half,
        /// The value.
        value: f32,
    },
    /// A position was written that is already committed, not reserved, or in a page that a fork shares.
    #[error("position {position} is not writable: {len} positions are committed; reserve it first")]
    NotReserved {
        /// The position.
        position: usize,
        /// Committed positions of the sequence.
        len: usize,
    },
    /// More positions were committed than reserved.
    #[error("{count} positions can't be committed after {len}: only {capacity} are reserved")]
    CommitPastReserved {
        /// Positions to commit.
        count: usize,
        /// Committed positions of the sequence.
        len: usize,
        /// Positions that its pages hold.
        capacity: usize,
    },
    /// A layer or head that the layout does not have.
    #[error("the KV cache has no layer {layer} with a head {kv_head}")]
    NoSuchHead {
        /// The layer.
        layer: usize,
        /// The KV head.
        kv_head: usize,
    },
    /// A row of keys or values has another length than its layer's shape.
    #[error("layer {layer}: a row of {half}s has {expected} values, got {got}")]
    RowLength {
        /// The layer.
        layer: usize,
        /// Keys or values.
        half: Half,
        /// Heads times head size.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// The layers are so large that a page does not fit in memory.
    #[error("a KV page of {layers} such layers is larger than memory can be")]
    LayoutTooLarge {
        /// Layers asked for.
        layers: usize,
    },
    /// A text that is no policy.
    #[error("KV policy, character {at}: {found:?} {problem}; allowed: {allowed}")]
    Policy {
        /// Where the part begins, counted from 1.
        at: usize,
        /// The part.
        found: String,
        /// What is wrong with it.
        problem: &'static str,
        /// What may stand there.
        allowed: String,
    },
    /// Parts of a policy that do not fit together.
    #[error("KV policy: {reason}")]
    PolicyParts {
        /// What does not fit.
        reason: &'static str,
    },
    /// A codec of the policy that has no form for a layer.
    #[error("layer {layer}: {half}s can't be kept in the codec {codec}: {source}")]
    Codec {
        /// The layer.
        layer: usize,
        /// Keys or values.
        half: Half,
        /// The codec.
        codec: &'static str,
        /// Why not.
        source: quant_kernels::Error,
    },
    /// A layer reads the keys and values of one that it can't read.
    #[error(
        "layer {layer} can't read the keys and values of layer {of}: it must be an earlier layer with its own, of the same shape and window"
    )]
    Source {
        /// The layer.
        layer: usize,
        /// Whose pages it was to read.
        of: usize,
    },
    /// A layer that has no pages of its own was written.
    #[error("layer {layer} reads another layer's keys and values and has none of its own to write")]
    SharedLayer {
        /// The layer.
        layer: usize,
    },
    /// Queries ask for a page that was not sealed for them.
    #[error(
        "layer {layer}: page {page} is not sealed for these queries: call `seal` after the layer's rows are written"
    )]
    NotSealed {
        /// The layer.
        layer: usize,
        /// The page.
        page: usize,
    },
    /// A page to be sealed holds NaN or an infinity.
    #[error(
        "layer {layer}, position {position}: a {half} is not finite: the weights are damaged or a number overflowed"
    )]
    NotFinite {
        /// The layer.
        layer: usize,
        /// Keys or values.
        half: Half,
        /// The position.
        position: usize,
    },
    /// A page that a codec can't hold.
    #[error(
        "layer {layer}, the {half}s of the page from position {first} on: {source}; use a KV cache of f16 or f32"
    )]
    Encode {
        /// The layer.
        layer: usize,
        /// Keys or values.
        half: Half,
        /// First position of the page.
        first: usize,
        /// What the codec says.
        source: quant_kernels::Error,
    },
    /// A layer without a state, or a state that is not the sequence's own yet, or a copy of one that is not due.
    #[error(
        "layer {layer} has no state here: recurrent layers have one from the first reserved position on, and copies where they are due"
    )]
    NoState {
        /// The layer.
        layer: usize,
    },
    /// A state that was changed can't be shared before it is committed.
    #[error(
        "the sequence's states are of positions that are not committed: commit or rewind it before it is forked"
    )]
    Uncommitted,
    /// Pages that are not those of one sequence, in order.
    #[error("a sequence is made of its pages in order: page {expected} is missing, got page {got}")]
    PageOrder {
        /// The page that was to come.
        expected: usize,
        /// The page that came.
        got: usize,
    },
    /// Pages that can't be taken out of a sequence.
    #[error("pages {first} to {end} can't be taken out of the sequence: {problem}")]
    Shift {
        /// The first page to go.
        first: usize,
        /// The first page behind them.
        end: usize,
        /// Why not.
        problem: &'static str,
    },
    /// A sequence that was shifted, or took pages from elsewhere, can't be kept for others.
    #[error("pages of the sequence were moved: they depend on text that is gone and serve no other sequence")]
    Shifted,
    /// A sequence whose pages lost planes can't be kept for others.
    #[error(
        "planes of the sequence's pages were dropped when memory was short: what it computed since depends on that and \
         serves no other sequence"
    )]
    Reduced,
    /// A store can't read the planes that it was to keep.
    #[error("lost planes can't be brought back: {problem}")]
    Spill {
        /// What the store says.
        problem: String,
    },
    /// A snapshot that is not one of this cache.
    #[error("the snapshot can't be used: {problem}")]
    Snapshot {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The system has no memory left.
    #[error("the system refused {bytes} bytes for the KV cache")]
    System {
        /// Bytes asked for.
        bytes: usize,
    },
    /// More positions than memory can be.
    #[error("{positions} positions are more than memory can hold")]
    TooManyPositions {
        /// Positions asked for.
        positions: usize,
    },
}
