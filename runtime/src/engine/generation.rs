//! One generation as an iterator.

use super::{Engine, Event, Finish, SessionId};
use crate::Error;
use std::collections::VecDeque;

/// A generation that runs as it is iterated. Dropping it cancels it; one that opened its own session
/// ([`Engine::generate`]) frees that session's pages at once.
#[derive(Debug)]
pub struct Generation<'e> {
    engine: &'e mut Engine,
    session: SessionId,
    /// Close the session with the generation.
    owned: bool,
    ready: VecDeque<Result<Event, Error>>,
    ended: bool,
}

impl<'e> Generation<'e> {
    pub(super) fn new(engine: &'e mut Engine, session: SessionId, owned: bool) -> Self {
        Self { engine, session, owned, ready: VecDeque::new(), ended: false }
    }

    /// The session it runs on.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Ends it now: how far it came. `None` if it has ended by itself.
    pub fn cancel(self) -> Option<Finish> {
        self.engine.cancel(self.session)
    }

    /// Runs to the end: the whole text, and how it ended.
    ///
    /// # Errors
    /// The error that ended the generation.
    pub fn text(self) -> Result<(String, Finish), Error> {
        let mut all = String::new();
        for event in self {
            match event? {
                Event::Prefill { .. } => {}
                Event::Token { text, .. } => all.push_str(&text),
                Event::Finished(finish) => {
                    all.push_str(&finish.text);
                    return Ok((all, finish));
                }
            }
        }
        Err(Error::UnknownSession)
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.ended {
            let mut reports = Vec::new();
            self.engine.advance_all(&mut reports);
            // No report at all: the generation is not there any more.
            self.ended = reports.is_empty();
            for (id, report) in reports {
                if id == self.session {
                    self.ended |= matches!(report, Err(_) | Ok(Event::Finished(_)));
                    self.ready.push_back(report);
                } else {
                    self.engine.hold(id, report);
                }
            }
        }
        self.ready.pop_front()
    }
}

impl Drop for Generation<'_> {
    fn drop(&mut self) {
        self.engine.cancel(self.session);
        if self.owned {
            self.engine.close(self.session);
        }
    }
}
