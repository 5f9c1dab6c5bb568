//! Logit bias: adds a number to the logits of given tokens; minus infinity bans a token.

use super::{Adjust, Context, SamplerConfig};

/// The biases.
#[derive(Debug)]
pub(crate) struct LogitBias(Vec<(u32, f32)>);

impl LogitBias {
    /// The step a configuration asks for.
    pub(crate) fn step(config: &SamplerConfig) -> Option<Box<dyn Adjust>> {
        (!config.logit_bias.is_empty()).then(|| Box::new(Self(config.logit_bias.clone())) as Box<dyn Adjust>)
    }
}

impl Adjust for LogitBias {
    fn adjust(&self, logits: &mut [f32], _: &Context<'_>) {
        for (token, bias) in &self.0 {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
    }
}
