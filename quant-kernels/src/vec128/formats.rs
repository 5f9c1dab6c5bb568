//! The list of types: how each is unpacked and which loops it runs.

use super::{Matmul, Tier, Vec128, float, super_blocks, units, unpack};
use crate::GgmlType;
use crate::matmul::Tile;
use crate::types::{
    TileFn, iq1_m, iq1_s, iq2_s, iq2_xs, iq2_xxs, iq3_s, iq3_xxs, q1_0, q2_0, q2_k, q3_k, q4_1, q5_0, q5_1,
    tq1_0, tq2_0,
};

/// The matmul of a type on a tier.
pub(crate) fn tile(tier: impl Tier, ty: GgmlType) -> Option<TileFn> {
    Some(match ty {
        GgmlType::F32 => tier.tile::<float::F32>(),
        GgmlType::F16 => tier.tile::<float::F16>(),
        GgmlType::BF16 => tier.tile::<float::Bf16>(),
        GgmlType::Q4_0 => tier.tile::<Q4_0>(),
        GgmlType::Q4_1 => tier.tile::<Q4_1>(),
        GgmlType::Q5_0 => tier.tile::<Q5_0>(),
        GgmlType::Q5_1 => tier.tile::<Q5_1>(),
        GgmlType::Q8_0 => tier.tile::<Q8_0>(),
        GgmlType::Q2_K => tier.tile::<Q2K>(),
        GgmlType::Q3_K => tier.tile::<Q3K>(),
        GgmlType::Q4_K => tier.tile::<Q4K>(),
        GgmlType::Q5_K => tier.tile::<Q5K>(),
        GgmlType::Q6_K => tier.tile::<Q6K>(),
        GgmlType::IQ2_XXS => tier.tile::<Iq2Xxs>(),
        GgmlType::IQ2_XS => tier.tile::<Iq2Xs>(),
        GgmlType::IQ3_XXS => tier.tile::<Iq3Xxs>(),
        GgmlType::IQ1_S => tier.tile::<Iq1S>(),
        GgmlType::IQ4_NL => tier.tile::<Iq4Nl>(),
        GgmlType::IQ3_S => tier.tile::<Iq3S>(),
        GgmlType::IQ2_S => tier.tile::<Iq2S>(),
        GgmlType::IQ4_XS => tier.tile::<Iq4Xs>(),
        GgmlType::IQ1_M => tier.tile::<Iq1M>(),
        GgmlType::TQ1_0 => tier.tile::<Tq1_0>(),
        GgmlType::TQ2_0 => tier.tile::<Tq2_0>(),
        GgmlType::MXFP4 => tier.tile::<Mxfp4>(),
        GgmlType::NVFP4 => tier.tile::<Nvfp4>(),
        GgmlType::Q1_0 => tier.tile::<Q1_0>(),
        GgmlType::Q2_0 => tier.tile::<Q2_0>(),
        _ => return None,
    })
}

/// A type and its loops; `PER` says how many times sixteen codes of a super-block share a scale. The unpacking is
/// the type's own, which compilers vectorize, or (with the tier as argument) one by hand.
macro_rules! formats {
    ($($name:ident: $run:ident $(::<$per:literal>)? by $unpack:path $(, $by_hand:ident)?;)*) => {$(
        struct $name;

        impl Matmul for $name {
            #[inline(always)]
            fn run<S: Vec128>(s: S, tile: &mut Tile<'_>) {
                formats!(@run s, tile, $run $(::<$per>)?, $unpack $(, $by_hand)?);
            }
        }
    )*};
    (@run $s:ident, $tile:ident, super_blocks::<$per:literal>, $unpack:path, by_hand) => {
        super_blocks::run::<S, $per, _, _>($s, $tile, #[inline(always)] |block| $unpack($s, block))
    };
    (@run $s:ident, $tile:ident, super_blocks::<$per:literal>, $unpack:path) => {
        super_blocks::run::<S, $per, _, _>($s, $tile, $unpack)
    };
    (@run $s:ident, $tile:ident, units, $unpack:path, by_hand) => {
        units::run($s, $tile, #[inline(always)] |block| $unpack($s, block))
    };
    (@run $s:ident, $tile:ident, units, $unpack:path) => {
        units::run($s, $tile, $unpack)
    };
}

formats! {
    Q4_0: units by unpack::q4_0, by_hand;
    Q4_1: units by q4_1::unpack;
    Q5_0: units by q5_0::unpack;
    Q5_1: units by q5_1::unpack;
    Q8_0: units by unpack::q8_0, by_hand;
    Iq4Nl: units by unpack::iq4_nl, by_hand;
    Mxfp4: units by unpack::mxfp4, by_hand;
    Nvfp4: units by unpack::nvfp4, by_hand;
    Q1_0: units by q1_0::unpack;
    Q2_0: units by q2_0::unpack;
    Q2K: super_blocks::<1> by q2_k::unpack;
    Q3K: super_blocks::<1> by q3_k::unpack;
    Q4K: super_blocks::<2> by unpack::q4_k, by_hand;
    Q5K: super_blocks::<2> by unpack::q5_k, by_hand;
    Q6K: super_blocks::<1> by unpack::q6_k, by_hand;
    Iq4Xs: super_blocks::<2> by unpack::iq4_xs, by_hand;
    Iq2Xxs: super_blocks::<2> by iq2_xxs::unpack;
    Iq2Xs: super_blocks::<1> by iq2_xs::unpack;
    Iq2S: super_blocks::<1> by iq2_s::unpack;
    Iq3Xxs: super_blocks::<2> by iq3_xxs::unpack;
    Iq3S: super_blocks::<2> by iq3_s::unpack;
    Iq1S: super_blocks::<2> by iq1_s::unpack;
    Iq1M: super_blocks::<1> by iq1_m::unpack;
    Tq1_0: super_blocks::<16> by tq1_0::unpack;
    Tq2_0: super_blocks::<16> by tq2_0::unpack;
}
