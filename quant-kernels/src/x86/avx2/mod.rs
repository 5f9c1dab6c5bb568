//! 256-bit kernels: AVX2, FMA, F16C; the int8 matmuls also with AVX-VNNI.
#![allow(clippy::needless_range_loop, reason = "register tiles: one index walks several arrays")]

pub(crate) mod activations;
mod codes;
pub(crate) mod float;
mod format;
mod iq1_m;
mod iq1_s;
mod iq2_s;
mod iq2_xs;
mod iq2_xxs;
mod iq3_s;
mod iq3_xxs;
mod iq4_nl;
mod iq4_xs;
mod linear;
mod mxfp4;
mod nvfp4;
mod panel;
pub(crate) mod planes;
mod product;
mod q1_0;
mod q2_0;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
pub(crate) mod simd;
mod tq1_0;
mod tq2_0;

use crate::GgmlType;
use crate::isa::{Avx2, AvxVnni};
use crate::types::TileFn;
use format::Format;
use product::{Pairs, Product, Vnni};

/// The matmul of a type with AVX2.
pub(crate) fn tile(proof: Avx2, ty: GgmlType) -> Option<TileFn> {
    // SAFETY: the argument proves the tier.
    float_tile(proof, ty).or_else(|| unsafe { int8_tile::<Pairs>(ty) })
}

/// The matmul of a type with AVX-VNNI.
pub(crate) fn tile_vnni(proof: AvxVnni, ty: GgmlType) -> Option<TileFn> {
    // SAFETY: the argument proves the tier.
    float_tile(proof.into(), ty).or_else(|| unsafe { int8_tile::<Vnni>(ty) })
}

fn float_tile(proof: Avx2, ty: GgmlType) -> Option<TileFn> {
    Some(match ty {
        GgmlType::F32 => float::f32_tile(proof),
        GgmlType::F16 => float::f16_tile(proof),
        GgmlType::BF16 => float::bf16_tile(proof),
        _ => return None,
    })
}

/// The matmul of a quantized type.
///
/// # Safety
/// The CPU has the tier of `X`.
unsafe fn int8_tile<X: Product>(ty: GgmlType) -> Option<TileFn> {
    fn of<F: Format, X: Product>() -> TileFn {
        |tile| match tile.acts.tokens {
            0 => {}
            // SAFETY: these closures go nowhere but through `int8_tile`, whose caller vouches for the tier.
            1 => unsafe { X::linear::<F>(tile) },
            // SAFETY: as above.
            _ => unsafe { X::panels::<F>(tile) },
        }
    }
    Some(match ty {
        GgmlType::Q4_0 => of::<q4_0::Q4_0, X>(),
        GgmlType::Q4_1 => of::<q4_1::Q4_1, X>(),
        GgmlType::Q5_0 => of::<q5_0::Q5_0, X>(),
        GgmlType::Q5_1 => of::<q5_1::Q5_1, X>(),
        GgmlType::Q8_0 => of::<q8_0::Q8_0, X>(),
        GgmlType::IQ4_NL => of::<iq4_nl::Iq4Nl, X>(),
        GgmlType::MXFP4 => of::<mxfp4::Mxfp4, X>(),
        GgmlType::NVFP4 => of::<nvfp4::Nvfp4, X>(),
        GgmlType::Q1_0 => of::<q1_0::Q1_0, X>(),
        GgmlType::Q2_0 => of::<q2_0::Q2_0, X>(),
        GgmlType::Q2_K => of::<q2_k::Q2K, X>(),
        GgmlType::Q3_K => of::<q3_k::Q3K, X>(),
        GgmlType::Q4_K => of::<q4_k::Q4K, X>(),
        GgmlType::Q5_K => of::<q5_k::Q5K, X>(),
        GgmlType::Q6_K => of::<q6_k::Q6K, X>(),
        GgmlType::IQ4_XS => of::<iq4_xs::Iq4Xs, X>(),
        GgmlType::IQ1_S => of::<iq1_s::Iq1S, X>(),
        GgmlType::IQ1_M => of::<iq1_m::Iq1M, X>(),
        GgmlType::IQ2_XXS => of::<iq2_xxs::Iq2Xxs, X>(),
        GgmlType::IQ2_XS => of::<iq2_xs::Iq2Xs, X>(),
        GgmlType::IQ2_S => of::<iq2_s::Iq2S, X>(),
        GgmlType::IQ3_XXS => of::<iq3_xxs::Iq3Xxs, X>(),
        GgmlType::IQ3_S => of::<iq3_s::Iq3S, X>(),
        GgmlType::TQ1_0 => of::<tq1_0::Tq1_0, X>(),
        GgmlType::TQ2_0 => of::<tq2_0::Tq2_0, X>(),
        _ => return None,
    })
}
