//! 128-bit kernels for aarch64, in three levels: products of bytes by ARMv8.0's multiplications, by `sdot`, and by
//! `smmla`.
//!
//! The loops are those of `vec128`; here are the instructions.

mod bytes;
mod products;
mod simd;

use crate::GgmlType;
use crate::codecs::planes::PlaneKernel;
use crate::isa::{Neon, NeonLevel};
use crate::matmul::Tile;
use crate::types::TileFn;
use crate::vec128::{self, Matmul, Tier};
use products::{Base, DotProd, I8mm, Products};

/// Registers of 128 bits with the products of bytes that `P` is a proof of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lanes<P>(P);

/// The lanes of every aarch64 CPU.
pub(crate) fn lanes() -> impl vec128::Vec128 {
    Lanes(Base)
}

/// The matmul of a type on this tier.
pub(crate) fn tile(proof: Neon, ty: GgmlType) -> Option<TileFn> {
    vec128::tile(proof, ty)
}

impl Tier for Neon {
    fn tile<M: Matmul>(&self) -> TileFn {
        match self.level() {
            NeonLevel::Base => |tile| M::run(Lanes(Base), tile),
            // SAFETY: the proof says that the CPU has dotprod.
            NeonLevel::DotProd => |tile| unsafe { dotprod::<M>(tile) },
            // SAFETY: the proof says that the CPU has dotprod and i8mm.
            NeonLevel::I8mm => |tile| unsafe { i8mm::<M>(tile) },
        }
    }
}

/// Runs a plane kernel compiled for the level.
pub(crate) fn planes<K: PlaneKernel>(proof: Neon, kernel: K) {
    #[target_feature(enable = "dotprod")]
    fn dotprod<K: PlaneKernel>(kernel: K) {
        kernel.run(Lanes(DotProd::new()));
    }
    match proof.level() {
        NeonLevel::Base => kernel.run(Lanes(Base)),
        // SAFETY: the proof says that the CPU has dotprod, with i8mm too.
        NeonLevel::DotProd | NeonLevel::I8mm => unsafe { dotprod(kernel) },
    }
}

#[target_feature(enable = "dotprod")]
fn dotprod<M: Matmul>(tile: &mut Tile<'_>) {
    M::run(Lanes(DotProd::new()), tile);
}

#[target_feature(enable = "dotprod,i8mm")]
fn i8mm<M: Matmul>(tile: &mut Tile<'_>) {
    M::run(Lanes(I8mm::new()), tile);
}
