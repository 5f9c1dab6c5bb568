//! Repetition, frequency and presence penalties over a window of last tokens (Keskar et al., "CTRL", 2019; the
//! latter two as OpenAI's API defines them).

use super::{Adjust, Context, SamplerConfig, window};

/// Makes tokens of the window less likely.
#[derive(Debug)]
pub(crate) struct Penalties {
    last_n: Option<usize>,
    repeat: f32,
    frequency: f32,
    presence: f32,
}

impl Penalties {
    /// The step a configuration asks for.
    pub(crate) fn step(config: &SamplerConfig) -> Option<Box<dyn Adjust>> {
        let (repeat, frequency, presence) =
            (config.repeat_penalty, config.frequency_penalty, config.presence_penalty);
        let last_n = config.penalty_last_n;
        let acts = (repeat != 1.0 || frequency != 0.0 || presence != 0.0) && last_n != Some(0);
        acts.then(|| Box::new(Self { last_n, repeat, frequency, presence }) as Box<dyn Adjust>)
    }
}

impl Adjust for Penalties {
    fn adjust(&self, logits: &mut [f32], context: &Context<'_>) {
        let mut window = window(context.tokens, self.last_n).to_vec();
        window.sort_unstable();
        for run in window.chunk_by(|a, b| a == b) {
            let Some(logit) = run.first().and_then(|token| logits.get_mut(*token as usize)) else { continue };
            // The paper divides; a negative logit must be multiplied to become less likely.
            *logit = if *logit > 0.0 { *logit / self.repeat } else { *logit * self.repeat };
            *logit -= run.len() as f32 * self.frequency + self.presence;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Context, SamplerConfig};
    use super::Penalties;
    use quant_kernels::Isa;

    fn penalised(config: &SamplerConfig, tokens: &[u32]) -> Vec<f32> {
        let mut logits = vec![2.0, -2.0, 1.0, 0.0];
        Penalties::step(config).unwrap().adjust(
            &mut logits,
            &Context { tokens, forgotten: 0, sequence: 0, pieces: &(), isa: Isa::Scalar },
        );
        logits
    }

    #[test]
    fn each_penalty_alone() {
        let base = SamplerConfig::default();
        let repeat = SamplerConfig { repeat_penalty: 2.0, ..base.clone() };
        assert_eq!(penalised(&repeat, &[0, 1, 0]), [1.0, -4.0, 1.0, 0.0]);
        let frequency = SamplerConfig { frequency_penalty: 0.5, ..base.clone() };
        assert_eq!(penalised(&frequency, &[0, 1, 0, 99]), [1.0, -2.5, 1.0, 0.0]);
        let presence = SamplerConfig { presence_penalty: 0.5, ..base };
        assert_eq!(penalised(&presence, &[0, 1, 0]), [1.5, -2.5, 1.0, 0.0]);
    }

    #[test]
    fn the_window_forgets() {
        let config =
            SamplerConfig { presence_penalty: 1.0, penalty_last_n: Some(2), ..SamplerConfig::default() };
        assert_eq!(penalised(&config, &[0, 1, 2]), [2.0, -3.0, 0.0, 0.0]);
        let all = SamplerConfig { penalty_last_n: None, ..config.clone() };
        assert_eq!(penalised(&all, &[0, 1, 2]), [1.0, -3.0, 0.0, 0.0]);
        assert!(Penalties::step(&SamplerConfig { penalty_last_n: Some(0), ..config }).is_none());
    }
}
