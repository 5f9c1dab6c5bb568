//! The engine: any number of sequences of one model, advanced together.

mod evaluate;
mod event;
mod fit;
mod generation;
mod options;
mod session;
#[cfg(test)]
mod simulation;
mod snapshot;
mod step;

pub use event::{Event, Finish, FinishReason, Stats};
pub use fit::KvFit;
pub use generation::Generation;
pub use options::EngineOptions;
pub use session::{GenerateOptions, SessionId};
pub use snapshot::Binding;
pub use step::Report;

use crate::backend::Backend;
use crate::model::ModelBackend;
use crate::{Error, Model};
use quant_kernels::Kernels;
use quant_kernels::parallel::Team;
use quant_kvcache::{KvCache, PAGE};
use quant_models::Context;
use session::{Job, Session};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Runs generations on one model: a state machine that [`Engine::step`] advances.
///
/// Everything is synchronous, and the tokens of a generation depend on its prompt, its options and the model alone:
/// not on threads, on chunks, or on what else runs. Two options give that up: planes dropped when memory is short
/// ([`Policy::drop`](crate::Policy::drop)), and [`EngineOptions::reuse_pages`].
pub struct Engine {
    backend: Box<dyn Backend>,
    cache: KvCache,
    /// Positions of a sequence at the most.
    context: usize,
    /// Prompt tokens read in a step at the most.
    chunk: usize,
    threads: usize,
    /// Keep what prompts have in common for later ones.
    prefix_cache: bool,
    /// Take pages of earlier prompts at other positions.
    reuse_pages: bool,
    sessions: BTreeMap<SessionId, Session>,
    next_session: u64,
    next_order: u64,
    logits: Vec<f32>,
    /// Reports for sessions that another one's [`Generation`] came upon.
    held: Vec<Report>,
}

impl Engine {
    /// An engine for a model.
    ///
    /// # Errors
    /// [`Error::ContextBudget`] if the KV budget does not hold the context asked for, [`Error::Kernels`] if the
    /// system refuses a thread.
    pub fn new(model: &Arc<Model>, options: &EngineOptions) -> Result<Self, Error> {
        let plan = options.plan(model)?;
        let team = Arc::new(Team::new(plan.threads)?);
        let kernels = Arc::new(Kernels::new(options.isa));
        let cache =
            KvCache::new(model.decoder().kv_layers(&options.kv, &kernels)?, &options.kv, plan.budget)?;
        let cache = options.with_spill(cache)?;
        let context = Context::new(kernels, team, options.activations);
        let backend = Box::new(ModelBackend::new(Arc::clone(model), context));
        let engine = Self::with_backend(backend, cache, plan.context, options.chunk);
        let EngineOptions { prefix_cache, reuse_pages, .. } = *options;
        let prefix_cache = prefix_cache || reuse_pages;
        Ok(Self { threads: plan.threads, prefix_cache, reuse_pages, ..engine })
    }

    fn with_backend(backend: Box<dyn Backend>, cache: KvCache, context: usize, chunk: usize) -> Self {
        Self {
            backend,
            cache,
            context,
            chunk: chunk.max(1),
            threads: 1,
            prefix_cache: false,
            reuse_pages: false,
            sessions: BTreeMap::new(),
            next_session: 0,
            next_order: 0,
            logits: Vec::new(),
            held: Vec::new(),
        }
    }

    /// Tokens that a sequence can have.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Memory of the KV cache.
    pub fn memory(&self) -> quant_kvcache::Stats {
        self.cache.stats()
    }

    /// A new, empty session. It takes no memory of the KV cache until tokens are evaluated.
    pub fn open(&mut self) -> SessionId {
        let sequence = self.cache.create();
        self.insert(Session { sequence, tokens: Vec::new(), done: 0, job: None })
    }

    /// A session with the same past, sharing its memory. A running generation is not part of it.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub fn fork(&mut self, id: SessionId) -> Result<SessionId, Error> {
        let parent = self.sessions.get(&id).ok_or(Error::UnknownSession)?;
        let (tokens, done) = (parent.tokens.clone(), parent.done);
        let sequence = self.cache.fork(parent.sequence)?;
        Ok(self.insert(Session { sequence, tokens, done, job: None }))
    }

    /// Forgets a session: its generation ends and its memory is free at once. Does nothing for one that is closed.
    pub fn close(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            // The session was open, so the cache knows its sequence.
            let _ = self.cache.release(session.sequence);
            self.raise();
        }
        self.held.retain(|(held, _)| *held != id);
    }

    /// All tokens of a session, the chosen ones too.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub fn tokens(&self, id: SessionId) -> Result<&[u32], Error> {
        Ok(&self.sessions.get(&id).ok_or(Error::UnknownSession)?.tokens)
    }

    /// Appends tokens to a session. They are evaluated when a generation starts.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`] if the context does not hold them (nothing is cut), [`Error::Token`] for one that
    /// the vocabulary does not have, [`Error::Busy`], [`Error::UnknownSession`].
    pub fn append(&mut self, id: SessionId, tokens: &[u32]) -> Result<(), Error> {
        let vocabulary = self.backend.vocabulary();
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::Token { token, vocabulary });
        }
        let context = self.context;
        let session = self.idle(id)?;
        let all = session.tokens.len().saturating_add(tokens.len());
        if all > context {
            return Err(Error::PromptTooLong { tokens: all, context });
        }
        session.tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// Forgets all tokens of a session from the `len`th on.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::UnknownSession`].
    pub fn rewind(&mut self, id: SessionId, len: usize) -> Result<(), Error> {
        let session = self.idle(id)?;
        let (sequence, keep) = (session.sequence, len.min(session.done));
        session.tokens.truncate(len);
        let reached = self.cache.rewind(sequence, keep)?;
        self.idle(id)?.done = reached;
        self.raise();
        Ok(())
    }

    /// Starts to continue a session's text; [`Engine::step`] advances it.
    ///
    /// # Errors
    /// [`Error::Sampler`], [`Error::EmptyPrompt`], [`Error::PromptTooLong`] if the context has no room for a
    /// further token, [`Error::Busy`], [`Error::UnknownSession`].
    pub fn start(&mut self, id: SessionId, options: &GenerateOptions) -> Result<(), Error> {
        let context = self.context;
        let session = self.idle(id)?;
        let tokens = session.tokens.len();
        if tokens == 0 {
            return Err(Error::EmptyPrompt);
        }
        if tokens >= context {
            return Err(Error::PromptTooLong { tokens: tokens + 1, context });
        }
        if session.done == tokens {
            // The logits after the last token are wanted, so that one is evaluated again.
            let sequence = session.sequence;
            let reached = self.cache.rewind(sequence, tokens - 1)?;
            self.idle(id)?.done = reached;
        }
        let reused = self.reuse(id)?;
        let session = self.sessions.get(&id).ok_or(Error::UnknownSession)?;
        let decoder = self.backend.decoder(&session.tokens);
        let mut job = Job::new(options, decoder, session.pending().len(), self.next_order)?;
        job.stats.reused_tokens = reused;
        self.next_order += 1;
        self.idle(id)?.job = Some(job);
        Ok(())
    }

    /// Gives a session of which nothing was evaluated the longest past that is known of its tokens; the last one is left
    /// to be evaluated. Returns how many tokens that spares.
    fn reuse(&mut self, id: SessionId) -> Result<usize, Error> {
        let session = self.sessions.get_mut(&id).ok_or(Error::UnknownSession)?;
        let Some((_, before)) =
            session.tokens.split_last().filter(|_| self.prefix_cache && session.done == 0)
        else {
            return Ok(0);
        };
        let (sequence, reached) = self.cache.resume(before)?;
        let fresh = std::mem::replace(&mut session.sequence, sequence);
        session.done = reached;
        self.cache.release(fresh)?;
        Ok(reached)
    }

    /// Puts pages of earlier prompts behind a session that reads its prompt, if it stands at the beginning of a page and
    /// they are made of the tokens that follow.
    fn move_pages(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id).filter(|_| self.reuse_pages) else { return };
        let (Some(job), Some((_, before))) =
            (session.job.as_mut(), session.tokens.get(session.done..).and_then(<[u32]>::split_last))
        else {
            return;
        };
        if job.prefills() {
            // The cache knows an open session's sequence.
            let moved = self.cache.reuse(session.sequence, before).unwrap_or(0);
            session.done += moved;
            job.stats.moved_tokens += moved;
            job.stats.prompt_tokens -= moved;
        }
    }

    /// How many of a session's next tokens, `count` at the most, come before a page that may be taken from elsewhere.
    fn before_known(&self, session: &Session, count: usize) -> usize {
        let ends = (session.done / PAGE + 1..).map(|page| page * PAGE - session.done);
        let known = |end: &usize| session.pending().get(*end..).is_some_and(|rest| self.cache.knows(rest));
        let stop = self.reuse_pages.then(|| ends.take_while(|end| *end < count).find(known));
        stop.flatten().unwrap_or(count)
    }

    /// Keeps the pages of a session for others that begin alike.
    fn remember(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get(&id).filter(|_| self.prefix_cache) {
            let tokens = session.tokens.get(..session.done).unwrap_or_default();
            // The cache knows an open session's sequence; one that was shifted it refuses, and there is nothing to keep.
            let _ = self.cache.remember(session.sequence, tokens);
        }
    }

    /// Forgets what is kept of earlier prompts, see [`EngineOptions::prefix_cache`].
    pub fn forget_prefixes(&mut self) {
        self.cache.forget();
        self.raise();
    }

    /// Ends a session's generation. The session stays open, with the tokens chosen so far. `None` if none runs.
    pub fn cancel(&mut self, id: SessionId) -> Option<Finish> {
        let session = self.sessions.get_mut(&id)?;
        let job = session.job.take()?;
        let reduced = self.cache.is_reduced(session.sequence).unwrap_or(false);
        Some(job.finish(FinishReason::Cancelled, &self.cache.stats(), reduced))
    }

    /// Continues a session's text, as an iterator of events. The session stays open.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn resume(&mut self, id: SessionId, options: &GenerateOptions) -> Result<Generation<'_>, Error> {
        self.start(id, options)?;
        Ok(Generation::new(self, id, false))
    }

    /// Continues a prompt, as an iterator of events. The memory it takes is free when the iterator is dropped.
    ///
    /// # Errors
    /// As [`Engine::append`] and [`Engine::start`].
    pub fn generate(&mut self, prompt: &[u32], options: &GenerateOptions) -> Result<Generation<'_>, Error> {
        let id = self.open();
        let started = self.append(id, prompt).and_then(|()| self.start(id, options));
        if let Err(error) = started {
            self.close(id);
            return Err(error);
        }
        Ok(Generation::new(self, id, true))
    }

    /// Whether pages of a session lost planes when memory was short ([`Policy::drop`](crate::Policy::drop)): what it has
    /// computed since can't be reproduced.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub fn is_reduced(&self, id: SessionId) -> Result<bool, Error> {
        let session = self.sessions.get(&id).ok_or(Error::UnknownSession)?;
        Ok(self.cache.is_reduced(session.sequence)?)
    }

    /// Brings lost planes back where memory was freed, and leaves an eighth of the budget for what comes.
    fn raise(&mut self) {
        if self.cache.policy().drop.is_some() {
            // A store that can't be read leaves pages as they are.
            let _ = self.cache.raise(self.cache.stats().budget_bytes / 8);
        }
    }

    /// Keeps a report for the next [`Engine::step`].
    fn hold(&mut self, id: SessionId, report: Result<Event, Error>) {
        self.held.push((id, report));
    }

    fn insert(&mut self, session: Session) -> SessionId {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        self.sessions.insert(id, session);
        id
    }

    /// A session on which no generation runs.
    fn idle(&mut self, id: SessionId) -> Result<&mut Session, Error> {
        let session = self.sessions.get_mut(&id).ok_or(Error::UnknownSession)?;
        if session.job.is_some() { Err(Error::Busy) } else { Ok(session) }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("context", &self.context)
            .field("chunk", &self.chunk)
            .field("threads", &self.threads)
            .field("sessions", &self.sessions.len())
            .field("memory", &self.cache.stats())
            .finish_non_exhaustive()
    }
}
