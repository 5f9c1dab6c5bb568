//! Top-k: the `k` most likely tokens (Fan, Lewis and Dauphin, "Hierarchical neural story generation", 2018).

use super::candidates::Candidates;
use super::random::Place;
use super::{SamplerConfig, Truncate};

/// Keeps the best `k`.
#[derive(Debug)]
pub(crate) struct TopK(usize);

impl TopK {
    /// The step a configuration asks for.
    pub(crate) fn step(config: &SamplerConfig) -> Option<Box<dyn Truncate>> {
        (config.top_k > 0).then(|| Box::new(Self(config.top_k)) as Box<dyn Truncate>)
    }
}

impl Truncate for TopK {
    fn truncate(&self, kept: &mut Candidates, _: Place) {
        kept.keep_best(self.0);
    }
}
