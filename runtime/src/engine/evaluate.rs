//! Logits without sampling: for perplexity, parity checks and scores.

use super::{Engine, SessionId};
use crate::Error;
use quant_models::{LogitsWanted, Span};
use std::ops::ControlFlow;

impl Engine {
    /// Appends tokens to a session and evaluates all that is pending, in chunks; `visit` sees each row of logits
    /// that is wanted with its position, and may end the evaluation. [`LogitsWanted::Last`] is the last row of all.
    ///
    /// # Errors
    /// As [`Engine::append`], and what goes wrong while computing: then tokens evaluated so far stay, the others are
    /// pending.
    pub fn evaluate(
        &mut self,
        id: SessionId,
        tokens: &[u32],
        wanted: LogitsWanted,
        visit: &mut dyn FnMut(usize, &[f32]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.append(id, tokens)?;
        let vocabulary = self.backend.vocabulary();
        let session = self.sessions.get_mut(&id).ok_or(Error::UnknownSession)?;
        while session.done < session.tokens.len() {
            let count = session.pending().len().min(self.chunk);
            let last = count == session.pending().len();
            let logits = if wanted == LogitsWanted::Last && !last { LogitsWanted::None } else { wanted };
            let tokens = session.pending().get(..count).unwrap_or_default();
            let span = Span { sequence: session.sequence, tokens, logits };
            self.backend.forward(&mut self.cache, &[span], &mut self.logits)?;
            session.done += count;
            let rows = self.logits.len() / vocabulary.max(1);
            for (position, row) in (session.done - rows..).zip(self.logits.chunks_exact(vocabulary.max(1))) {
                if visit(position, row).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
