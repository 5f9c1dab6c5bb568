//! RMS norm.
use crate::Isa;
/// `out = x * r * weight` with `r = 1 / sqrt(mean(x^2) + eps)`, one row.
pub fn rms_norm(_isa: Isa, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mut lanes = [0f32; 16];
    for (i, v) in x.iter().enumerate() {
        lanes[i % 16] += v * v;
    }
    let r = 1.0 / (crate::types::f32::tree(lanes) / x.len() as f32 + eps).sqrt();
    for ((o, x), w) in out.iter_mut().zip(x).zip(weight) {
        *o = (x * r) * w;
    }
}
