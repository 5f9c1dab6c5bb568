//! What can go wrong with a GGUF file, said with the place and what to do.

use std::io;
use std::path::PathBuf;

use crate::GgmlType;
use crate::limits::{MAX_ALIGNMENT, MAX_ARRAY_DEPTH, MAX_DIMS, MAX_PARTS};

/// An error of this crate. Offsets are bytes from the start of the file (of the part, if it is split).
///
/// Keys and names are printed quoted and escaped, so that a hostile file can't write to a terminal. The message
/// is complete, causes included: `source` is never set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file can't be opened or mapped.
    #[error("can't read {path}: {cause}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A part of a split model has a fault of its own.
    #[error("part {part} of {count}: {cause}")]
    Part {
        /// Which part, from 1.
        part: usize,
        /// How many parts there are.
        count: usize,
        /// The fault.
        cause: Box<Error>,
    },
    /// The file does not begin with `GGUF`.
    #[error(
        "not a GGUF file: it begins with {found:02x?}, not with \"GGUF\"; convert the model to GGUF first"
    )]
    Magic {
        /// Its first bytes.
        found: [u8; 4],
    },
    /// A version that nobody defined, in either byte order.
    #[error("GGUF version {found} is not known (1, 2 and 3 are)")]
    Version {
        /// The version field, read as little-endian.
        found: u32,
    },
    /// The file ends inside something, or a length in it lies.
    #[error(
        "the file ends too early: {what} at offset {offset} needs {needed} bytes, {remaining} remain; download it again"
    )]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// How long it says it is, at the least.
        needed: u64,
        /// What the file still holds there.
        remaining: u64,
    },
    /// A string is not UTF-8.
    #[error("{what} at offset {offset} is not valid UTF-8")]
    Utf8 {
        /// What was being read.
        what: &'static str,
        /// Where the string begins.
        offset: u64,
    },
    /// A key or a name is longer than any sane file has it.
    #[error("{what} at offset {offset} has {len} bytes; at most {limit} are allowed")]
    TooLong {
        /// What was being read or written.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// Its length in bytes.
        len: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The id of a metadata value type is none of GGUF's.
    #[error("metadata key {key:?}: value type {id} is not known (0 to 12 are)")]
    ValueType {
        /// The key.
        key: String,
        /// The id.
        id: u32,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("metadata key {key:?}: the boolean at offset {offset} is {found}, neither 0 nor 1")]
    Bool {
        /// The key.
        key: String,
        /// Where the byte is.
        offset: u64,
        /// The byte.
        found: u8,
    },
    /// Arrays in arrays, too deep.
    #[error("metadata key {key:?}: arrays are nested deeper than {MAX_ARRAY_DEPTH} levels")]
    ArrayDepth {
        /// The key.
        key: String,
    },
    /// A key occurs twice.
    #[error("metadata key {key:?} occurs twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// `general.alignment` is not a power of two, or too large.
    #[error("general.alignment is {found}; it must be a power of two, at most {MAX_ALIGNMENT}")]
    Alignment {
        /// The value.
        found: u64,
    },
    /// A tensor name occurs twice.
    #[error("tensor {name:?} occurs twice")]
    DuplicateTensor {
        /// The tensor.
        name: String,
    },
    /// No dimensions, or too many.
    #[error("tensor {name:?} has {found} dimensions; 1 to {MAX_DIMS} are allowed")]
    Dimensions {
        /// The tensor.
        name: String,
        /// How many it claims.
        found: u64,
    },
    /// A dimension is 0 or the product is beyond counting.
    #[error("tensor {name:?} has the impossible shape {dims:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its dimensions, the row length first.
        dims: Vec<u64>,
    },
    /// The rows of a tensor are not whole blocks of its type.
    #[error("tensor {name:?}: rows of {cols} values are not whole {ty} blocks of {block}")]
    RowLength {
        /// The tensor.
        name: String,
        /// Its type.
        ty: GgmlType,
        /// Values in a row.
        cols: u64,
        /// Values in a block.
        block: u64,
    },
    /// The data of a tensor does not begin at a multiple of the alignment.
    #[error("tensor {name:?}: its data offset {offset} is not a multiple of the alignment {alignment}")]
    Misaligned {
        /// The tensor.
        name: String,
        /// The offset from the start of the data section.
        offset: u64,
        /// The alignment of the file.
        alignment: u64,
    },
    /// The data of a tensor lies beyond the end of the file.
    #[error(
        "tensor {name:?}: its data ({bytes} bytes at offset {offset} of the data section, which begins at {data_start}) \
         goes beyond the end of the file at {file_bytes}; the file is cut short, download it again"
    )]
    OutOfFile {
        /// The tensor.
        name: String,
        /// The offset from the start of the data section.
        offset: u64,
        /// Its length in bytes.
        bytes: u64,
        /// Where the data section begins.
        data_start: u64,
        /// The length of the file.
        file_bytes: u64,
    },
    /// Two tensors claim the same bytes.
    #[error("the data of tensors {first:?} and {second:?} overlap")]
    Overlap {
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
    },
    /// A key that the caller can't do without is absent.
    #[error("metadata key {key:?} is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A key has a value of another type than the caller needs.
    #[error("metadata key {key:?} should be {expected} but is {found}")]
    WrongType {
        /// The key.
        key: String,
        /// What was asked for.
        expected: &'static str,
        /// What the file has: `u32`, `array of string`.
        found: String,
    },
    /// An integer does not fit the type that the caller needs.
    #[error("metadata key {key:?} should be {expected} but holds {value}")]
    OutOfRange {
        /// The key.
        key: String,
        /// What was asked for.
        expected: &'static str,
        /// The value.
        value: i128,
    },
    /// There is no tensor of this name.
    #[error("tensor {name:?} is missing")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// The type of a tensor is none that ggml defines.
    #[error("tensor {name:?} has the type id {id}, which is not known; a newer version may read it")]
    UnknownType {
        /// The tensor.
        name: String,
        /// The type id.
        id: u32,
    },
    /// The blocks of a quantized type in a big-endian file.
    #[error(
        "tensor {name:?} holds {ty} blocks in big-endian order, which are not supported; convert the file to little-endian"
    )]
    BigEndianBlocks {
        /// The tensor.
        name: String,
        /// Its type.
        ty: GgmlType,
    },
    /// The model is split and not all of its parts are here.
    #[error(
        "the model is split into {expected} parts but {given} were given; keep all parts in one folder, \
         named like model-00001-of-{expected:05}.gguf"
    )]
    PartCount {
        /// Parts given.
        given: usize,
        /// Parts that the metadata speaks of.
        expected: u64,
    },
    /// The parts are not in order, or one is of another model.
    #[error(
        "split.no is {found} where part {expected} (counted from 0) should be; are all parts of one model?"
    )]
    PartOrder {
        /// What the part says.
        found: u64,
        /// Its place.
        expected: usize,
    },
    /// The parts together hold another number of tensors than the first one says.
    #[error(
        "split.tensors.count is {expected} but the parts hold {found} tensors; are all parts of one model?"
    )]
    PartTensors {
        /// Tensors found.
        found: u64,
        /// Tensors announced.
        expected: u64,
    },
    /// More parts than any sane model has.
    #[error("{count} parts; at most {MAX_PARTS} are allowed")]
    TooManyParts {
        /// How many.
        count: usize,
    },
    /// The data given for a tensor has another length than its shape and type say.
    #[error("tensor {name:?}: its shape and type make {expected} bytes, {found} were given")]
    DataLength {
        /// The tensor.
        name: String,
        /// Bytes by shape and type.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
    /// A number does not fit the 32-bit fields of GGUF version 1.
    #[error("{what} {value} does not fit GGUF version 1; write version 3")]
    VersionOne {
        /// What was being written.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// The output can't be written.
    #[error("can't write: {0}")]
    Write(io::Error),
}

impl From<io::Error> for Error {
    fn from(cause: io::Error) -> Self {
        Self::Write(cause)
    }
}
