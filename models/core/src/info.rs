//! What there is to say about a model without running it.

/// Shape and size of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// `general.architecture`.
    pub arch: String,
    /// Layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Query heads (of the first layer, where layers differ).
    pub n_heads: usize,
    /// KV heads (of the first layer).
    pub n_kv_heads: usize,
    /// Values of a head's key (of the first layer).
    pub key_dim: usize,
    /// Values of a head's value (of the first layer).
    pub value_dim: usize,
    /// Token ids there are.
    pub vocab: usize,
    /// Positions the model was trained for.
    pub context_length: usize,
    /// Values of all tensors.
    pub parameters: u64,
    /// Bytes of weights that decoding one token reads.
    pub bytes_per_token: u64,
}
