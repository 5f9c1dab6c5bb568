//! What can go wrong in this crate.

use std::path::PathBuf;
use std::sync::Arc;

/// An error of this crate: what was asked, where, and what would have been right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A sampler setting makes no sense.
    #[error("sampler setting {name} is {value}; it must be {allowed}")]
    Sampler {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// The model computed a logit that is no number.
    #[error(
        "the logit of token {token} is {logit}: the model file is damaged or its values overflow; check the file, or try --activations f32"
    )]
    BadLogit {
        /// The token.
        token: u32,
        /// NaN or plus infinity.
        logit: f32,
    },
    /// The model file is missing or damaged.
    #[error(transparent)]
    Gguf(#[from] quant_gguf::Error),
    /// The model can't be run, or a forward pass failed.
    #[error(transparent)]
    Models(#[from] quant_models::Error),
    /// The KV cache refused something.
    #[error(transparent)]
    Cache(#[from] quant_kvcache::Error),
    /// A kernel or a thread could not be had.
    #[error(transparent)]
    Kernels(#[from] quant_kernels::Error),
    /// The file's vocabulary can't be read.
    #[error(transparent)]
    Tokenizer(Arc<quant_tokenizer::Error>),
    /// The prompt, with the token that is to follow it, does not fit.
    #[error(
        "the prompt needs a context of {tokens} tokens, the context holds {context}: shorten the prompt or raise the context"
    )]
    PromptTooLong {
        /// Tokens that the context would have to hold.
        tokens: usize,
        /// Tokens that it holds.
        context: usize,
    },
    /// There is nothing to continue.
    #[error("there is nothing to continue: the prompt has no tokens, and the model begins texts with none")]
    EmptyPrompt,
    /// A token id that the model does not have.
    #[error("token {token} is not in the vocabulary of {vocabulary}")]
    Token {
        /// The id.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// The memory set aside for the KV cache does not hold the context.
    #[error(
        "a context of {context} tokens needs {needed} bytes of KV cache, the budget is {budget}: ask for a context \
         of at least 1 token that fits, or raise the budget"
    )]
    ContextBudget {
        /// Tokens asked for.
        context: usize,
        /// Bytes they need.
        needed: usize,
        /// Bytes there are.
        budget: usize,
    },
    /// The session was closed, or is another engine's.
    #[error("the session is not open in this engine")]
    UnknownSession,
    /// A generation runs on the session.
    #[error("a generation runs on this session: let it end or cancel it first")]
    Busy,
    /// Every token is banned.
    #[error(
        "no token is left to choose from: every logit is minus infinity; remove a ban from the logit biases"
    )]
    NoCandidate,
    /// A text that does not fill one chunk.
    #[error(
        "the text has {tokens} tokens, a chunk takes {context}: give a longer text, or shorter chunks (--ctx)"
    )]
    TextTooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a chunk.
        context: usize,
    },
    /// Chunks of which no position can be scored, or none.
    #[error("nothing can be scored in {tokens} tokens: a chunk has at least 4, and there is at least one")]
    ChunkTooShort {
        /// Tokens asked for.
        tokens: usize,
    },
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A snapshot of a session that can't be used.
    #[error("{}: {problem}", path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A session that forgot more text than a snapshot can tell.
    #[error("the session forgot more than 2^31 tokens: its positions do not fit in a snapshot")]
    TooFarShifted,
    /// A file of logits that can't be compared with.
    #[error("{} can't serve as the reference's logits: {problem}", path.display())]
    LogitsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
}
