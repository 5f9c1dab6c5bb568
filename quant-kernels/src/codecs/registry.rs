//! All codecs by name: what a cache lists. A new codec is one file and one line here.

use super::ggml::Ggml;
use super::planes::{PlaneKeys, PlaneValues};
use super::polar::Polar;
use super::qjl::Qjl;
use super::turbo_mse::TurboMse;
use super::turbo_prod::TurboProd;
use super::uniform::Uniform;
use super::{KeyCodec, RotationKind, ValueCodec};
use crate::{Error, GgmlType};

/// What a codec is made for.
#[derive(Debug, Clone, Copy)]
pub struct CodecParams<'a> {
    /// Values of a vector.
    pub dim: usize,
    /// Seed of rotations and projections; queries and keys must share it.
    pub seed: u64,
    /// How rotations are made. Plane codecs always take one Hadamard round.
    pub rotation: RotationKind,
    /// Weight of each channel of keys, about the size of that channel in queries; `None` weighs all the same. Only
    /// plane codecs use it.
    pub balance: Option<&'a [f32]>,
}

impl CodecParams<'_> {
    /// Hadamard rotation in two rounds, no balance.
    pub const fn new(dim: usize, seed: u64) -> Self {
        Self { dim, seed, rotation: RotationKind::HadamardTwice, balance: None }
    }
}

/// One codec of the registry.
#[derive(Debug, Clone, Copy)]
pub struct CodecEntry {
    /// Its name in policies: lower case, bits last.
    pub name: &'static str,
    /// Makes it for keys.
    pub key: fn(&CodecParams<'_>) -> Result<Box<dyn KeyCodec>, Error>,
    /// Makes it for values.
    pub value: fn(&CodecParams<'_>) -> Result<Box<dyn ValueCodec>, Error>,
}

/// An entry whose codec serves both.
macro_rules! both {
    ($name:literal, $params:ident => $codec:expr) => {
        both!($name, $params => $codec, $codec)
    };
    ($name:literal, $params:ident => $key:expr, $value:expr) => {
        CodecEntry { name: $name, key: |$params| Ok(Box::new($key)), value: |$params| Ok(Box::new($value)) }
    };
}

/// The registry.
static REGISTRY: [CodecEntry; 31] = [
    both!("planes-2", p => PlaneKeys::new(p, 2)?, PlaneValues::new(p, 2)?),
    both!("planes-3", p => PlaneKeys::new(p, 3)?, PlaneValues::new(p, 3)?),
    both!("planes-4", p => PlaneKeys::new(p, 4)?, PlaneValues::new(p, 4)?),
    both!("planes-5", p => PlaneKeys::new(p, 5)?, PlaneValues::new(p, 5)?),
    both!("planes-6", p => PlaneKeys::new(p, 6)?, PlaneValues::new(p, 6)?),
    both!("planes-7", p => PlaneKeys::new(p, 7)?, PlaneValues::new(p, 7)?),
    both!("planes-8", p => PlaneKeys::new(p, 8)?, PlaneValues::new(p, 8)?),
    both!("turbo-mse-1", p => TurboMse::new(p, 1)?),
    both!("turbo-mse-2", p => TurboMse::new(p, 2)?),
    both!("turbo-mse-3", p => TurboMse::new(p, 3)?),
    both!("turbo-mse-4", p => TurboMse::new(p, 4)?),
    both!("turbo-prod-1", p => TurboProd::new(p, 1)?),
    both!("turbo-prod-2", p => TurboProd::new(p, 2)?),
    both!("turbo-prod-3", p => TurboProd::new(p, 3)?),
    both!("turbo-prod-4", p => TurboProd::new(p, 4)?),
    both!("polar-4", p => Polar::new(p)?),
    both!("qjl-1", p => Qjl::new(p, 1)?),
    both!("qjl-2", p => Qjl::new(p, 2)?),
    both!("uniform-2", p => Uniform::new(p, 2)?),
    both!("uniform-3", p => Uniform::new(p, 3)?),
    both!("uniform-4", p => Uniform::new(p, 4)?),
    both!("uniform-5", p => Uniform::new(p, 5)?),
    both!("uniform-6", p => Uniform::new(p, 6)?),
    both!("uniform-7", p => Uniform::new(p, 7)?),
    both!("uniform-8", p => Uniform::new(p, 8)?),
    both!("q8_0", p => Ggml::new(p, GgmlType::Q8_0)?),
    both!("q5_1", p => Ggml::new(p, GgmlType::Q5_1)?),
    both!("q5_0", p => Ggml::new(p, GgmlType::Q5_0)?),
    both!("q4_1", p => Ggml::new(p, GgmlType::Q4_1)?),
    both!("q4_0", p => Ggml::new(p, GgmlType::Q4_0)?),
    both!("iq4_nl", p => Ggml::new(p, GgmlType::IQ4_NL)?),
];

/// Every codec.
///
/// ```
/// use quant_kernels::codecs::{CodecParams, registry};
/// for entry in registry() {
///     let codec = (entry.key)(&CodecParams::new(128, 7))?;
///     assert!(codec.page_bytes() < 128 * 128 * 2, "{} is no smaller than f16", entry.name);
/// }
/// # Ok::<(), quant_kernels::Error>(())
/// ```
pub fn registry() -> &'static [CodecEntry] {
    &REGISTRY
}

/// The codec of this name.
pub fn entry(name: &str) -> Option<&'static CodecEntry> {
    REGISTRY.iter().find(|entry| entry.name == name)
}
