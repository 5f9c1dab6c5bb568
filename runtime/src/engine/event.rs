//! What a generation reports.

use std::time::Duration;

/// One step of a generation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A part of the prompt was read.
    Prefill {
        /// Tokens of the prompt that are read.
        done: usize,
        /// Tokens of the prompt that had to be read.
        total: usize,
    },
    /// A token was chosen.
    Token {
        /// The token.
        token: u32,
        /// The text that became certain with it: empty inside a character or a possible stop string.
        text: String,
    },
    /// The end; nothing follows.
    Finished(Finish),
}

/// How a generation ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// Text that was held back until now.
    pub text: String,
    /// What it took.
    pub stats: Stats,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model chose a token that ends the text.
    EndToken,
    /// A stop string was complete.
    StopString,
    /// As many tokens as were asked for.
    Length,
    /// The context holds no further token.
    ContextFull,
    /// [`Engine::cancel`](crate::Engine::cancel) was called.
    Cancelled,
}

impl FinishReason {
    /// A name for programs: `end_token`, `stop_string`, `length`, `context_full`, `cancelled`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EndToken => "end_token",
            Self::StopString => "stop_string",
            Self::Length => "length",
            Self::ContextFull => "context_full",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a generation took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Tokens that had to be read before the first one could be chosen.
    pub prompt_tokens: usize,
    /// Tokens before those whose results were known from earlier prompts.
    pub reused_tokens: usize,
    /// Tokens of the prompt that were not read because an earlier prompt had them elsewhere
    /// ([`EngineOptions::reuse_pages`](crate::EngineOptions::reuse_pages)): if there are any, the text is not the one that
    /// this prompt alone would get.
    pub moved_tokens: usize,
    /// Tokens that were forgotten because the context was full.
    pub shifted_tokens: usize,
    /// Tokens chosen, without the one that ended the text.
    pub generated_tokens: usize,
    /// Tokens evaluated after the prompt: the ones that [`Self::decode`] was spent on.
    pub decoded_tokens: usize,
    /// Time spent in steps that read the prompt.
    pub prefill: Duration,
    /// Time spent in steps that evaluated chosen tokens.
    pub decode: Duration,
    /// From the start until the first token was chosen.
    pub first_token: Option<Duration>,
    /// Bytes of the KV cache in use at the end, all sequences together.
    pub kv_bytes: usize,
    /// The most bytes of the KV cache that were ever in use.
    pub kv_peak_bytes: usize,
    /// What the same positions would take in f16.
    pub kv_f16_bytes: usize,
    /// Pages of the KV cache, all sequences together, that lack planes at the end.
    pub kv_reduced_pages: usize,
    /// Pages of this sequence lost planes when memory was short: the text can't be reproduced.
    pub reduced: bool,
}

impl Stats {
    /// Prompt tokens per second of prefill.
    pub fn prefill_rate(&self) -> f64 {
        rate(self.prompt_tokens, self.prefill)
    }

    /// Tokens per second of decode.
    pub fn decode_rate(&self) -> f64 {
        rate(self.decoded_tokens, self.decode)
    }
}

fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() }
}
