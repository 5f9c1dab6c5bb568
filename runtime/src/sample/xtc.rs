//! XTC, "exclude top choices" (p-e-w, text-generation-webui, 2024): with some probability, drops every token that
//! reaches the threshold but the least likely of them.

use super::candidates::{Candidates, mass};
use super::random::{Place, Purpose};
use super::{SamplerConfig, Truncate};

/// Drops the top choices now and then.
#[derive(Debug)]
pub(crate) struct Xtc {
    probability: f32,
    threshold: f32,
}

impl Xtc {
    /// The step a configuration asks for. Two tokens can't both reach a threshold above a half.
    pub(crate) fn step(config: &SamplerConfig) -> Option<Box<dyn Truncate>> {
        let (probability, threshold) = (config.xtc_probability, config.xtc_threshold);
        (probability > 0.0 && threshold <= 0.5)
            .then(|| Box::new(Self { probability, threshold }) as Box<dyn Truncate>)
    }
}

impl Truncate for Xtc {
    fn truncate(&self, kept: &mut Candidates, place: Place) {
        if kept.len() < 2 || place.unit(Purpose::Xtc) >= f64::from(self.probability) {
            return;
        }
        let target = f64::from(self.threshold) * kept.total(1.0) as f64;
        let top = kept.max();
        let mut reached = 0;
        kept.walk(|c| {
            let reaches = mass(c.logit(), top) as f64 >= target;
            reached += usize::from(reaches);
            !reaches
        });
        kept.drop_best(usize::saturating_sub(reached, 1));
    }
}
