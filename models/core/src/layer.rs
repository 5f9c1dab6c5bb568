//! A layer: a mixer of positions and a feed-forward part, each behind a norm and added to the residual stream.

use crate::attention::Attention;
use crate::feed_forward::GatedMlp;
use crate::matrix::{Linear, Matrix};
use quant_kernels::activations::{Input, Norm};

/// Root-mean-square norm.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    /// Multiplies the normalised values.
    pub weight: Vec<f32>,
    /// Added to the mean of squares.
    pub eps: f32,
}

impl RmsNorm {
    /// The norm of these rows, as a matmul takes it.
    pub(crate) fn of<'a>(&'a self, x: &'a [f32]) -> Input<'a> {
        Input { x, norm: Some(Norm { weight: &self.weight, eps: self.eps }) }
    }
}

/// What lets positions see each other. Hybrids are lists of layers with different kinds.
#[derive(Debug)]
#[non_exhaustive]
pub enum Mixer {
    /// Softmax attention over the KV cache.
    Attention(Attention),
}

/// What happens to each position on its own.
#[derive(Debug)]
#[non_exhaustive]
pub enum FeedForward {
    /// `down(silu(gate x) * up x)`.
    Gated(GatedMlp),
}

/// `x += mixer(attn_norm(x)); x += feed_forward(ffn_norm(x))`. Fields are named as GGUF names tensors.
#[derive(Debug)]
pub struct Layer {
    /// Norm before the mixer.
    pub attn_norm: RmsNorm,
    /// The mixer.
    pub mixer: Mixer,
    /// Norm before the feed-forward part.
    pub ffn_norm: RmsNorm,
    /// The feed-forward part.
    pub feed_forward: FeedForward,
}

impl Layer {
    /// The matrices that every pass reads from end to end.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let Mixer::Attention(attention) = &self.mixer;
        let FeedForward::Gated(mlp) = &self.feed_forward;
        let attention = [&attention.q, &attention.k, &attention.v, &attention.output];
        attention.into_iter().chain([&mlp.gate, &mlp.up, &mlp.down]).map(Linear::matrix)
    }

    /// Whether every part takes and gives rows of `n_embd` values and refers to ropes that exist.
    pub(crate) fn fits(
        &self,
        n_embd: usize,
        ropes: &[quant_kernels::rope::Rope],
    ) -> Result<(), &'static str> {
        let norms = [&self.attn_norm, &self.ffn_norm];
        if norms.iter().any(|norm| norm.weight.len() != n_embd) {
            return Err("norms and the width");
        }
        match &self.mixer {
            Mixer::Attention(attention) => attention.fits(n_embd, ropes)?,
        }
        match &self.feed_forward {
            FeedForward::Gated(mlp) => mlp.fits(n_embd),
        }
    }
}
