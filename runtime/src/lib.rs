#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod backend;
mod engine;
mod error;
mod fingerprint;
pub mod memory;
mod model;
mod prefault;
pub mod quality;
pub mod sample;
mod stop;
pub mod threads;

pub use engine::{
    Binding, Engine, EngineOptions, Event, Finish, FinishReason, GenerateOptions, Generation, KvFit, Report,
    SessionId, Stats,
};
pub use error::Error;
pub use fingerprint::Fingerprint;
pub use model::Model;
pub use quant_gguf::Gguf;
pub use quant_kernels::{Activations, Isa};
pub use quant_kvcache::{Policy, Stats as KvStats, presets};
pub use quant_models::{LogitsWanted, ModelInfo};
pub use sample::{DryConfig, SamplerConfig};
