//! Mirostat 2: holds the surprise of the text near a target by moving a cut-off (Basu et al., "Mirostat: a neural
//! text decoding algorithm that directly controls perplexity", 2020). It takes the place of all truncating samplers.

use super::SamplerConfig;
use super::candidates::{Candidates, mass};
use super::math;
use super::random::Place;
use super::temperature;

/// The cut-off and how it moves; the one sampler with a memory of its own draws.
#[derive(Debug, Clone)]
pub(crate) struct Mirostat {
    tau: f64,
    eta: f64,
    /// Tokens with more surprise than this, in bits, are cut.
    mu: f64,
}

impl Mirostat {
    /// The step a configuration asks for.
    pub(crate) fn step(config: &SamplerConfig) -> Option<Self> {
        let (tau, eta) = (f64::from(config.mirostat_tau), f64::from(config.mirostat_eta));
        (config.mirostat == 2).then_some(Self { tau, eta, mu: 2.0 * tau })
    }

    /// Cuts, draws, learns.
    pub(crate) fn draw(&mut self, kept: &mut Candidates, temp: f32, place: Place) -> u32 {
        let top = kept.max() / temp;
        let surprise = |logit: f32, total: u64| {
            let mass = mass(logit / temp, top).max(1);
            (math::ln(total as f64) - math::ln(mass as f64)) / std::f64::consts::LN_2
        };
        let total = kept.total(temp);
        let mut within = 0;
        kept.walk(|c| {
            let cut = surprise(c.logit(), total) > self.mu;
            within += usize::from(!cut);
            cut
        });
        kept.keep_best(within);
        let token = temperature::draw(kept, temp, place);
        let total = kept.total(temp);
        if let Some(drawn) = kept.best(usize::MAX).iter().find(|c| c.id() == token) {
            self.mu -= self.eta * (surprise(drawn.logit(), total) - self.tau);
        }
        token
    }
}

#[cfg(test)]
mod tests {
    use super::super::candidates::Candidates;
    use super::super::random::Place;
    use super::{Mirostat, SamplerConfig};

    /// On a fixed distribution the mean surprise (after the cut, as the algorithm measures it) settles at tau.
    #[test]
    fn surprise_settles_at_the_target() {
        let logits: Vec<f32> = (0..2000).map(|i| -(i as f32 + 1.0).ln()).collect();
        for tau in [2.0, 4.0] {
            let config = SamplerConfig { mirostat: 2, mirostat_tau: tau, ..SamplerConfig::default() };
            let mut mirostat = Mirostat::step(&config).unwrap();
            let (mut moved, mut mu) = (0.0, mirostat.mu);
            for position in 0..3000 {
                let mut kept = Candidates::default();
                kept.fill(&logits).unwrap();
                mirostat.draw(&mut kept, 1.0, Place { seed: 1, sequence: 0, position });
                if position >= 1000 {
                    moved += (mu - mirostat.mu) / f64::from(config.mirostat_eta);
                }
                mu = mirostat.mu;
            }
            assert!((moved / 2000.0).abs() < 0.1, "mean surprise is {} above {tau}", moved / 2000.0);
        }
    }
}
