//! What can go wrong in this crate.

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
    /// Every token is banned.
    #[error(
        "no token is left to choose from: every logit is minus infinity; remove a ban from the logit biases"
    )]
    NoCandidate,
}
