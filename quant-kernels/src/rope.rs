//! Rotary position embedding (Su et al., arXiv 2104.09864) and its scalings.
//!
//! Frequencies and angles are f64, sine and cosine come from `libm` and are rounded once to f32: no platform's own
//! libm decides a bit, and no table grows with the context.

use crate::Isa;
use crate::simd::{self, Kernel, Simd};
use std::f64::consts::TAU;

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
        /// The factor.
        factor: f32,
    },
    /// YaRN (arXiv 2309.00071) as ggml computes it.
    Yarn {
        /// Scale factor.
        factor: f32,
        /// Training context in positions.
        original_context: u32,
        /// Extrapolation mix, 1; at 0 all is interpolation and the magnitude is `attn_factor` alone.
        ext_factor: f32,
        /// Multiplies the magnitude 0.1 ln(factor) + 1.
        attn_factor: f32,
        /// Rotations in the training context above which a pair is left alone: 32.
        beta_fast: f32,
        /// Rotations below which a pair is fully interpolated: 1.
        beta_slow: f32,
    },
    /// Fixed factor on cos and sin (LongRoPE); the frequency factors come as a table.
    Magnitude {
        /// Multiplies cos and sin.
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
    /// `dims` rotated values per head (even), `base`, optional `factors` that divide the frequencies.
    ///
    /// # Panics
    /// If `dims` is odd or there are not `dims / 2` factors.
    pub fn new(
        pairs: RopePairs,
        dims: usize,
        base: f32,
        factors: Option<&[f32]>,
        scaling: RopeScaling,
    ) -> Self {
        assert!(dims.is_multiple_of(2), "rope: {dims} rotated values are not pairs");
        let pair_count = dims / 2;
        if let Some(factors) = factors {
            assert!(
                factors.len() == pair_count,
                "rope: {} frequency factors for {pair_count} pairs",
                factors.len()
            );
        }
        let base = f64::from(base);
        let plain = (0..pair_count).map(|i| {
            let freq = libm::pow(base, -2.0 * i as f64 / dims as f64);
            factors.map_or(freq, |factors| freq / f64::from(factors[i]))
        });
        let (inv_freq, magnitude) = match scaling {
            RopeScaling::None => (plain.collect(), 1.0),
            RopeScaling::Linear { factor } => (plain.map(|f| f / f64::from(factor)).collect(), 1.0),
            RopeScaling::Magnitude { attn_factor } => (plain.collect(), attn_factor),
            RopeScaling::Yarn { factor, original_context, ext_factor, attn_factor, beta_fast, beta_slow } => {
                let (factor, ext_factor) = (f64::from(factor), f64::from(ext_factor));
                // the pair that turns `rotations` times within the training context
                let turning = |rotations: f32| {
                    let wavelength = f64::from(original_context) / (f64::from(rotations) * TAU);
                    dims as f64 * libm::log(wavelength) / (2.0 * libm::log(base))
                };
                let low = libm::floor(turning(beta_fast)).max(0.0);
                let high = libm::ceil(turning(beta_slow)).min(dims as f64 - 1.0);
                let mixed = plain.enumerate().map(|(i, freq)| {
                    let ramp = 1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    let mix = ramp * ext_factor;
                    (freq / factor) * (1.0 - mix) + freq * mix
                });
                let magnitude = if ext_factor == 0.0 { 1.0 } else { 0.1 * libm::log(factor) + 1.0 };
                (mixed.collect(), (magnitude * f64::from(attn_factor)) as f32)
            }
        };
        Self { pairs, inv_freq, magnitude }
    }

    /// Fills `cos` and `sin` (each `inv_freq.len()`) for one position.
    ///
    /// # Panics
    /// If a length differs.
    pub fn angles(&self, position: usize, cos: &mut [f32], sin: &mut [f32]) {
        let pairs = self.inv_freq.len();
        assert!(cos.len() == pairs && sin.len() == pairs, "rope: {pairs} cosines and sines are needed");
        for ((cos, sin), freq) in cos.iter_mut().zip(sin).zip(&self.inv_freq) {
            let (s, c) = libm::sincos(position as f64 * freq);
            *cos = c as f32 * self.magnitude;
            *sin = s as f32 * self.magnitude;
        }
    }

    /// Rotates all heads of `head_dim` values in `x` in place; values past the rotated ones stay.
    ///
    /// # Panics
    /// If `x` is not whole heads, a head is smaller than the rotated part, or `cos` and `sin` have other lengths
    /// than [`Rope::angles`] fills.
    pub fn apply(&self, isa: Isa, x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
        let half = self.inv_freq.len();
        assert!(
            head_dim > 0 && x.len().is_multiple_of(head_dim) && 2 * half <= head_dim,
            "rope: {} values in heads of {head_dim}, of which {} rotate",
            x.len(),
            2 * half
        );
        assert!(cos.len() == half && sin.len() == half, "rope: {half} cosines and sines are needed");
        simd::dispatch(isa, Apply { pairs: self.pairs, x, head_dim, cos, sin });
    }
}

struct Apply<'a> {
    pairs: RopePairs,
    x: &'a mut [f32],
    head_dim: usize,
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let half = self.cos.len();
        for head in self.x.chunks_exact_mut(self.head_dim) {
            let rotated = &mut head[..2 * half];
            match self.pairs {
                RopePairs::Interleaved => {
                    for ((pair, cos), sin) in
                        rotated.as_chunks_mut::<2>().0.iter_mut().zip(self.cos).zip(self.sin)
                    {
                        *pair = rotate(pair[0], pair[1], *cos, *sin);
                    }
                }
                RopePairs::Halves => {
                    let (first, second) = rotated.split_at_mut(half);
                    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(self.cos).zip(self.sin) {
                        [*a, *b] = rotate(*a, *b, *cos, *sin);
                    }
                }
            }
        }
    }
}

/// The rotation of one pair: multiply, then subtract or add.
#[inline(always)]
fn rotate(a: f32, b: f32, cos: f32, sin: f32) -> [f32; 2] {
    [a * cos - b * sin, a * sin + b * cos]
}
