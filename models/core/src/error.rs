//! What can go wrong when a model is loaded or run.

use quant_kernels::GgmlType;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file lacks something, or has it in another form.
    #[error(transparent)]
    Gguf(#[from] quant_gguf::Error),
    /// A kernel refused its input.
    #[error(transparent)]
    Kernels(#[from] quant_kernels::Error),
    /// The KV cache refused a sequence, or is full.
    #[error(transparent)]
    Cache(#[from] quant_kvcache::Error),
    /// No crate of this build runs the architecture.
    #[error("architecture {arch:?} is not supported; this build runs: {supported}")]
    Architecture {
        /// `general.architecture` of the file.
        arch: String,
        /// What there is, comma-separated.
        supported: String,
    },
    /// The architecture is known, this variant of it is not.
    #[error("{what} is not supported (architecture {arch:?})")]
    Unsupported {
        /// `general.architecture` of the file.
        arch: String,
        /// The variant.
        what: String,
    },
    /// The file has tensors or hyper-parameters that the model would not use: it would run and be wrong.
    #[error(
        "the file has parts that this architecture does not know, so it is another model than it says: {}",
        unclaimed(.tensors, .keys)
    )]
    Unclaimed {
        /// Names of tensors that nobody asked for.
        tensors: Vec<String>,
        /// Keys under the architecture's name that nobody asked for.
        keys: Vec<String>,
    },
    /// A tensor has another shape than the hyper-parameters say.
    #[error("tensor {tensor:?} should have the shape {expected:?} (row length first) but has {found:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Dimensions that it should have, in ggml's order.
        expected: Vec<u64>,
        /// Dimensions that it has.
        found: Vec<u64>,
    },
    /// A tensor has a type that can't be used in its place.
    #[error("tensor {tensor:?} has the type {ty}, which can't be used as {place}")]
    TensorType {
        /// The tensor.
        tensor: String,
        /// Its type.
        ty: GgmlType,
        /// What it is needed for.
        place: &'static str,
    },
    /// A hyper-parameter makes no sense.
    #[error("metadata key {key:?} is {value}: {reason}")]
    Hyperparameter {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A model was put together from parts that do not fit.
    #[error("layer {layer}: {what} do not fit together")]
    Parts {
        /// The layer; one past the last for the head.
        layer: usize,
        /// The parts.
        what: &'static str,
    },
    /// A token id that the vocabulary does not have.
    #[error("token {token} is not in the vocabulary of {vocab}")]
    Token {
        /// The id.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// More positions than the context was set to.
    #[error(
        "{needed} positions are needed, the context holds {context}: shorten the input or raise the context"
    )]
    Context {
        /// Positions of the sequence with the new tokens.
        needed: usize,
        /// The limit.
        context: usize,
    },
    /// Two spans of one forward pass belong to one sequence.
    #[error("a sequence can have one span in a forward pass, spans {first} and {second} are of the same one")]
    DuplicateSequence {
        /// Index of the first span.
        first: usize,
        /// Index of the second.
        second: usize,
    },
    /// The KV cache was made for another model.
    #[error("the KV cache has other layers than the model: make it from the model's `kv_layout`")]
    CacheLayout,
    /// A logit is NaN or infinite: the weights or the KV cache are damaged, or a number overflowed.
    #[error(
        "the logits after position {position} are not finite: the weights are damaged or a number overflowed"
    )]
    NotFinite {
        /// The position of the row.
        position: usize,
    },
}

/// The first few names of each kind and how many more there are.
fn unclaimed(tensors: &[String], keys: &[String]) -> String {
    const SHOWN: usize = 8;
    let list = |kind: &str, names: &[String]| {
        let mut text = format!("{} {kind} ", names.len());
        text.push_str(&names.iter().take(SHOWN).map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", "));
        if names.len() > SHOWN {
            text.push_str(", ...");
        }
        text
    };
    [("tensors", tensors), ("keys", keys)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(kind, names)| list(kind, names))
        .collect::<Vec<_>>()
        .join("; ")
}
