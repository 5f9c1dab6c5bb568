//! Flags about how tokens are chosen.

use crate::failure;
use quant_runtime::SamplerConfig;

/// Every sampler. What is not given is as the model file says, or else as the defaults are.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling (default: the file's own settings, else --temp 0.8 --min-p 0.05)")]
pub struct SamplingArgs {
    /// Repeats a text: draws depend on the seed, the position and the model alone [default: a new one].
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Divides the logits; 0 always takes the most likely token.
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temp: Option<f32>,
    /// Keep the K most likely tokens; 0 is off.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Keep the most likely tokens that sum to P; 1 is off.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Keep tokens at least P times as likely as the best; 0 is off.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Keep the locally typical tokens that sum to P; 1 is off.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    typical_p: Option<f32>,
    /// Make recent tokens less likely by this factor; 1 is off.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repeat_penalty: Option<f32>,
    /// Take X from a recent token's logit for each time it occurred; 0 is off.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Take X from a recent token's logit once; 0 is off.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// How many last tokens the three penalties look at; -1 is all.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    penalty_last_n: Option<i64>,
    /// DRY: what a token loses that extends a repetition; 0 is off.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    dry_multiplier: Option<f32>,
    /// DRY: how the loss grows with each repeated token.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    dry_base: Option<f32>,
    /// DRY: shorter repetitions are free.
    #[arg(long, value_name = "N")]
    dry_allowed_length: Option<usize>,
    /// DRY: how many last tokens are searched; -1 is all.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    dry_penalty_last_n: Option<i64>,
    /// DRY: a text that no repetition reaches across, in place of the default ones; may be repeated. \n is a line
    /// end, "none" is none.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    dry_sequence_breaker: Vec<String>,
    /// XTC: how often all but the least of the top choices are dropped; 0 is off.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    xtc_probability: Option<f32>,
    /// XTC: from which probability a token is a top choice.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    xtc_threshold: Option<f32>,
    /// Mirostat in place of the truncating samplers: 0 (off) or 2.
    #[arg(long, value_name = "V")]
    mirostat: Option<u32>,
    /// Mirostat: the surprise to aim at, in bits.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    mirostat_tau: Option<f32>,
    /// Mirostat: how fast it learns.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    mirostat_eta: Option<f32>,
    /// Add to a token's logit, as 15=-2.5; 15=-inf bans the token. May be repeated.
    #[arg(long, value_name = "ID=BIAS", value_parser = logit_bias)]
    logit_bias: Vec<(u32, f32)>,
}

impl SamplingArgs {
    /// The file's settings with these flags over them, checked.
    pub fn over(&self, mut config: SamplerConfig) -> anyhow::Result<SamplerConfig> {
        fn set<T: Clone>(field: &mut T, given: &Option<T>) {
            if let Some(value) = given {
                *field = value.clone();
            }
        }
        let window = |n: i64| usize::try_from(n).ok();
        set(&mut config.temperature, &self.temp);
        set(&mut config.top_k, &self.top_k);
        set(&mut config.top_p, &self.top_p);
        set(&mut config.min_p, &self.min_p);
        set(&mut config.typical_p, &self.typical_p);
        set(&mut config.repeat_penalty, &self.repeat_penalty);
        set(&mut config.frequency_penalty, &self.frequency_penalty);
        set(&mut config.presence_penalty, &self.presence_penalty);
        set(&mut config.penalty_last_n, &self.penalty_last_n.map(window));
        set(&mut config.dry.multiplier, &self.dry_multiplier);
        set(&mut config.dry.base, &self.dry_base);
        set(&mut config.dry.allowed_length, &self.dry_allowed_length);
        set(&mut config.dry.last_n, &self.dry_penalty_last_n.map(window));
        set(&mut config.xtc_probability, &self.xtc_probability);
        set(&mut config.xtc_threshold, &self.xtc_threshold);
        set(&mut config.mirostat, &self.mirostat);
        set(&mut config.mirostat_tau, &self.mirostat_tau);
        set(&mut config.mirostat_eta, &self.mirostat_eta);
        if !self.dry_sequence_breaker.is_empty() {
            let breakers = self.dry_sequence_breaker.iter().filter(|text| *text != "none");
            config.dry.breakers = breakers.map(|text| text.replace("\\n", "\n")).collect();
        }
        config.logit_bias.extend(&self.logit_bias);
        config.seed = self.seed.unwrap_or_else(new_seed);
        config.validate().map_err(failure::usage)?;
        Ok(config)
    }
}

/// A seed nobody chose: short enough to type, and exact as a JSON number.
fn new_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) >> 32
}

fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let parsed = text.split_once('=').and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
    parsed.ok_or_else(|| "give a token id and a number, as 15=-2.5".to_owned())
}
