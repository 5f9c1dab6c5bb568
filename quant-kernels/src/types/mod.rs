//! One file per quantization type: layout, dequantize, quantize, scalar dot. [`table`] is the only list of them.

use crate::activations::{ActKind, Acts};
use crate::matmul::Tile;
use crate::{GgmlType, Isa};

mod affine_search;
pub mod bf16;
pub(crate) mod blocks256;
pub(crate) mod blocks32;
pub(crate) mod codebooks;
pub mod f16;
pub mod f32;
#[cfg(test)]
mod goldens;
mod grid_search;
pub mod iq1_m;
pub mod iq1_s;
pub mod iq2_s;
pub mod iq2_xs;
pub mod iq2_xxs;
pub mod iq3_s;
pub mod iq3_xxs;
pub mod iq4_nl;
pub mod iq4_xs;
#[rustfmt::skip]
mod iq_grids;
pub mod mxfp4;
pub mod nvfp4;
pub mod q1_0;
pub mod q2_0;
pub mod q2_k;
pub mod q3_k;
pub mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;
pub mod q8_1;
pub mod q8_k;
pub mod quantize;
mod scale_search;
pub mod tq1_0;
pub mod tq2_0;
mod two_bytes;
mod unpacked;

/// Dequantizes whole blocks: `blocks.len() / block_bytes` blocks into as many times `block_len` values.
pub type DequantizeFn = fn(blocks: &[u8], out: &mut [f32]);

pub use quantize::QuantizeFn;

/// The scalar dot product: one weight row with one token. This function is the arithmetic contract of a type.
pub type DotFn = fn(row: &[u8], acts: &Acts, token: usize) -> f32;

/// Some rows times all tokens of a tile, with exactly the bits of [`DotFn`].
pub type TileFn = fn(tile: &mut Tile<'_>);

/// The functions of one type on one tier.
#[derive(Debug, Clone, Copy)]
pub struct TypeKernels {
    /// The type.
    pub ty: GgmlType,
    /// How its activations are stored.
    pub acts: ActKind,
    /// Blocks to values, equal to ggml bit for bit.
    pub dequantize: DequantizeFn,
    /// Values to blocks, with the least weighted error that the type's search finds.
    pub quantize: QuantizeFn,
    /// The specification.
    pub dot: DotFn,
    /// The matmul: in portable code as a type's file has it, replaced by the tier's own in [`table`].
    pub tile: TileFn,
}

/// Every type's kernels on one tier: the registry. A new type is one file and one line here; a
/// tier that has a matmul of its own for it lists that in its folder's `tile`.
pub fn table(isa: Isa) -> Vec<TypeKernels> {
    let mut table = vec![
        f32::kernels(),
        f16::kernels(),
        q4_0::kernels(),
        q4_1::kernels(),
        q5_0::kernels(),
        q5_1::kernels(),
        q8_0::kernels(),
        q2_k::kernels(),
        q3_k::kernels(),
        q4_k::kernels(),
        q5_k::kernels(),
        q6_k::kernels(),
        iq2_xxs::kernels(),
        iq2_xs::kernels(),
        iq3_xxs::kernels(),
        iq1_s::kernels(),
        iq4_nl::kernels(),
        iq3_s::kernels(),
        iq2_s::kernels(),
        iq4_xs::kernels(),
        iq1_m::kernels(),
        bf16::kernels(),
        tq1_0::kernels(),
        tq2_0::kernels(),
        mxfp4::kernels(),
        nvfp4::kernels(),
        q1_0::kernels(),
        q2_0::kernels(),
    ];
    for kernels in &mut table {
        if let Some(tile) = tile_of(isa, kernels.ty) {
            kernels.tile = tile;
        }
    }
    table
}

/// A tier's own matmul of a type, if it has one.
#[allow(unused_variables, reason = "targets with only the scalar tier ask for no type")]
fn tile_of(isa: Isa, ty: GgmlType) -> Option<TileFn> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(proof) => crate::x86::avx2::tile(proof, ty),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni(proof) => crate::x86::avx2::tile_vnni(proof, ty),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(proof) => crate::x86::avx512::tile(proof, ty),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon(proof) => crate::arm::neon::tile(proof, ty),
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Isa::Simd128(proof) => crate::wasm::simd128::tile(proof, ty),
        _ => None,
    }
}

/// The little-endian f16 at byte `at` of a block.
pub(crate) fn f16_at(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Runs the scalar dot over a whole tile: the matmul of types (or tiers) without a SIMD version.
pub fn tile_by_dot(dot: DotFn, tile: &mut Tile<'_>) {
    for token in 0..tile.acts.tokens {
        for row in 0..tile.rows {
            let value = dot(tile.row(row), tile.acts, token);
            tile.set(token, row, value);
        }
    }
}
