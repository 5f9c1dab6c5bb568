//! The best few of a row of logits, without sorting the row.
//!
//! One pass compares 64 logits at a time with the worst one kept so far; only a block that holds a better one is looked
//! at closely. On logits in random order about `k ln(n / k)` of `n` are ever touched by scalar code.
//!
//! The order is (logit descending, id ascending); -0.0 and +0.0 are one value and tie. Minus infinity is no candidate.

use crate::simd::{self, Kernel, Simd};
use crate::{Error, Isa};

/// A logit and its place in the row, as one integer whose order is that of the contract: smaller is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate(u64);

impl Candidate {
    /// The logit's bits, mapped so that integers order as the logits do, inverted, above the id.
    pub fn new(id: u32, logit: f32) -> Self {
        // -0.0 + 0.0 is +0.0.
        let bits = (logit + 0.0).to_bits();
        let ascending = if bits >> 31 == 0 { bits | 0x8000_0000 } else { !bits };
        Self(u64::from(!ascending) << 32 | u64::from(id))
    }

    /// The token.
    pub fn id(self) -> u32 {
        self.0 as u32
    }

    /// Its logit.
    pub fn logit(self) -> f32 {
        let ascending = !((self.0 >> 32) as u32);
        f32::from_bits(if ascending >> 31 == 1 { ascending & 0x7fff_ffff } else { !ascending })
    }
}

/// Fills `kept` with the best `k` logits, best first; fewer if there are fewer above minus infinity.
///
/// ```
/// # use quant_kernels::{Isa, top_k::top_k};
/// let mut kept = Vec::new();
/// top_k(Isa::detect(), &[0.5, 2.0, -1.0, 2.0], 3, &mut kept)?;
/// assert_eq!(kept.iter().map(|c| c.id()).collect::<Vec<_>>(), [1, 3, 0]);
/// # Ok::<(), quant_kernels::Error>(())
/// ```
///
/// # Errors
/// [`Error::NotANumber`] for the first NaN or plus infinity, whose place it tells. `kept` is then of no use.
pub fn top_k(isa: Isa, logits: &[f32], k: usize, kept: &mut Vec<Candidate>) -> Result<(), Error> {
    kept.clear();
    let k = k.min(logits.len());
    // Room to collect before the worst are thrown out, so that throwing out costs O(1) per candidate.
    let room = k.saturating_mul(2).saturating_add(SLACK).min(logits.len());
    simd::dispatch(isa, TopK { logits, k, room, kept })?;
    if kept.len() > k && k > 0 {
        kept.select_nth_unstable(k - 1);
    }
    kept.truncate(k);
    kept.sort_unstable();
    Ok(())
}

/// The place of the largest logit, the lowest among equals; `None` if all are minus infinity.
///
/// # Errors
/// [`Error::NotANumber`] for the first NaN or plus infinity.
pub fn argmax(isa: Isa, logits: &[f32]) -> Result<Option<usize>, Error> {
    simd::dispatch(isa, Argmax { logits })
}

/// Candidates collected beyond `2 k`.
const SLACK: usize = 64;
/// Logits compared at a time.
const BLOCK: usize = 64;

struct TopK<'a> {
    logits: &'a [f32],
    k: usize,
    room: usize,
    kept: &'a mut Vec<Candidate>,
}

impl Kernel for TopK<'_> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) -> Result<(), Error> {
        let Self { logits, k, room, kept } = self;
        scan(logits, |threshold, id, logit| {
            kept.push(Candidate::new(id, logit));
            if kept.len() < room || k == 0 {
                return threshold;
            }
            kept.select_nth_unstable(k - 1);
            kept.truncate(k);
            // Later logits equal to the worst one kept lose to it by their id.
            kept[k - 1].logit()
        })
    }
}

struct Argmax<'a> {
    logits: &'a [f32],
}

impl Kernel for Argmax<'_> {
    type Output = Result<Option<usize>, Error>;

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) -> Self::Output {
        let mut best = None;
        scan(self.logits, |_, id, logit| {
            best = Some(id as usize);
            logit
        })?;
        Ok(best)
    }
}

/// Calls `better(threshold, id, logit)` in order for every logit above the threshold, minus infinity at first, which
/// becomes what it returns.
#[inline(always)]
fn scan(logits: &[f32], mut better: impl FnMut(f32, u32, f32) -> f32) -> Result<(), Error> {
    let mut threshold = f32::NEG_INFINITY;
    for (block, first) in logits.chunks(BLOCK).zip((0u32..).step_by(BLOCK)) {
        // No early exit, so that the loop is vectorised.
        if !block.iter().fold(false, |hit, &logit| hit | above(logit, threshold)) {
            continue;
        }
        for (id, &logit) in (first..).zip(block) {
            if above(logit, threshold) {
                if logit.is_nan() || logit == f32::INFINITY {
                    return Err(Error::NotANumber {
                        what: "logit",
                        index: id as usize,
                        value: logit.to_string(),
                    });
                }
                threshold = better(threshold, id, logit);
            }
        }
    }
    Ok(())
}

/// Above the threshold, or NaN.
#[inline(always)]
fn above(logit: f32, threshold: f32) -> bool {
    (logit > threshold) | logit.is_nan()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(logits: &[f32], k: usize) -> Vec<Candidate> {
        let mut all: Vec<Candidate> = (0u32..)
            .zip(logits)
            .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
            .map(|(id, &logit)| Candidate::new(id, logit))
            .collect();
        all.sort();
        all.truncate(k);
        all
    }

    proptest! {
        #[test]
        fn the_best_are_those_of_a_sort(
            logits in prop::collection::vec(
                prop_oneof![
                    9 => (-40i8..40).prop_map(|x| f32::from(x) / 2.0),
                    1 => prop::sample::select(vec![f32::NEG_INFINITY, -0.0, 0.0, 1e-40, f32::MIN, f32::MAX]),
                ],
                0..700,
            ),
            k in 0usize..300,
        ) {
            for isa in Isa::available() {
                let mut kept = Vec::new();
                top_k(isa, &logits, k, &mut kept).expect("finite");
                prop_assert_eq!(&kept, &naive(&logits, k));
                let best = argmax(isa, &logits).expect("finite");
                prop_assert_eq!(best, naive(&logits, 1).first().map(|c| c.id() as usize));
            }
        }
    }

    #[test]
    fn sorted_rows_and_wide_rows_work() {
        let rising: Vec<f32> = (0..250_000).map(|i| i as f32).collect();
        let falling: Vec<f32> = rising.iter().rev().copied().collect();
        for isa in Isa::available() {
            for logits in [&rising, &falling] {
                for k in [1, 40, 250_000] {
                    let mut kept = Vec::new();
                    top_k(isa, logits, k, &mut kept).expect("finite");
                    assert_eq!(kept.len(), k);
                    assert!(kept.iter().enumerate().all(|(i, c)| c.logit() == (249_999 - i) as f32));
                }
            }
        }
    }

    #[test]
    fn the_first_bad_logit_is_named_even_if_it_would_not_be_kept() {
        for isa in Isa::available() {
            for bad in [f32::NAN, f32::INFINITY, -f32::NAN] {
                let mut logits = vec![5.0; 300];
                logits[200] = bad;
                logits[250] = f32::NAN;
                let error = top_k(isa, &logits, 2, &mut Vec::new()).expect_err("must be refused");
                assert!(matches!(error, Error::NotANumber { index: 200, .. }), "{error}");
                assert!(matches!(argmax(isa, &logits), Err(Error::NotANumber { index: 200, .. })));
            }
        }
    }

    #[test]
    fn zeros_tie_and_a_candidate_keeps_its_logit() {
        let mut kept = Vec::new();
        top_k(Isa::Scalar, &[-0.0, 0.0, -1e-45, 1e-45], 4, &mut kept).expect("finite");
        assert_eq!(kept.iter().map(|c| c.id()).collect::<Vec<_>>(), [3, 0, 1, 2]);
        assert_eq!(kept[3].logit(), -1e-45);
    }
}
