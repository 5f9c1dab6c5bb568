//! What a request asks of the samplers, its defaults and its limits.

use crate::Error;

/// How tokens are chosen. Fields keep the names the field uses; every default but temperature and min-p is off.
///
/// At temperature 0 the most likely token is taken: truncating samplers, XTC and mirostat are off, penalties, DRY
/// and biases stay.
///
/// ```
/// use quant_runtime::SamplerConfig;
/// let config = SamplerConfig { temperature: 0.7, top_k: 40, seed: 1, ..SamplerConfig::default() };
/// config.validate().unwrap();
/// assert!(SamplerConfig { top_p: f32::NAN, ..config }.validate().is_err());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerConfig {
    /// Draws are a function of this, the sequence and the position alone.
    pub seed: u64,
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keep this many of the best tokens; 0 is off.
    pub top_k: usize,
    /// Keep the best tokens whose probabilities sum to this; 1 is off.
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the best; 0 is off.
    pub min_p: f32,
    /// Keep the locally typical tokens whose probabilities sum to this; 1 is off.
    pub typical_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens; 1 is off.
    pub repeat_penalty: f32,
    /// Taken from a recent token's logit for each time it occurred; 0 is off.
    pub frequency_penalty: f32,
    /// Taken from a recent token's logit once; 0 is off.
    pub presence_penalty: f32,
    /// How many last tokens the three penalties look at; `None` is all of them.
    pub penalty_last_n: Option<usize>,
    /// The penalty on repeated runs.
    pub dry: DryConfig,
    /// How often XTC acts; 0 is off.
    pub xtc_probability: f32,
    /// The probability from which a token is a top choice for XTC; above 0.5 is off.
    pub xtc_threshold: f32,
    /// 2 for mirostat 2, which takes the place of the truncating samplers and XTC; 0 is off. There is no other.
    pub mirostat: u32,
    /// Mirostat's target surprise, in bits.
    pub mirostat_tau: f32,
    /// Mirostat's learning rate.
    pub mirostat_eta: f32,
    /// Added to the logits of these tokens; minus infinity bans one.
    pub logit_bias: Vec<(u32, f32)>,
}

/// DRY: what a token loses that would extend a repeated run.
#[derive(Debug, Clone, PartialEq)]
pub struct DryConfig {
    /// The loss at `allowed_length`; 0 is off.
    pub multiplier: f32,
    /// The loss grows by this factor with each further token.
    pub base: f32,
    /// Repetitions shorter than this are free.
    pub allowed_length: usize,
    /// How many last tokens are searched; `None` is all of them.
    pub last_n: Option<usize>,
    /// Texts that no repetition reaches across.
    pub breakers: Vec<String>,
}

impl Default for DryConfig {
    fn default() -> Self {
        Self {
            multiplier: 0.0,
            base: 1.75,
            allowed_length: 2,
            last_n: None,
            breakers: ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
        }
    }
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            temperature: 0.8,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.05,
            typical_p: 1.0,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_last_n: Some(64),
            dry: DryConfig::default(),
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            logit_bias: Vec::new(),
        }
    }
}

impl SamplerConfig {
    /// The default, but always the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// [`Error::Sampler`] names the first field that makes no sense, its value and what is allowed.
    pub fn validate(&self) -> Result<(), Error> {
        const UNIT: std::ops::RangeInclusive<f32> = 0.0..=1.0;
        const COUNT: std::ops::RangeInclusive<f32> = 0.0..=f32::MAX;
        const POSITIVE: std::ops::RangeInclusive<f32> = f32::MIN_POSITIVE..=f32::MAX;
        const FINITE: std::ops::RangeInclusive<f32> = f32::MIN..=f32::MAX;
        let dry = &self.dry;
        for (name, value, range, allowed) in [
            ("temperature", self.temperature, COUNT, "a finite number, 0 or more"),
            ("top_p", self.top_p, UNIT, "between 0 and 1 (off)"),
            ("min_p", self.min_p, UNIT, "between 0 (off) and 1"),
            ("typical_p", self.typical_p, UNIT, "between 0 and 1 (off)"),
            ("repeat_penalty", self.repeat_penalty, POSITIVE, "a finite number above 0 (1 is off)"),
            ("frequency_penalty", self.frequency_penalty, FINITE, "a finite number (0 is off)"),
            ("presence_penalty", self.presence_penalty, FINITE, "a finite number (0 is off)"),
            ("dry_multiplier", dry.multiplier, COUNT, "a finite number, 0 (off) or more"),
            ("dry_base", dry.base, 1.0..=f32::MAX, "a finite number, 1 or more"),
            ("xtc_probability", self.xtc_probability, UNIT, "between 0 (off) and 1"),
            ("xtc_threshold", self.xtc_threshold, UNIT, "between 0 and 1"),
            ("mirostat", self.mirostat as f32, FINITE, "0 (off) or 2"),
            ("mirostat_tau", self.mirostat_tau, COUNT, "a finite number, 0 or more"),
            ("mirostat_eta", self.mirostat_eta, UNIT, "between 0 and 1"),
        ] {
            if !range.contains(&value) || (name == "mirostat" && !matches!(self.mirostat, 0 | 2)) {
                return Err(Error::Sampler { name, value: value.to_string(), allowed });
            }
        }
        if let Some((token, bias)) = self.logit_bias.iter().find(|(_, b)| b.is_nan() || *b == f32::INFINITY) {
            let value = format!("{bias} for token {token}");
            return Err(Error::Sampler { name: "logit_bias", value, allowed: "a number or minus infinity" });
        }
        if dry.breakers.iter().any(String::is_empty) {
            let (name, value) = ("dry_sequence_breakers", "an empty text".to_owned());
            return Err(Error::Sampler { name, value, allowed: "texts of at least one character" });
        }
        if dry.allowed_length == 0 {
            let (name, value) = ("dry_allowed_length", "0".to_owned());
            return Err(Error::Sampler { name, value, allowed: "1 or more" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{DryConfig, SamplerConfig};

    #[test]
    fn nonsense_is_refused_by_name() {
        let ok = SamplerConfig::default();
        ok.validate().unwrap();
        SamplerConfig::greedy().validate().unwrap();
        SamplerConfig { logit_bias: vec![(3, f32::NEG_INFINITY)], ..ok.clone() }.validate().unwrap();
        let dry = |dry| SamplerConfig { dry, ..SamplerConfig::default() };
        for (name, bad) in [
            ("temperature", SamplerConfig { temperature: f32::NAN, ..ok.clone() }),
            ("temperature", SamplerConfig { temperature: -0.1, ..ok.clone() }),
            ("temperature", SamplerConfig { temperature: f32::INFINITY, ..ok.clone() }),
            ("top_p", SamplerConfig { top_p: 1.5, ..ok.clone() }),
            ("min_p", SamplerConfig { min_p: -0.5, ..ok.clone() }),
            ("typical_p", SamplerConfig { typical_p: f32::NAN, ..ok.clone() }),
            ("repeat_penalty", SamplerConfig { repeat_penalty: 0.0, ..ok.clone() }),
            ("frequency_penalty", SamplerConfig { frequency_penalty: f32::NAN, ..ok.clone() }),
            ("presence_penalty", SamplerConfig { presence_penalty: f32::INFINITY, ..ok.clone() }),
            ("dry_multiplier", dry(DryConfig { multiplier: -1.0, ..DryConfig::default() })),
            ("dry_base", dry(DryConfig { base: 0.5, ..DryConfig::default() })),
            ("dry_allowed_length", dry(DryConfig { allowed_length: 0, ..DryConfig::default() })),
            (
                "dry_sequence_breakers",
                dry(DryConfig { breakers: vec![String::new()], ..DryConfig::default() }),
            ),
            ("xtc_probability", SamplerConfig { xtc_probability: 2.0, ..ok.clone() }),
            ("xtc_threshold", SamplerConfig { xtc_threshold: -1.0, ..ok.clone() }),
            ("mirostat", SamplerConfig { mirostat: 1, ..ok.clone() }),
            ("mirostat_tau", SamplerConfig { mirostat_tau: -1.0, ..ok.clone() }),
            ("mirostat_eta", SamplerConfig { mirostat_eta: 2.0, ..ok.clone() }),
            ("logit_bias", SamplerConfig { logit_bias: vec![(0, f32::NAN)], ..ok.clone() }),
        ] {
            let message = bad.validate().unwrap_err().to_string();
            assert!(message.contains(name), "{name}: {message}");
        }
    }
}
