//! Flags about how to compute, shared by the commands that do.

use crate::{failure, output};
use quant_runtime::{Activations, EngineOptions, Isa, Model, Policy};
use std::path::PathBuf;

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
    /// How the KV cache keeps keys and values: f32, f16 (or exact), 8, near, auto, 4, 3.4, 2.4, or a policy as
    /// k=5,v=4 with, if wanted, window=, sinks=, boundary= and tiers=, as in k=8,v=4,sinks=128,tiers=4@1024/2@8192.
    /// Behind any with planes, ",drop=BITS" (2, 4 or 6) lets the pages seen least lose bits, down to so many, when
    /// --kv-memory is full; the text can't be reproduced then, and the last line says so.
    #[arg(long, value_name = "POLICY")]
    pub kv: Option<String>,
    /// Memory of the KV cache, as 512M or 2G. Without --kv, the best preset and context that fit are chosen.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub kv_memory: Option<usize>,
    /// Keep what drop= takes from pages in this file, which must not exist yet, to bring it back when memory is free.
    #[arg(long, value_name = "FILE")]
    pub kv_spill: Option<PathBuf>,
    /// How activations are treated.
    #[arg(long, value_enum, default_value = "auto")]
    pub activations: ActivationsArg,
}

impl EngineArgs {
    /// The options these flags and the environment ask for.
    pub fn options(&self, threads: Option<u32>) -> anyhow::Result<EngineOptions> {
        let kv = policy(self.kv.as_deref().unwrap_or("f16"))?;
        Ok(EngineOptions {
            isa: isa()?,
            threads: threads.map(|n| n as usize),
            kv,
            activations: self.activations.into(),
            context: self.ctx.map(|n| n as usize),
            kv_budget: self.kv_memory,
            kv_spill: self.kv_spill.clone(),
            ..EngineOptions::default()
        })
    }

    /// Fits the KV cache into the memory that the flags give it, and says what was chosen.
    pub fn fit(&self, options: &mut EngineOptions, model: &Model) -> anyhow::Result<()> {
        if let Some(bytes) = self.kv_memory.filter(|_| self.kv.is_none()) {
            let fit = options.fit_kv(model, bytes)?;
            output::note(&format!(
                "--kv-memory {}: a context of {} tokens with --kv {}",
                output::bytes(bytes as u64),
                fit.context,
                fit.preset
            ));
        }
        Ok(())
    }
}

/// Reads a `--kv`, and says what is to be said about it.
pub fn policy(text: &str) -> anyhow::Result<Policy> {
    let parsed = Policy::parse(text).map_err(failure::usage)?;
    parsed.notes.iter().for_each(|note| output::note(note));
    Ok(parsed.policy)
}

/// `1000`, `64K`, `512M`, `2G`.
fn bytes(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: Option<usize> = digits.parse().ok();
    number
        .and_then(|n| n.checked_mul(1 << shift))
        .filter(|&n| n > 0)
        .ok_or_else(|| "give bytes, as 1000, 64K, 512M or 2G".to_owned())
}

/// The SIMD tier that `QUANT_ISA` names, or the best one.
pub fn isa() -> anyhow::Result<Isa> {
    match std::env::var("QUANT_ISA") {
        Err(std::env::VarError::NotPresent) => Ok(Isa::detect()),
        Err(error) => Err(failure::usage(format!("QUANT_ISA: {error}"))),
        Ok(name) => Isa::from_name(&name).map_err(|error| failure::usage(format!("QUANT_ISA: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes() {
        assert_eq!([bytes("1000"), bytes("64k"), bytes("2G")], [Ok(1000), Ok(65536), Ok(2 << 30)]);
        for wrong in ["", "G", "0", "-1", "1.5G", "99999999999999999999", "18446744073709551615G", "1T"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
