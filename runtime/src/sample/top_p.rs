//! Top-p: the least set of most likely tokens whose probabilities sum to at least `p` (Holtzman et al., "The
//! curious case of neural text degeneration", 2019).

use super::candidates::Candidates;
use super::random::Place;
use super::{SamplerConfig, Truncate};

/// Keeps the nucleus.
#[derive(Debug)]
pub(crate) struct TopP(f32);

impl TopP {
    /// The step a configuration asks for.
    pub(crate) fn step(config: &SamplerConfig) -> Option<Box<dyn Truncate>> {
        (config.top_p < 1.0).then(|| Box::new(Self(config.top_p)) as Box<dyn Truncate>)
    }
}

impl Truncate for TopP {
    fn truncate(&self, kept: &mut Candidates, _: Place) {
        let target = f64::from(self.0) * kept.total(1.0) as f64;
        let nucleus = kept.reaching(1.0, target.ceil() as u64);
        kept.keep_best(nucleus);
    }
}
