//! SiLU.
use crate::Isa;
/// `gate[i] = silu(gate[i]) * up[i]`.
pub fn silu_mul(_isa: Isa, gate: &mut [f32], up: &[f32]) {
    for (g, u) in gate.iter_mut().zip(up) {
        *g = *g / (1.0 + (-*g).exp()) * u;
    }
}
