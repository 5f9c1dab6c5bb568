//! The tokens still in the running, ordered by (logit descending, id ascending) as far as anyone has asked.
//!
//! A [`Candidate`] is one integer that holds the whole order, ties included: the best few of 250,000 are selected by
//! comparing integers, or, where top-k comes first, by the kernel that looks closely at no others.
//!
//! Probabilities are integers too: [`mass`] is `exp` scaled by 2^40. Integer sums have one value in every order, so
//! the sum over a vocabulary nobody sorted is the sum in the contract's order.

use super::math;
use crate::Error;
use quant_kernels::Isa;
use quant_kernels::top_k::{Candidate, top_k};

/// The best candidate's mass: `exp(0)`.
const UNIT: f64 = (1u64 << 40) as f64;

/// How many candidates the first ranking sorts; each further one takes [`GROWTH`] times as many.
const FIRST_RANKING: usize = 64;
const GROWTH: usize = 8;

/// The kept set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Candidates {
    all: Vec<Candidate>,
    /// The first so many are the best so many, in order.
    ranked: usize,
    /// The best one's logit.
    max: f32,
}

impl Candidates {
    /// Starts over from a row of logits. A logit of minus infinity is no candidate.
    ///
    /// # Errors
    /// [`Error::BadLogit`] for NaN or plus infinity, [`Error::NoCandidate`] if nothing is left.
    pub(crate) fn fill(&mut self, logits: &[f32]) -> Result<(), Error> {
        self.all.clear();
        self.ranked = 0;
        let mut max = f32::NEG_INFINITY;
        for (id, &logit) in (0u32..).zip(logits) {
            check(id, logit)?;
            if logit > max {
                max = logit;
            }
        }
        self.max = max;
        let candidates = (0u32..).zip(logits).filter(|(_, logit)| **logit > f32::NEG_INFINITY);
        self.all.extend(candidates.map(|(id, &logit)| Candidate::new(id, logit)));
        if self.all.is_empty() { Err(Error::NoCandidate) } else { Ok(()) }
    }

    /// [`Self::fill`], then [`Self::keep_best`] of `k`, without a look at the rest of the row.
    ///
    /// # Errors
    /// As [`Self::fill`].
    pub(crate) fn fill_best(&mut self, isa: Isa, logits: &[f32], k: usize) -> Result<(), Error> {
        top_k(isa, logits, k.max(1), &mut self.all).map_err(|e| bad_logit(e, logits))?;
        self.ranked = self.all.len();
        self.find_max();
        if self.all.is_empty() { Err(Error::NoCandidate) } else { Ok(()) }
    }

    /// How many there are; never 0 after [`Self::fill`].
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The best `n` (or all), in order.
    pub(crate) fn best(&mut self, n: usize) -> &[Candidate] {
        let n = n.min(self.all.len());
        if n > self.ranked {
            let (ranked, rest) = self.all.split_at_mut(self.ranked);
            let more = n - ranked.len();
            if more < rest.len() {
                rest.select_nth_unstable(more);
            }
            rest[..more].sort_unstable();
            self.ranked = n;
        }
        &self.all[..n]
    }

    /// The best one's logit.
    pub(crate) fn max(&self) -> f32 {
        self.max
    }

    /// Keeps the best `n`, at least one.
    pub(crate) fn keep_best(&mut self, n: usize) {
        let n = n.max(1);
        if n < self.all.len() {
            self.best(n);
            self.all.truncate(n);
        }
    }

    /// Drops the best `n`, at most all but one.
    pub(crate) fn drop_best(&mut self, n: usize) {
        let n = n.min(self.all.len().saturating_sub(1));
        self.best(n);
        self.all.drain(..n);
        self.ranked = self.ranked.saturating_sub(n);
        self.find_max();
    }

    /// Keeps those whose logit is at least `threshold`, and the best one.
    pub(crate) fn keep_logits_from(&mut self, threshold: f32) {
        let threshold = threshold.min(self.max());
        self.all.retain(|c| c.logit() >= threshold);
        self.ranked = self.ranked.min(self.all.len());
    }

    /// Keeps exactly these.
    pub(crate) fn replace(&mut self, kept: Vec<Candidate>) {
        self.all = kept;
        self.ranked = 0;
        self.find_max();
    }

    fn find_max(&mut self) {
        self.max = self.best(1).first().map_or(f32::NEG_INFINITY, |best| best.logit());
    }

    /// The sum of all masses at a temperature; at least 2^40.
    pub(crate) fn total(&self, temperature: f32) -> u64 {
        let top = self.max() / temperature;
        self.all.iter().map(|c| mass(c.logit() / temperature, top)).sum()
    }

    /// Walks from the best on until `stop` says so: how many candidates it saw, that one included; all of them if
    /// it never did. Ranks no more than the walk needs.
    pub(crate) fn walk(&mut self, mut stop: impl FnMut(Candidate) -> bool) -> usize {
        let mut seen = 0;
        let mut want = FIRST_RANKING;
        while seen < self.all.len() {
            for &candidate in &self.best(want)[seen..] {
                seen += 1;
                if stop(candidate) {
                    return seen;
                }
            }
            want = want.saturating_mul(GROWTH);
        }
        seen
    }

    /// The least number of best candidates whose masses sum to at least `target`.
    pub(crate) fn reaching(&mut self, temperature: f32, target: u64) -> usize {
        let top = self.max() / temperature;
        let mut sum = 0u64;
        self.walk(|c| {
            sum += mass(c.logit() / temperature, top);
            sum >= target
        })
    }
}

/// `exp(logit - top)` in units of 2^-40; what is below is no chance at all. A sum over 2^24 tokens fits.
pub(crate) fn mass(logit: f32, top: f32) -> u64 {
    (f64::from(math::exp(logit - top)) * UNIT) as u64
}

/// Refuses a logit that no softmax can take.
pub(crate) fn check(id: u32, logit: f32) -> Result<(), Error> {
    if logit.is_nan() || logit == f32::INFINITY { Err(Error::BadLogit { token: id, logit }) } else { Ok(()) }
}

/// The kernels' complaint as ours.
pub(crate) fn bad_logit(error: quant_kernels::Error, logits: &[f32]) -> Error {
    match error {
        quant_kernels::Error::NotANumber { index, .. } => {
            let logit = logits.get(index).copied().unwrap_or(f32::NAN);
            Error::BadLogit { token: index as u32, logit }
        }
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Candidates};
    use crate::Error;
    use proptest::prelude::*;

    fn ids(kept: &[Candidate]) -> Vec<u32> {
        kept.iter().map(|c| c.id()).collect()
    }

    #[test]
    fn zeros_tie_and_infinities_are_told_apart() {
        let mut kept = Candidates::default();
        kept.fill(&[0.0, -0.0, f32::NEG_INFINITY, 0.0, 1e-40, -1e-40]).unwrap();
        assert_eq!(ids(kept.best(9)), [4, 0, 1, 3, 5]);
        assert!(matches!(kept.fill(&[0.0, f32::NAN]), Err(Error::BadLogit { token: 1, .. })));
        assert!(matches!(kept.fill(&[f32::INFINITY]), Err(Error::BadLogit { token: 0, .. })));
        assert!(matches!(kept.fill(&[f32::NEG_INFINITY]), Err(Error::NoCandidate)));
    }

    proptest! {
        #[test]
        fn ranking_in_steps_is_the_sorted_order(
            logits in prop::collection::vec((-8i8..8).prop_map(|x| f32::from(x) / 2.0), 1..300),
            steps in prop::collection::vec(0usize..320, 0..6),
        ) {
            let mut naive: Vec<u32> = (0..logits.len() as u32).collect();
            naive.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
            let mut kept = Candidates::default();
            kept.fill(&logits).unwrap();
            for n in steps {
                prop_assert_eq!(ids(kept.best(n)), &naive[..n.min(naive.len())]);
            }
            let mut seen = Vec::new();
            kept.walk(|c| { seen.push(c.id()); false });
            prop_assert_eq!(&seen, &naive);
            for c in kept.best(usize::MAX) {
                prop_assert_eq!(c.logit(), logits[c.id() as usize]);
            }
        }
    }
}
