//! Flags about how to compute, shared by the commands that do.

use crate::failure;
use quant_runtime::{Activations, EngineOptions, Isa, KvType};
use std::fmt;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kv {
    /// Half precision.
    F16,
    /// Single precision: the reference.
    F32,
}

impl Kv {
    /// What quality is measured against.
    pub const EXACT: Self = Self::F16;

    /// All of them.
    pub fn presets() -> Vec<Self> {
        vec![Self::F16, Self::F32]
    }

    pub fn kv_type(self) -> KvType {
        match self {
            Self::F16 => KvType::F16,
            Self::F32 => KvType::F32,
        }
    }
}

impl fmt::Display for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kv_type().name())
    }
}

/// How activations are treated.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum ActivationsArg {
    /// As the weight type asks: int8 for quantized weights.
    Auto,
    /// Never quantized; weights are dequantized: the reference.
    F32,
}

impl From<ActivationsArg> for Activations {
    fn from(arg: ActivationsArg) -> Self {
        match arg {
            ActivationsArg::Auto => Self::Auto,
            ActivationsArg::F32 => Self::F32,
        }
    }
}

/// How to compute.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Computing")]
pub struct EngineArgs {
    /// Tokens of context [default: as many as the model declares and half of the free memory holds].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub ctx: Option<u32>,
    /// How the KV cache stores keys and values.
    #[arg(long, value_enum, default_value = "f16")]
    pub kv: Kv,
    /// How activations are treated.
    #[arg(long, value_enum, default_value = "auto")]
    pub activations: ActivationsArg,
}

impl EngineArgs {
    /// The options these flags and the environment ask for.
    pub fn options(&self, threads: Option<u32>) -> anyhow::Result<EngineOptions> {
        Ok(EngineOptions {
            isa: isa()?,
            threads: threads.map(|n| n as usize),
            kv: self.kv.kv_type(),
            activations: self.activations.into(),
            context: self.ctx.map(|n| n as usize),
            ..EngineOptions::default()
        })
    }
}

/// The SIMD tier that `QUANT_ISA` names, or the best one.
pub fn isa() -> anyhow::Result<Isa> {
    match std::env::var("QUANT_ISA") {
        Err(std::env::VarError::NotPresent) => Ok(Isa::detect()),
        Err(error) => Err(failure::usage(format!("QUANT_ISA: {error}"))),
        Ok(name) => Isa::from_name(&name).map_err(|error| failure::usage(format!("QUANT_ISA: {error}"))),
    }
}
