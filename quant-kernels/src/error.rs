//! What can go wrong in this crate.

use crate::GgmlType;

/// An error of this crate: what was asked, and what would have been right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `QUANT_ISA` or a caller asked for a tier that this CPU lacks.
    #[error("this CPU does not offer the tier '{wanted}'; available here: {available}")]
    IsaUnavailable {
        /// The tier asked for.
        wanted: String,
        /// The tiers there are, comma-separated.
        available: String,
    },
    /// A buffer has another length than its shape says.
    #[error("{what}: expected {expected} elements, got {got}")]
    Length {
        /// The buffer.
        what: &'static str,
        /// The length its shape asks for.
        expected: usize,
        /// The length it has.
        got: usize,
    },
    /// A row length that the type's blocks do not divide.
    #[error("a row of {cols} values is not a whole number of {ty} blocks of {block}")]
    RowLength {
        /// The type.
        ty: GgmlType,
        /// Values in a row.
        cols: usize,
        /// Values in a block.
        block: usize,
    },
    /// The type has geometry but no arithmetic (I8, I16, I32, I64, F64, Q8_1, Q8_K as weights).
    #[error("{ty} tensors can't be multiplied with or quantized to")]
    NoKernel {
        /// The type.
        ty: GgmlType,
    },
    /// A value to quantize that is not finite or larger than the type holds.
    #[error("the value in row {row}, column {col} is not finite or too large for {ty}")]
    ValueRange {
        /// The type.
        ty: GgmlType,
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
    },
    /// An importance that is negative or not finite.
    #[error("the importance of column {col} is negative or not finite")]
    Importance {
        /// The column.
        col: usize,
    },
    /// A value that must be finite, or minus infinity where that means "never", is not.
    #[error("{what} {index} is {value}; an earlier computation overflowed or its input was not finite")]
    NotANumber {
        /// What the value is.
        what: &'static str,
        /// Its place.
        index: usize,
        /// The value, as text.
        value: String,
    },
    /// A route to an expert that there is none of.
    #[error("a token is routed to expert {id}, but there are {experts}")]
    Expert {
        /// The expert asked for.
        id: u32,
        /// Experts there are.
        experts: usize,
    },
    /// A head size that the transform or codec has no form for.
    #[error("{what} has no form for vectors of {dim} values; it takes {takes}")]
    Dim {
        /// The transform or codec.
        what: &'static str,
        /// The size asked for.
        dim: usize,
        /// The sizes there are.
        takes: &'static str,
    },
    /// A parameter of a codec outside its range.
    #[error("{codec} takes {takes}, not {got}")]
    Parameter {
        /// The codec.
        codec: &'static str,
        /// What it takes.
        takes: &'static str,
        /// What it got.
        got: usize,
    },
    /// A vector to be encoded holds NaN or an infinity.
    #[error("token {token} of the page holds a value that is not finite")]
    NotFinite {
        /// Its place in the page.
        token: usize,
    },
    /// A scale or norm of an encoded vector is beyond the range of f16.
    #[error("token {token} of the page is too large for {codec}: a half-precision scale can't hold it")]
    Overflow {
        /// The codec.
        codec: &'static str,
        /// Its place in the page.
        token: usize,
    },
    /// The system refused a thread.
    #[error("can't start {wanted} threads: {reason}; ask for fewer")]
    Threads {
        /// Threads asked for.
        wanted: usize,
        /// What the system said.
        reason: String,
    },
}
