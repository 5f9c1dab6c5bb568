//! Looking into a forward pass: a probe sees the residual stream between layers.

use std::fmt;

/// A place in the forward pass. Displayed with ggml's names: `embd`, `l_out-3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Point {
    /// The input of layer 0.
    Embedding,
    /// The residual stream after a layer.
    LayerOutput(usize),
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedding => f.write_str("embd"),
            Self::LayerOutput(layer) => write!(f, "l_out-{layer}"),
        }
    }
}

/// Records activations.
pub trait Probe {
    /// Whether [`Probe::record`] shall be called for this point. Rows that get no logits are dropped in the last
    /// layer unless its output is wanted.
    fn wants(&self, point: Point) -> bool;

    /// Sees the residual stream at a point: `values` is `[row][width]`, the rows of all spans in order.
    fn record(&mut self, point: Point, values: &[f32], width: usize);
}

/// Records nothing and costs nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    fn wants(&self, _point: Point) -> bool {
        false
    }

    fn record(&mut self, _point: Point, _values: &[f32], _width: usize) {}
}
