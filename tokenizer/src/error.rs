//! What can go wrong when a tokenizer is built. Encoding and decoding never fail.

/// A vocabulary that can't be used, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key is missing or of another type; the error names it.
    #[error(transparent)]
    Gguf(#[from] quant_gguf::Error),
    /// There is not one token.
    #[error("tokenizer.ggml.tokens is empty: the file carries no usable vocabulary; convert the model again")]
    Empty,
    /// `tokenizer.ggml.model` names an algorithm that isn't implemented.
    #[error("tokenizer.ggml.model is {model:?}; supported: {supported}")]
    UnsupportedModel {
        /// As the file has it.
        model: String,
        /// The implemented names, comma-separated.
        supported: &'static str,
    },
    /// `tokenizer.ggml.pre` names a pre-tokenizer that isn't implemented. Guessing would give other tokens than
    /// the model was trained on.
    #[error("tokenizer.ggml.pre is {pre:?}; supported: {supported}")]
    UnsupportedPre {
        /// As the file has it.
        pre: String,
        /// The implemented names, comma-separated.
        supported: String,
    },
    /// An array beside the token list has another length.
    #[error("{key} has {found} entries for {tokens} tokens: the file is damaged; fetch or convert it again")]
    Length {
        /// The GGUF key.
        key: &'static str,
        /// Entries in that array.
        found: usize,
        /// Entries in `tokenizer.ggml.tokens`.
        tokens: usize,
    },
    /// A token type outside 0 to 6.
    #[error("tokenizer.ggml.token_type[{index}] is {value}; known types are 0 to 6")]
    TokenType {
        /// Token id.
        index: usize,
        /// The value found.
        value: i64,
    },
    /// The id of a special token isn't in the vocabulary.
    #[error("{key} is {id}, but the vocabulary has {vocab} tokens")]
    SpecialId {
        /// The GGUF key.
        key: &'static str,
        /// The id found.
        id: u32,
        /// Number of tokens.
        vocab: usize,
    },
    /// The file wants a token added to every text and doesn't say which.
    #[error("{flag} is true, but the file has no {key}")]
    MissingSpecial {
        /// The key that asks for the token.
        flag: &'static str,
        /// The key that should name it.
        key: &'static str,
    },
    /// A merge that isn't two tokens whose concatenation is a token.
    #[error("tokenizer.ggml.merges[{index}] is {merge:?}: {why}")]
    Merge {
        /// Rank of the merge.
        index: usize,
        /// As the file has it, cut to 64 characters.
        merge: String,
        /// What's wrong with it.
        why: &'static str,
    },
    /// More than the index can address.
    #[error("the vocabulary has more than {limit} {what}")]
    TooLarge {
        /// `tokens` or `bytes`.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}
