//! Min-p: tokens at least `p` times as likely as the best one (Nguyen et al., "Turning up the heat", 2024).

use super::candidates::Candidates;
use super::math;
use super::random::Place;
use super::{SamplerConfig, Truncate};

/// Keeps logits from `max + ln p` on: no probability needs to be computed.
#[derive(Debug)]
pub(crate) struct MinP {
    /// `ln p`, at most 0.
    ln: f32,
}

impl MinP {
    /// The step a configuration asks for.
    pub(crate) fn step(config: &SamplerConfig) -> Option<Box<dyn Truncate>> {
        let p = config.min_p;
        // Below the least normal number the threshold is out of every logit's reach.
        (p >= f32::MIN_POSITIVE)
            .then(|| Box::new(Self { ln: math::ln(f64::from(p)) as f32 }) as Box<dyn Truncate>)
    }
}

impl Truncate for MinP {
    fn truncate(&self, kept: &mut Candidates, _: Place) {
        let threshold = kept.max() + self.ln;
        kept.keep_logits_from(threshold);
    }
}
