#![doc = include_str!("../README.md")]

pub mod activations;
#[cfg(target_arch = "aarch64")]
mod arm;
pub mod attention;
pub mod causal_conv1d;
pub mod codecs;
pub mod delta_net;
mod error;
pub mod exp;
pub mod gelu;
mod ggml_type;
pub mod hadamard;
mod isa;
pub mod l2_norm;
mod lines;
pub mod matmul;
pub mod parallel;
pub mod residual;
pub mod rms_norm;
pub mod rope;
pub mod sigmoid;
pub mod silu;
mod simd;
pub mod softmax;
pub mod softplus;
pub mod store_f16;
pub mod top_k;
pub mod types;
#[cfg(any(target_arch = "aarch64", all(target_arch = "wasm32", target_feature = "simd128")))]
mod vec128;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use error::Error;
pub use ggml_type::GgmlType;
pub use isa::Isa;
pub use matmul::{Activations, Projection, Weight};
#[cfg(feature = "rayon")]
pub use parallel::RayonPool;
pub use parallel::{Parallel, Serial, Team};

use types::TypeKernels;

/// The kernel table: for one [`Isa`], the functions of every type. Built once, passed by reference.
///
/// ```
/// use quant_kernels::{Isa, Kernels};
/// let kernels = Kernels::new(Isa::detect());
/// assert_eq!(kernels.isa(), Isa::detect());
/// ```
#[derive(Debug)]
pub struct Kernels {
    isa: Isa,
    types: Vec<Option<TypeKernels>>,
}

impl Kernels {
    /// Builds the table for one tier.
    pub fn new(isa: Isa) -> Self {
        let mut types: Vec<Option<TypeKernels>> = Vec::new();
        for kernels in types::table(isa) {
            let id = kernels.ty.id() as usize;
            if types.len() <= id {
                types.resize(id + 1, None);
            }
            types[id] = Some(kernels);
        }
        Self { isa, types }
    }

    /// The tier of this table.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The kernels of one type; `None` for integer types (I8..I64, F64) that no matmul reads.
    pub fn of(&self, ty: GgmlType) -> Option<&TypeKernels> {
        self.types.get(ty.id() as usize)?.as_ref()
    }
}
