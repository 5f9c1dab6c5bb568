//! Greedy: the most likely token, the lowest id among equals.

use super::candidates::check;
use crate::Error;

/// The token with the largest logit.
///
/// # Errors
/// [`Error::BadLogit`] for NaN or plus infinity, [`Error::NoCandidate`] if every logit is minus infinity.
pub fn greedy(logits: &[f32]) -> Result<u32, Error> {
    let mut best = None;
    let mut top = f32::NEG_INFINITY;
    for (id, &logit) in (0u32..).zip(logits) {
        check(id, logit)?;
        if logit > top {
            top = logit;
            best = Some(id);
        }
    }
    best.ok_or(Error::NoCandidate)
}

#[cfg(test)]
mod tests {
    use super::greedy;

    #[test]
    fn ties_go_to_the_lowest_id() {
        assert_eq!(greedy(&[-1.0, 2.0, 2.0, -0.0]).unwrap(), 1);
        assert_eq!(greedy(&[-0.0, 0.0]).unwrap(), 0);
        assert!(greedy(&[]).is_err());
        assert!(greedy(&[1.0, f32::NAN]).is_err());
    }
}
