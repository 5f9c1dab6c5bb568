//! From a row of logits to a token.
//!
//! First logits are adjusted (bias, penalties, DRY), then the set of candidates is truncated (top-k, typical, top-p,
//! min-p, XTC), then one is drawn at a temperature. A new sampler is one file and one line in [`Sampler::new`].
//! Every result is a function of the logits, the tokens so far, the seed and the sequence: ties break by token id,
//! sums are exact, and `exp` and `ln` are our own.

mod candidates;
mod config;
mod dry;
mod greedy;
mod logit_bias;
mod math;
mod metadata;
mod min_p;
mod mirostat;
mod penalties;
mod random;
mod temperature;
#[cfg(test)]
mod tests;
mod top_p;
mod typical;
mod xtc;

pub use config::{DryConfig, SamplerConfig};
pub use greedy::greedy;

use crate::Error;
use candidates::Candidates;
use quant_kernels::Isa;
use random::Place;
use std::borrow::Cow;

/// What a sampler may look at beside the logits.
pub struct Context<'a> {
    /// All tokens of the sequence so far, the prompt included.
    pub tokens: &'a [u32],
    /// Tokens before these that were forgotten. With those that were not they make the position of the draw.
    pub forgotten: usize,
    /// Which of a request's sequences this is: equal prompts with equal seeds then differ.
    pub sequence: u64,
    /// The text of tokens.
    pub pieces: &'a dyn Pieces,
    /// The tier that scans the row of logits; no result depends on it.
    pub isa: Isa,
}

/// The text of tokens, for samplers that look at it.
pub trait Pieces {
    /// The bytes that a token stands for; empty if it has none.
    fn piece(&self, token: u32) -> Cow<'_, [u8]>;
}

/// No token has a text.
impl Pieces for () {
    fn piece(&self, _: u32) -> Cow<'_, [u8]> {
        Cow::Borrowed(&[])
    }
}

/// A step that changes logits.
trait Adjust: std::fmt::Debug + Send + Sync {
    /// Changes them.
    fn adjust(&self, logits: &mut [f32], context: &Context<'_>);
}

/// A step that removes candidates; it leaves at least one.
trait Truncate: std::fmt::Debug + Send + Sync {
    /// Removes them.
    fn truncate(&self, kept: &mut Candidates, place: Place);
}

/// The chain of samplers that a configuration asks for, with its buffers and mirostat's memory. One per sequence.
#[derive(Debug)]
pub struct Sampler {
    seed: u64,
    temperature: f32,
    /// How many of the best are candidates at all, the first cut; 0: all.
    top_k: usize,
    adjust: Vec<Box<dyn Adjust>>,
    truncate: Vec<Box<dyn Truncate>>,
    mirostat: Option<mirostat::Mirostat>,
    kept: Candidates,
}

impl Sampler {
    /// Builds the chain.
    ///
    /// # Errors
    /// As [`SamplerConfig::validate`].
    pub fn new(config: &SamplerConfig) -> Result<Self, Error> {
        config.validate()?;
        let adjust = [logit_bias::LogitBias::step, penalties::Penalties::step, dry::Dry::step];
        let truncate = [typical::Typical::step, top_p::TopP::step, min_p::MinP::step, xtc::Xtc::step];
        let mirostat = mirostat::Mirostat::step(config);
        let truncates = config.temperature > 0.0 && mirostat.is_none();
        Ok(Self {
            seed: config.seed,
            temperature: config.temperature,
            top_k: if truncates { config.top_k } else { 0 },
            adjust: adjust.iter().filter_map(|step| step(config)).collect(),
            truncate: truncate.iter().filter(|_| truncates).filter_map(|step| step(config)).collect(),
            mirostat,
            kept: Candidates::default(),
        })
    }

    /// Chooses the next token. `logits` holds one value per token of the vocabulary and is changed.
    ///
    /// # Errors
    /// [`Error::BadLogit`] for NaN or plus infinity, [`Error::NoCandidate`] if every token is banned.
    pub fn sample(&mut self, logits: &mut [f32], context: &Context<'_>) -> Result<u32, Error> {
        if !self.adjust.is_empty() {
            // A NaN must not hide behind a ban.
            for (id, &logit) in (0u32..).zip(&*logits) {
                candidates::check(id, logit)?;
            }
        }
        for step in &self.adjust {
            step.adjust(logits, context);
        }
        if self.temperature == 0.0 {
            return greedy(context.isa, logits);
        }
        let place = Place {
            seed: self.seed,
            sequence: context.sequence,
            position: (context.forgotten + context.tokens.len()) as u64,
        };
        let kept = &mut self.kept;
        match self.top_k {
            0 => kept.fill(logits)?,
            k => kept.fill_best(context.isa, logits, k)?,
        }
        for step in &self.truncate {
            step.truncate(kept, place);
        }
        if !(kept.max() / self.temperature).is_finite() {
            // The temperature is so near 0 that dividing by it overflows: the limit is greedy.
            return Ok(kept.best(1).first().map_or(0, |c| c.id()));
        }
        Ok(match &mut self.mirostat {
            Some(mirostat) => mirostat.draw(kept, self.temperature, place),
            None => temperature::draw(kept, self.temperature, place),
        })
    }
}

/// The last `last_n` tokens, or all.
fn window(tokens: &[u32], last_n: Option<usize>) -> &[u32] {
    let n = last_n.unwrap_or(usize::MAX).min(tokens.len());
    &tokens[tokens.len() - n..]
}
