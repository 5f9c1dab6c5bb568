//! Locally typical sampling: the tokens whose surprise is nearest to the expected surprise, until their
//! probabilities sum to more than `p` (Meister et al., "Locally typical sampling", 2022).

use super::candidates::{Candidates, mass};
use super::math;
use super::random::Place;
use super::{SamplerConfig, Truncate};
use quant_kernels::top_k::Candidate;

/// Keeps the typical set.
#[derive(Debug)]
pub(crate) struct Typical(f32);

impl Typical {
    /// The step a configuration asks for.
    pub(crate) fn step(config: &SamplerConfig) -> Option<Box<dyn Truncate>> {
        (config.typical_p < 1.0).then(|| Box::new(Self(config.typical_p)) as Box<dyn Truncate>)
    }
}

impl Truncate for Typical {
    fn truncate(&self, kept: &mut Candidates, _: Place) {
        let total = kept.total(1.0);
        let (top, ln_total) = (kept.max(), math::ln(total as f64));
        // The entropy is a float sum, so it is taken in rank order.
        let ranked = kept.best(usize::MAX);
        let chance = |c: &Candidate| mass(c.logit(), top);
        let surprise = |mass: u64| ln_total - math::ln(mass.max(1) as f64);
        let entropy = ranked
            .iter()
            .map(chance)
            .map(|m| m as f64 / total as f64 * surprise(m))
            .fold(0.0, |sum, x| sum + x);
        let mut by_distance: Vec<(f64, Candidate, u64)> = ranked
            .iter()
            .map(|c| {
                let mass = chance(c);
                ((surprise(mass) - entropy).abs(), *c, mass)
            })
            .collect();
        by_distance.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let target = f64::from(self.0) * total as f64;
        let mut sum = 0u64;
        let mut typical = Vec::new();
        for (_, candidate, mass) in by_distance {
            typical.push(candidate);
            sum += mass;
            if sum as f64 > target {
                break;
            }
        }
        kept.replace(typical);
    }
}
