//! Rotary embedding as files describe it, the same keys for every architecture.

use crate::{Error, Loader};
use quant_kernels::rope::{Rope, RopePairs, RopeScaling};

/// ggml's default base.
const DEFAULT_BASE: f32 = 10_000.0;

impl Loader<'_> {
    /// The model's rope from `rope.*` and `rope_freqs.weight`, for heads of `head_dim` values.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] for values that make no sense, [`Error::Unsupported`] for a scaling that is not
    /// linear or YaRN, and what [`Loader::vector`] says.
    pub fn rope(&mut self, pairs: RopePairs, head_dim: usize, context_length: usize) -> Result<Rope, Error> {
        let dims = self.optional_u32("rope.dimension_count")?.map_or(head_dim, |dims| dims as usize);
        if dims == 0 || dims > head_dim || !dims.is_multiple_of(2) {
            let reason = format!("it must be even and at most the head size {head_dim}");
            return Err(self.wrong("rope.dimension_count", dims, &reason));
        }
        let base = self.optional_f32("rope.freq_base")?.unwrap_or(DEFAULT_BASE);
        if base <= 0.0 {
            return Err(self.wrong("rope.freq_base", base, "it must be positive"));
        }
        let factors = self.optional_vector("rope_freqs.weight", dims / 2)?;
        let scaling = self.rope_scaling(context_length)?;
        Ok(Rope::new(pairs, dims, base, factors.as_deref(), scaling))
    }

    fn rope_scaling(&mut self, context_length: usize) -> Result<RopeScaling, Error> {
        let kind = self.optional_str("rope.scaling.type")?;
        let original = self.optional_u32("rope.scaling.original_context_length")?;
        // `scale_linear` is the key of files from before there were several kinds; 0 means none.
        let factor = self.optional_f32("rope.scaling.factor")?.or(self.optional_f32("rope.scale_linear")?);
        let factor = factor.filter(|&factor| factor != 0.0).unwrap_or(1.0);
        if factor < 0.0 {
            return Err(self.wrong("rope.scaling.factor", factor, "it must be positive"));
        }
        let attn_factor = self.optional_f32("rope.scaling.attn_factor")?.unwrap_or(1.0);
        match kind {
            Some("yarn") => Ok(RopeScaling::Yarn {
                factor,
                original_context: match original {
                    Some(original) => original,
                    None => u32::try_from(context_length).unwrap_or(u32::MAX),
                },
                ext_factor: self.optional_f32("rope.scaling.yarn_ext_factor")?.unwrap_or(1.0),
                attn_factor: attn_factor * self.optional_f32("rope.scaling.yarn_attn_factor")?.unwrap_or(1.0),
                beta_fast: self.optional_f32("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: self.optional_f32("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
            }),
            Some("none") | None | Some("linear") => {
                let factor = if kind == Some("none") { 1.0 } else { factor };
                match (factor == 1.0, attn_factor == 1.0) {
                    (true, true) => Ok(RopeScaling::None),
                    (true, false) => Ok(RopeScaling::Magnitude { attn_factor }),
                    (false, true) => Ok(RopeScaling::Linear { factor }),
                    (false, false) => Err(self.unsupported("linear rope scaling with an attention factor")),
                }
            }
            Some(kind) => Err(self.unsupported(format!("rope scaling {kind:?}"))),
        }
    }
}
