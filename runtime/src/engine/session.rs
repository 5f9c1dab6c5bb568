//! One sequence: its tokens, how many of them the cache remembers, and the generation that runs on it.

use super::event::{Event, Finish, FinishReason, Stats};
use crate::backend::Backend;
use crate::sample::{Context, Sampler};
use crate::stop::StopMatcher;
use crate::{Error, SamplerConfig};
use quant_kvcache::SequenceId;
use quant_tokenizer::DecoderState;
use std::time::{Duration, Instant};

/// Names a session of one engine. The id of a closed session never names another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub(super) u64);

/// How a text is continued and when it ends.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerateOptions {
    /// How tokens are chosen.
    pub sampler: SamplerConfig,
    /// Which of a request's sequences this is: equal prompts with equal seeds draw differently.
    pub sequence: u64,
    /// Tokens at the most; `None` goes on until the text or the context ends.
    pub max_tokens: Option<usize>,
    /// Texts that end the generation; they are not part of its text.
    pub stop_strings: Vec<String>,
    /// Go on after tokens that end a text.
    pub ignore_end: bool,
    /// When the context is full, forget half of what it holds, whole pages of 128 tokens, but keep this many tokens at its
    /// beginning, rounded up to pages; `None` ends the text. What follows is not what a model would write that had never
    /// seen the forgotten part, nor what one would write that still saw it.
    pub context_shift: Option<usize>,
}

/// A sequence.
#[derive(Debug)]
pub(super) struct Session {
    pub sequence: SequenceId,
    /// All tokens; the first `done` are in the cache.
    pub tokens: Vec<u32>,
    pub done: usize,
    pub job: Option<Job>,
}

impl Session {
    /// Tokens that the cache does not remember yet.
    pub(super) fn pending(&self) -> &[u32] {
        self.tokens.get(self.done..).unwrap_or_default()
    }
}

/// A generation that runs.
#[derive(Debug)]
pub(super) struct Job {
    sampler: Sampler,
    sequence: u64,
    stops: StopMatcher,
    decoder: DecoderState,
    max_tokens: usize,
    ignore_end: bool,
    pub context_shift: Option<usize>,
    started: Instant,
    /// Generations start in this order.
    pub order: u64,
    pub stats: Stats,
}

impl Job {
    pub(super) fn new(
        options: &GenerateOptions,
        decoder: DecoderState,
        prompt_tokens: usize,
        order: u64,
    ) -> Result<Self, Error> {
        Ok(Self {
            sampler: Sampler::new(&options.sampler)?,
            sequence: options.sequence,
            stops: StopMatcher::new(&options.stop_strings),
            decoder,
            max_tokens: options.max_tokens.unwrap_or(usize::MAX),
            ignore_end: options.ignore_end,
            context_shift: options.context_shift,
            started: Instant::now(),
            order,
            stats: Stats { prompt_tokens, ..Stats::default() },
        })
    }

    /// Whether the prompt is still being read.
    pub(super) fn prefills(&self) -> bool {
        self.stats.first_token.is_none()
    }

    /// Accounts a step's time.
    pub(super) fn spent(&mut self, time: Duration, evaluated: usize) {
        if self.prefills() {
            self.stats.prefill += time;
        } else {
            self.stats.decode += time;
            self.stats.decoded_tokens += evaluated;
        }
    }

    /// Chooses a token from a row of logits and reports it; `Some` reason if that ends the text.
    pub(super) fn choose(
        &mut self,
        backend: &dyn Backend,
        tokens: &mut Vec<u32>,
        context: usize,
        logits: &mut [f32],
        report: &mut dyn FnMut(Event),
    ) -> Result<Option<FinishReason>, Error> {
        let forgotten = self.stats.shifted_tokens;
        let place =
            Context { tokens, forgotten, sequence: self.sequence, pieces: backend, isa: backend.isa() };
        let token = self.sampler.sample(logits, &place)?;
        self.stats.first_token.get_or_insert_with(|| self.started.elapsed());
        tokens.push(token);
        if !self.ignore_end && backend.stop_tokens().contains(&token) {
            return Ok(Some(FinishReason::EndToken));
        }
        self.stats.generated_tokens += 1;
        let (text, stopped) = self.stops.push(&backend.decode(&mut self.decoder, token));
        report(Event::Token { token, text });
        Ok(if stopped {
            Some(FinishReason::StopString)
        } else if self.stats.generated_tokens >= self.max_tokens {
            Some(FinishReason::Length)
        } else if tokens.len() >= context {
            Some(FinishReason::ContextFull)
        } else {
            None
        })
    }

    /// The end.
    pub(super) fn finish(mut self, reason: FinishReason, kv: &quant_kvcache::Stats, reduced: bool) -> Finish {
        let mut text = String::new();
        if reason != FinishReason::StopString {
            // The rest of a broken character may still complete a stop string.
            let (shown, stopped) = self.stops.push(&self.decoder.finish());
            text = shown;
            if !stopped {
                text.push_str(&self.stops.finish());
            }
        }
        self.stats.kv_bytes = kv.used_bytes;
        self.stats.kv_peak_bytes = kv.peak_bytes;
        self.stats.kv_f16_bytes = kv.f16_bytes;
        self.stats.kv_reduced_pages = kv.reduced_pages;
        self.stats.reduced = reduced;
        Finish { reason, text, stats: self.stats }
    }
}
