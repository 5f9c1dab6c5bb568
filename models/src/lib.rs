//! Registry of the architectures of this build.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub use quant_models_core::{Context, Decoder, Error, LogitsWanted, ModelInfo, NoProbe, Point, Probe, Span};

use quant_gguf::Gguf;
use quant_models_core::Loader;

/// Reads a model of one architecture.
type Load = fn(Loader<'_>) -> Result<Decoder, Error>;

/// Every architecture of this build: a new family is one crate, one feature and one line here.
const ARCHITECTURES: &[(&str, Load)] = &[
    #[cfg(feature = "llama")]
    (quant_model_llama::ARCH, quant_model_llama::load),
];

/// The architectures of this build, as `general.architecture` names them.
pub fn supported() -> impl ExactSizeIterator<Item = &'static str> {
    ARCHITECTURES.iter().map(|&(name, _)| name)
}

/// Reads the model of a file. The weights stay where they are: the model shares the memory of `gguf`.
///
/// # Errors
/// [`Error::Architecture`] if no family of this build runs it, [`Error::Unsupported`] for a variant that the family
/// does not run, [`Error::Unclaimed`] if the file has parts that it does not know, and whatever the file lacks.
pub fn load(gguf: &Gguf) -> Result<Decoder, Error> {
    let loader = Loader::new(gguf)?;
    match ARCHITECTURES.iter().find(|&&(name, _)| name == loader.arch()) {
        Some((_, load)) => load(loader),
        None => Err(Error::Architecture {
            arch: loader.arch().to_owned(),
            supported: supported().collect::<Vec<_>>().join(", "),
        }),
    }
}
