//! What a forward pass is asked to do.

use quant_kvcache::SequenceId;

/// Which rows of a span get logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogitsWanted {
    /// None: a part of a prompt that is not the last.
    None,
    /// The last token's.
    #[default]
    Last,
    /// Every token's.
    All,
}

/// Consecutive tokens of one sequence, appended to what it remembers.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    /// The sequence.
    pub sequence: SequenceId,
    /// Its next tokens.
    pub tokens: &'a [u32],
    /// Which of them get logits.
    pub logits: LogitsWanted,
}
