//! Softplus, the smooth ramp that makes step sizes of state-space layers positive.

/// `ln(1 + e^x)`; `x` itself above 20, where the difference is below half an ulp. Computed in f64 and rounded once: it is
/// applied to one value per head.
pub fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { libm::log1p(libm::exp(f64::from(x))) as f32 }
}
