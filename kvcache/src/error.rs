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
    /// More positions than memory can be.
    #[error("{positions} positions are more than memory can hold")]
    TooManyPositions {
        /// Positions asked for.
        positions: usize,
    },
}
