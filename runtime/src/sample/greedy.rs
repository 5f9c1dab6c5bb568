//! Greedy: the most likely token, the lowest id among equals.

use super::candidates::bad_logit;
use crate::Error;
use quant_kernels::Isa;
use quant_kernels::top_k::argmax;

/// The token with the largest logit.
///
/// # Errors
/// [`Error::BadLogit`] for NaN or plus infinity, [`Error::NoCandidate`] if every logit is minus infinity.
pub fn greedy(isa: Isa, logits: &[f32]) -> Result<u32, Error> {
    let best = argmax(isa, logits).map_err(|e| bad_logit(e, logits))?;
    best.map(|id| id as u32).ok_or(Error::NoCandidate)
}

#[cfg(test)]
mod tests {
    use super::greedy;
    use quant_kernels::Isa;

    #[test]
    fn ties_go_to_the_lowest_id() {
        assert_eq!(greedy(Isa::Scalar, &[-1.0, 2.0, 2.0, -0.0]).unwrap(), 1);
        assert_eq!(greedy(Isa::Scalar, &[-0.0, 0.0]).unwrap(), 0);
        assert!(greedy(Isa::Scalar, &[]).is_err());
        assert!(greedy(Isa::Scalar, &[1.0, f32::NAN]).is_err());
    }
}
