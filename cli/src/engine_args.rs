//! Flags about how to compute, shared by the commands that do.

use crate::{failure, output};
use quant_runtime::{Activations, EngineOptions, Isa, Policy};

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
    /// How the KV cache keeps keys and values: f32, f16 (or exact), 8, near, auto, 4, 3.4, 2.4, or
    /// k=CODEC,v=CODEC[,window=N][,sinks=N][,boundary=BITS][,tiers=CODEC@AGE/...].
    #[arg(long, value_name = "POLICY", default_value = "f16")]
    pub kv: String,
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
            kv: policy(&self.kv)?,
            activations: self.activations.into(),
            context: self.ctx.map(|n| n as usize),
            ..EngineOptions::default()
        })
    }
}

/// What `--kv` says; notes about names go to standard error.
pub fn policy(text: &str) -> anyhow::Result<Policy> {
    let kv = Policy::parse(text).map_err(failure::usage)?;
    for note in &kv.notes {
        output::note(note);
    }
    Ok(kv.policy)
}

/// The SIMD tier that `QUANT_ISA` names, or the best one.
pub fn isa() -> anyhow::Result<Isa> {
    match std::env::var("QUANT_ISA") {
        Err(std::env::VarError::NotPresent) => Ok(Isa::detect()),
        Err(error) => Err(failure::usage(format!("QUANT_ISA: {error}"))),
        Ok(name) => Isa::from_name(&name).map_err(|error| failure::usage(format!("QUANT_ISA: {error}"))),
    }
}
