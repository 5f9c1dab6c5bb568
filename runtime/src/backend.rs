//! What the engine asks of a model, apart from how it is computed: tests put a simulated one here.

use crate::Error;
use crate::sample::Pieces;
use quant_gguf::Gguf;
use quant_kernels::Isa;
use quant_kvcache::KvCache;
use quant_models::Span;
use quant_tokenizer::DecoderState;

/// A model and its vocabulary.
pub(crate) trait Backend: Pieces + Send {
    /// Tokens there are: values in a row of logits.
    fn vocabulary(&self) -> usize;

    /// The model's file, if it is from one.
    fn file(&self) -> Option<&Gguf>;

    /// The tier that scans rows of logits.
    fn isa(&self) -> Isa;

    /// Tokens that end a text.
    fn stop_tokens(&self) -> &[u32];

    /// Begins to decode what follows these tokens.
    fn decoder(&self, prompt: &[u32]) -> DecoderState;

    /// The text that is certain after one more token.
    fn decode(&self, state: &mut DecoderState, token: u32) -> String;

    /// Evaluates all spans and, if all went well, commits them. `logits` gets the rows asked for, span after span.
    fn forward(
        &mut self,
        cache: &mut KvCache,
        spans: &[Span<'_>],
        logits: &mut Vec<f32>,
    ) -> Result<(), Error>;
}
