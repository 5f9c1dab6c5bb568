//! L2 norm of a row, as gated DeltaNet applies it to queries and keys.

use crate::Isa;
use crate::rms_norm::sum_of_squares;
use crate::simd::{self, Map};

/// `x[i] = (x[i] * r) * scale` with `r = 1 / sqrt(sum of squares + eps)`; the sum by lanes and tree.
pub fn l2_norm(isa: Isa, x: &mut [f32], eps: f32, scale: f32) {
    let r = 1.0 / (sum_of_squares(isa, x) + eps).sqrt();
    simd::dispatch(isa, Map { x, f: move |x| (x * r) * scale });
}
