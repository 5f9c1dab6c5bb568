//! Causal depthwise convolution over time with a short kernel, as state-space and DeltaNet layers put before their
//! recurrence.
//!
//! ```text
//! y[t][c] = sum over j of weight[j][c] * x[t - (kernel - 1) + j][c]        added in order to +0.0
//! ```
//!
//! Inputs before the first token come from the state: the last `kernel - 1` inputs, oldest first, zeros at the start of
//! a sequence. Multiply, then add; each output is a function of its own inputs, so chunks of any size have the same bits.

use crate::matmul::Shared;
use crate::silu::silu;
use crate::simd::{self, Kernel, LANES, Simd};
use crate::{Error, Isa, Parallel};

/// What follows the convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvActivation {
    /// Nothing.
    None,
    /// SiLU.
    Silu,
}

/// Shapes of a convolution.
#[derive(Debug, Clone, Copy)]
pub struct CausalConv1d<'a> {
    /// `[kernel][channels]`, the newest input last. (GGUF stores `[channels][kernel]`: transpose once, on loading.)
    pub weight: &'a [f32],
    /// Channels, at least 1.
    pub channels: usize,
    /// What follows.
    pub activation: ConvActivation,
}

/// Tokens of a task.
const TOKENS: usize = 16;

impl CausalConv1d<'_> {
    /// Inputs that an output looks at.
    pub fn kernel(&self) -> usize {
        self.weight.len() / self.channels.max(1)
    }

    /// Convolves the tokens `x`, `[tokens][channels]`, into `out` of the same shape, and moves the state,
    /// `[kernel - 1][channels]`, past them.
    ///
    /// # Errors
    /// [`Error::Length`] for shapes that do not fit.
    pub fn forward(
        &self,
        isa: Isa,
        parallel: &dyn Parallel,
        x: &[f32],
        state: &mut [f32],
        out: &mut [f32],
    ) -> Result<(), Error> {
        let (channels, kernel) = (self.channels, self.kernel());
        let check = |what, expected: usize, got: usize| {
            if expected == got { Ok(()) } else { Err(Error::Length { what, expected, got }) }
        };
        check("convolution weight", kernel.max(1) * channels.max(1), self.weight.len())?;
        let tokens = x.len() / channels;
        check("convolution input", tokens * channels, x.len())?;
        check("convolution output", x.len(), out.len())?;
        check("convolution state", (kernel - 1) * channels, state.len())?;
        let past: &[f32] = state;
        let shared = Shared::new(out);
        parallel.run(tokens.div_ceil(TOKENS), &|_, task| {
            for t in task * TOKENS..(task * TOKENS + TOKENS).min(tokens) {
                // SAFETY: a token's outputs belong to one task.
                let out = unsafe { shared.slice(t * channels, channels) };
                simd::dispatch(isa, Token { conv: self, past, x, t, out });
            }
        });
        let keep = state.len().min(x.len());
        state.copy_within(keep.., 0);
        let new = state.len() - keep;
        state[new..].copy_from_slice(&x[x.len() - keep..]);
        Ok(())
    }
}

/// One token.
struct Token<'a> {
    conv: &'a CausalConv1d<'a>,
    past: &'a [f32],
    x: &'a [f32],
    t: usize,
    out: &'a mut [f32],
}

impl Kernel for Token<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { conv, past, x, t, out } = self;
        let (channels, kernel) = (conv.channels, conv.kernel());
        for j in 0..kernel {
            // Row `t + j` of the state's rows followed by those of `x`.
            let row = match (t + j).checked_sub(kernel - 1) {
                Some(row) => &x[row * channels..][..channels],
                None => &past[(t + j) * channels..][..channels],
            };
            let weight = &conv.weight[j * channels..][..channels];
            let (wide, tail) = out.as_chunks_mut::<LANES>();
            let rows = row.as_chunks::<LANES>().0.iter().zip(weight.as_chunks::<LANES>().0);
            for (out, (x, w)) in wide.iter_mut().zip(rows) {
                let sum = if j == 0 { s.splat(0.0) } else { s.load(out) };
                s.store(s.add(sum, s.mul(s.load(w), s.load(x))), out);
            }
            let first = channels - tail.len();
            for ((out, x), w) in tail.iter_mut().zip(&row[first..]).zip(&weight[first..]) {
                *out = if j == 0 { 0.0 } else { *out } + w * x;
            }
        }
        if conv.activation == ConvActivation::Silu {
            for out in out {
                *out = silu(*out);
            }
        }
    }
}
