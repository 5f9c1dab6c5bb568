//! 128-bit kernels for WebAssembly's simd128.
//!
//! The loops are those of `vec128`; here are the instructions. A module compiled with simd128 runs only where it
//! exists, so the instructions are safe to call.

mod bytes;
mod simd;

use crate::GgmlType;
use crate::activations::Quantizer;
use crate::isa::Simd128;
use crate::types::TileFn;
use crate::vec128::{self, Matmul, Tier};

/// The matmul of a type on this tier.
pub(crate) fn tile(proof: Simd128, ty: GgmlType) -> Option<TileFn> {
    vec128::tile(proof, ty)
}

/// Quantizes runs of blocks, with the bits of [`crate::activations::Acts::quantize_block`].
pub(crate) fn quantizer(_: Simd128) -> Quantizer {
    |x, codes| codes.each(x, |x, q, sums| vec128::quantize_block(Simd128::new(), x, q, sums))
}

impl Tier for Simd128 {
    fn tile<M: Matmul>(&self) -> TileFn {
        |tile| M::run(Self::new(), tile)
    }
}
