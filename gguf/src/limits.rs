//! The bounds that the reader holds every file to, and the writer too.
//!
//! Counts (keys, tensors, array elements) need no constant: each is bounded by the bytes that remain, divided
//! by the least that one item takes.

/// Most dimensions of a tensor (ggml's `GGML_MAX_DIMS`); the least is 1.
pub const MAX_DIMS: usize = 4;

/// Most bytes of a metadata key, as the GGUF specification says.
pub const MAX_KEY_BYTES: u64 = 65_535;

/// Most bytes of a tensor name. ggml itself stops at 63; files for other programs go beyond.
pub const MAX_NAME_BYTES: u64 = 65_535;

/// Most levels of arrays in arrays; a plain array is one level.
pub const MAX_ARRAY_DEPTH: usize = 4;

/// The alignment of tensor data where a file names none.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// The largest alignment, in bytes; every alignment is a power of two.
pub const MAX_ALIGNMENT: u64 = 1 << 20;

/// Most files that one model may be split into.
pub const MAX_PARTS: usize = 4096;

/// Most values in one tensor: ggml counts them in a signed 64-bit integer.
pub const MAX_TENSOR_VALUES: u64 = i64::MAX as u64;
