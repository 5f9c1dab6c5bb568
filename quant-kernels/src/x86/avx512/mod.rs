//! 512-bit kernels: AVX-512 F, BW, VL, DQ, VNNI, VBMI.
#![allow(clippy::needless_range_loop, reason = "register tiles: one index walks several arrays")]

pub(crate) mod activations;
pub(crate) mod float;
mod linear;
mod load;
mod panel;
pub(crate) mod q4_0;
pub(crate) mod q4_k;
pub(crate) mod q5_k;
pub(crate) mod q6_k;
pub(crate) mod q8_0;
pub(crate) mod simd;
mod step;

use crate::GgmlType;
use crate::isa::Avx512;
use crate::types::TileFn;

/// The matmul of a type on this tier.
pub(crate) fn tile(proof: Avx512, ty: GgmlType) -> Option<TileFn> {
    Some(match ty {
        GgmlType::F32 => float::f32_tile(proof),
        GgmlType::F16 => float::f16_tile(proof),
        GgmlType::BF16 => float::bf16_tile(proof),
        GgmlType::Q4_0 => q4_0::tile(proof),
        GgmlType::Q8_0 => q8_0::tile(proof),
        GgmlType::Q4_K => q4_k::tile(proof),
        GgmlType::Q5_K => q5_k::tile(proof),
        GgmlType::Q6_K => q6_k::tile(proof),
        _ => return None,
    })
}
