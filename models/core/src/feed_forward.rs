//! The gated feed-forward part (SwiGLU).

use crate::Error;
use crate::context::Context;
use crate::layer::RmsNorm;
use crate::matrix::Linear;
use crate::rows::{TILE_ROWS, for_each, sized};
use quant_kernels::silu::silu_mul;

/// `down(silu(gate x) * up x)`.
#[derive(Debug)]
pub struct GatedMlp {
    /// `ffn_gate`.
    pub gate: Linear,
    /// `ffn_up`.
    pub up: Linear,
    /// `ffn_down`.
    pub down: Linear,
}

impl GatedMlp {
    pub(crate) fn fits(&self, n_embd: usize) -> Result<(), &'static str> {
        let n_ff = self.gate.rows();
        let fits = self.gate.cols() == n_embd
            && self.up.cols() == n_embd
            && self.up.rows() == n_ff
            && self.down.cols() == n_ff
            && self.down.rows() == n_embd;
        if fits { Ok(()) } else { Err("ffn_gate, ffn_up and ffn_down") }
    }

    /// From the norm of `stream` to `branch`, both `[rows][n_embd]`.
    pub(crate) fn forward(&self, norm: &RmsNorm, cx: &mut Context, rows: usize) -> Result<(), Error> {
        let Context { kernels, parallel, activations, matmul, buffers, .. } = cx;
        let (isa, parallel) = (kernels.isa(), &**parallel);
        let n_ff = self.gate.rows();
        let (gate, up) = sized(&mut buffers.work, 2 * rows * n_ff).split_at_mut(rows * n_ff);
        let x = norm.of(&buffers.stream[..rows * self.gate.cols()]);
        let mut projections = [self.gate.projection(gate)?, self.up.projection(up)?];
        kernels.matmul(parallel, matmul, *activations, x, rows, &mut projections)?;

        let tile = TILE_ROWS * n_ff;
        for_each(parallel, gate.chunks_mut(tile).zip(up.chunks(tile)), |_, (gate, up)| {
            silu_mul(isa, gate, up)
        });

        let out = sized(&mut buffers.branch, rows * self.down.rows());
        kernels.matmul(parallel, matmul, *activations, &*gate, rows, &mut [self.down.projection(out)?])?;
        Ok(())
    }
}
