//! One step of the engine: a batch of spans, evaluated at once, and what comes of it.

use super::{Engine, Event, FinishReason, SessionId};
use crate::Error;
use quant_kvcache::PAGE;
use quant_models::{LogitsWanted, Span};
use std::time::Instant;

/// What a session does in a step.
#[derive(Debug, Clone, Copy)]
struct Planned {
    id: SessionId,
    count: usize,
    rows: LogitsWanted,
}

/// An event of a session, or the error that ended its generation.
pub type Report = (SessionId, Result<Event, Error>);

impl Engine {
    /// Advances every running generation: each one that reads its prompt by what the step's prefill budget has
    /// left, in order of their starts, and each one that writes by one token. Returns what happened; nothing if no
    /// generation runs.
    ///
    /// An error ends the one generation that it is reported for; the session stays open. When the KV budget is
    /// full, sessions wait while others can go on; when none can, the one that started last gets the error.
    pub fn step(&mut self) -> Vec<Report> {
        let mut reports = std::mem::take(&mut self.held);
        self.advance_all(&mut reports);
        reports
    }

    /// Appends what happens now.
    pub(super) fn advance_all(&mut self, reports: &mut Vec<Report>) {
        let (planned, stalled) = self.plan();
        if planned.is_empty() {
            if let Some((id, error)) = stalled {
                self.fail(id, error, reports);
            }
            return;
        }
        let started = Instant::now();
        if self.forward(&planned).is_ok() {
            let mut rows = std::mem::take(&mut self.logits);
            let mut rest = rows.as_mut_slice();
            for part in &planned {
                let width = if part.rows == LogitsWanted::Last { self.backend.vocabulary() } else { 0 };
                let (row, after) = rest.split_at_mut(width.min(rest.len()));
                rest = after;
                self.advance(*part, row, started, reports);
            }
            self.logits = rows;
        } else {
            // One of them fails: alone, each shows whether it is the one.
            for part in planned {
                let started = Instant::now();
                match self.forward(&[part]) {
                    Ok(()) => {
                        let mut row = std::mem::take(&mut self.logits);
                        self.advance(part, &mut row, started, reports);
                        self.logits = row;
                    }
                    Err(error) => self.fail(part.id, error, reports),
                }
            }
        }
    }

    /// Chooses the spans and reserves their pages; also the last session that found no page, with the error.
    fn plan(&mut self) -> (Vec<Planned>, Option<(SessionId, Error)>) {
        let mut running: Vec<(u64, SessionId)> =
            self.sessions.iter().filter_map(|(id, s)| Some((s.job.as_ref()?.order, *id))).collect();
        running.sort_unstable();
        let (mut planned, mut stalled, mut budget) = (Vec::new(), None, self.chunk);
        for (_, id) in running {
            self.move_pages(id);
            let Some(session) = self.sessions.get(&id) else { continue };
            let pending = session.pending().len();
            let prefills = session.job.as_ref().is_some_and(super::session::Job::prefills);
            let count = if prefills { self.before_known(session, pending.min(budget)) } else { pending };
            if count == 0 {
                continue;
            }
            if let Err(error) = self.cache.reserve(session.sequence, count) {
                stalled = Some((id, error.into()));
                continue;
            }
            if prefills {
                budget -= count;
            }
            planned.push(Planned {
                id,
                count,
                rows: if count == pending { LogitsWanted::Last } else { LogitsWanted::None },
            });
        }
        (planned, stalled)
    }

    /// Evaluates the spans; on success their sessions remember them, on error nothing has happened.
    fn forward(&mut self, planned: &[Planned]) -> Result<(), Error> {
        let mut spans = Vec::with_capacity(planned.len());
        for part in planned {
            let session = self.sessions.get(&part.id).ok_or(Error::UnknownSession)?;
            let tokens = session.pending().get(..part.count).unwrap_or_default();
            spans.push(Span { sequence: session.sequence, tokens, logits: part.rows });
        }
        self.logits.clear();
        let result = self.backend.forward(&mut self.cache, &spans, &mut self.logits);
        if let Err(error) = result {
            for part in planned {
                if let Some(session) = self.sessions.get_mut(&part.id) {
                    // A layer that can't go back just as far has gone back further.
                    session.done = self.cache.len(session.sequence).unwrap_or(0).min(session.done);
                }
            }
            return Err(error);
        }
        for part in planned {
            if let Some(session) = self.sessions.get_mut(&part.id) {
                let before = session.done;
                session.done += part.count;
                if session.done / PAGE > before / PAGE {
                    self.remember(part.id);
                }
            }
        }
        Ok(())
    }

    /// After its span was evaluated: the session reports progress, or chooses its next token.
    fn advance(&mut self, part: Planned, row: &mut [f32], started: Instant, reports: &mut Vec<Report>) {
        let id = part.id;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(job) = &mut session.job else { return };
        job.spent(started.elapsed(), part.count);
        if job.prefills() {
            let total = job.stats.prompt_tokens;
            let done = total.saturating_sub(session.tokens.len() - session.done);
            reports.push((id, Ok(Event::Prefill { done, total })));
        }
        if part.rows != LogitsWanted::Last {
            return;
        }
        let report = &mut |event| reports.push((id, Ok(event)));
        let chosen = job.choose(&*self.backend, &mut session.tokens, self.context, row, report);
        match chosen {
            Ok(None) => {}
            Ok(Some(reason)) => {
                if reason == FinishReason::ContextFull && self.make_room(id) {
                    return;
                }
                let kv = self.cache.stats();
                let reduced = self.is_reduced(id).unwrap_or(false);
                let job = self.sessions.get_mut(&id).and_then(|session| session.job.take());
                let ended = job.map(|job| job.finish(reason, &kv, reduced));
                reports.extend(ended.map(|finish| (id, Ok(Event::Finished(finish)))));
            }
            Err(error) => self.fail(id, error, reports),
        }
    }

    /// Forgets half of a session whose generation allows it; `false` if there is nothing to forget.
    fn make_room(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let Some(job) = &mut session.job else { return false };
        let Some(keep) = job.context_shift.map(|keep| keep.div_ceil(PAGE)) else { return false };
        // The page that is being written is not full.
        let full = session.done / PAGE;
        let forget = keep..keep + full.saturating_sub(keep).div_ceil(2);
        if self.cache.shift(session.sequence, forget.clone()).is_err() {
            return false;
        }
        let forgotten = forget.start * PAGE..forget.end * PAGE;
        job.stats.shifted_tokens += forgotten.len();
        session.done -= forgotten.len();
        session.tokens.drain(forgotten);
        self.raise();
        true
    }

    fn fail(&mut self, id: SessionId, error: Error, reports: &mut Vec<Report>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.job = None;
        }
        reports.push((id, Err(error)));
    }
}
