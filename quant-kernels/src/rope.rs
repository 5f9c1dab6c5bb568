//! Rotary position embedding.
use crate::Isa;

/// Which pairs of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairs {
    /// (2i, 2i+1): ggml's NORM.
    Interleaved,
    /// (i, i + n/2): ggml's NEOX.
    Halves,
}

/// How positions beyond the training context are scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// angle / factor.
    Linear {
        /** The factor. */
        factor: f32,
    },
    /// YaRN (arXiv 2309.00071) as ggml computes it.
    Yarn {
        /// Scale factor.
        factor: f32,
        /// Training context.
        original_context: u32,
        /// Extrapolation mix, 1.
        ext_factor: f32,
        /// Multiplies the magnitude 0.1 ln(factor) + 1.
        attn_factor: f32,
        /// 32.
        beta_fast: f32,
        /// 1.
        beta_slow: f32,
    },
    /// Fixed factor on cos and sin (LongRoPE); the frequency factors come as a table.
    Magnitude {
        /** Multiplies cos and sin. */
        attn_factor: f32,
    },
}

/// The rotation of one attention layer: inverse frequencies in f64, magnitude in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Pairing.
    pub pairs: RopePairs,
    /// Angle per position of each pair.
    pub inv_freq: Vec<f64>,
    /// Multiplies cos and sin.
    pub magnitude: f32,
}

impl Rope {
    /// `dims` rotated values per head (even), `base`, optional `factors` of length `dims / 2` that divide.
    pub fn new(
        pairs: RopePairs,
        dims: usize,
        base: f32,
        factors: Option<&[f32]>,
        scaling: RopeScaling,
    ) -> Self {
        let inv_freq = (0..dims / 2)
            .map(|i| {
                let f = factors.map_or(1.0, |f| f64::from(f[i]));
                let s = if let RopeScaling::Linear { factor } = scaling { f64::from(factor) } else { 1.0 };
                libm::pow(f64::from(base), -2.0 * i as f64 / dims as f64) / f / s
            })
            .collect();
        Self { pairs, inv_freq, magnitude: 1.0 }
    }

    /// Fills `cos` and `sin` (each `inv_freq.len()`) for one position.
    pub fn angles(&self, position: usize, cos: &mut [f32], sin: &mut [f32]) {
        for ((c, s), f) in cos.iter_mut().zip(sin).zip(&self.inv_freq) {
            let (sn, cs) = libm::sincos(position as f64 * f);
            *c = cs as f32 * self.magnitude;
            *s = sn as f32 * self.magnitude;
        }
    }

    /// Rotates `heads` heads of `head_dim` values in place; values past the rotated dims stay.
    pub fn apply(&self, _isa: Isa, x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
        let half = self.inv_freq.len();
        for head in x.chunks_exact_mut(head_dim) {
            for i in 0..half {
                let (a, b) = match self.pairs {
                    RopePairs::Interleaved => (2 * i, 2 * i + 1),
                    RopePairs::Halves => (i, i + half),
                };
                let (x0, x1) = (head[a], head[b]);
                head[a] = x0 * cos[i] - x1 * sin[i];
                head[b] = x0 * sin[i] + x1 * cos[i];
            }
        }
    }
}
