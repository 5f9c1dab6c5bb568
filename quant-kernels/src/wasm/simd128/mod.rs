//! 128-bit kernels for WebAssembly's simd128.
//!
//! The loops are those of `vec128`; here are the instructions. A module compiled with simd128 runs only where it
//! exists, so the instructions are safe to call.

mod bytes;
mod simd;

use crate::GgmlType;
use crate::activations::{Acts, Quantizer};
use crate::isa::Simd128;
use crate::types::TileFn;
use crate::vec128::{self, Matmul, Tier};

/// The matmul of a type on this tier.
pub(crate) fn tile(proof: Simd128, ty: GgmlType) -> Option<TileFn> {
    vec128::tile(proof, ty)
}

/// [`crate::activations::Acts::quantize_block`] of this tier.
pub(crate) fn quantizer(_: Simd128) -> Quantizer {
    |x, q, d, sums| {
        let simd = Simd128::new();
        Acts::quantize_blocks(x, q, d, sums, |x, q, sums| vec128::quantize_block(simd, x, q, sums))
    }
}

impl Tier for Simd128 {
    fn tile<M: Matmul>(&self) -> TileFn {
        |tile| M::run(Self::new(), tile)
    }
}
