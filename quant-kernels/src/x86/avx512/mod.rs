//! 512-bit kernels: AVX-512 F, BW, VL, DQ, VNNI, VBMI.
#![allow(clippy::needless_range_loop, reason = "register tiles: one index walks several arrays")]

pub(crate) mod activations;
mod blocks;
mod blocks32;
mod codebook;
mod columns;
mod eights;
mod fields;
pub(crate) mod float;
mod grid;
mod interleave;
pub(crate) mod iq1_m;
pub(crate) mod iq1_s;
mod iq2;
pub(crate) mod iq2_s;
pub(crate) mod iq2_xs;
pub(crate) mod iq2_xxs;
pub(crate) mod iq3_s;
pub(crate) mod iq3_xxs;
pub(crate) mod iq4_nl;
pub(crate) mod iq4_xs;
mod linear;
mod load;
pub(crate) mod mxfp4;
pub(crate) mod nvfp4;
mod panel;
pub(crate) mod planes;
pub(crate) mod q1_0;
pub(crate) mod q2_0;
pub(crate) mod q2_k;
pub(crate) mod q3_k;
pub(crate) mod q4_0;
pub(crate) mod q4_1;
pub(crate) mod q4_k;
pub(crate) mod q5_0;
pub(crate) mod q5_1;
pub(crate) mod q5_k;
pub(crate) mod q6_k;
pub(crate) mod q8_0;
mod row_sums;
mod rows;
pub(crate) mod simd;
mod step;
mod sums;
mod super_blocks;
mod ternary;
pub(crate) mod tq1_0;
pub(crate) mod tq2_0;
mod two_bits;

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
        GgmlType::Q4_1 => q4_1::tile(proof),
        GgmlType::Q5_0 => q5_0::tile(proof),
        GgmlType::Q5_1 => q5_1::tile(proof),
        GgmlType::Q8_0 => q8_0::tile(proof),
        GgmlType::Q2_K => q2_k::tile(proof),
        GgmlType::Q3_K => q3_k::tile(proof),
        GgmlType::Q4_K => q4_k::tile(proof),
        GgmlType::Q5_K => q5_k::tile(proof),
        GgmlType::Q6_K => q6_k::tile(proof),
        GgmlType::IQ4_NL => iq4_nl::tile(proof),
        GgmlType::IQ4_XS => iq4_xs::tile(proof),
        GgmlType::MXFP4 => mxfp4::tile(proof),
        GgmlType::NVFP4 => nvfp4::tile(proof),
        GgmlType::Q1_0 => q1_0::tile(proof),
        GgmlType::Q2_0 => q2_0::tile(proof),
        GgmlType::IQ2_XXS => iq2_xxs::tile(proof),
        GgmlType::IQ2_XS => iq2_xs::tile(proof),
        GgmlType::IQ2_S => iq2_s::tile(proof),
        GgmlType::IQ3_XXS => iq3_xxs::tile(proof),
        GgmlType::IQ3_S => iq3_s::tile(proof),
        GgmlType::IQ1_S => iq1_s::tile(proof),
        GgmlType::IQ1_M => iq1_m::tile(proof),
        GgmlType::TQ1_0 => tq1_0::tile(proof),
        GgmlType::TQ2_0 => tq2_0::tile(proof),
        _ => return None,
    })
}
