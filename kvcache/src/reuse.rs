//! Remembered pages at other positions: a text that stood elsewhere in another sequence need not be computed again.
//!
//! Keys keep the angles of the positions they were written for, and queries are turned to fit, as after a shift
//! (`shift.rs`); nothing is quantized again. The first layer then computes what it would for the text at its new place.
//! What the layers above made of the text before it, in the other sequence, stays in the pages: close to the text read
//! anew where that mattered little, but not the same, so the sequence's pages serve no other one.

use crate::prefix_tree::NodeId;
use crate::shift::Turn;
use crate::{Error, KvCache, PAGE, SequenceId, offset_of};

impl KvCache {
    /// Puts remembered pages of the text that `tokens` begin with behind a sequence, wherever they were. Returns how many
    /// positions that are: none if the sequence does not end at a page boundary, if no page is known that was made of the
    /// next 128 tokens, or if the policy or a sliding window asks for forms that were not kept.
    ///
    /// # Errors
    /// [`Error::UnknownSequence`].
    pub fn reuse(&mut self, id: SequenceId, tokens: &[u32]) -> Result<usize, Error> {
        let len = self.len(id)?;
        if !len.is_multiple_of(PAGE) || self.states.is_some() {
            return Ok(0);
        }
        let mut prefixes = std::mem::take(&mut self.prefixes);
        let run = prefixes.run(tokens);
        let result = self.take_run(id, len, &run, &prefixes);
        self.prefixes = prefixes;
        result
    }

    /// Whether [`KvCache::reuse`] knows a page that was made of the first 128 of these tokens.
    pub fn knows(&self, tokens: &[u32]) -> bool {
        self.states.is_none() && self.prefixes.knows(tokens)
    }

    fn take_run(
        &mut self,
        id: SequenceId,
        len: usize,
        run: &[NodeId],
        prefixes: &crate::prefixes::Prefixes,
    ) -> Result<usize, Error> {
        let Some(was) = run.first().and_then(|&first| prefixes.page(first)).map(crate::PageHold::index)
        else {
            return Ok(0);
        };
        // What is reserved past the end makes way.
        if self.rewind(id, len)? != len {
            return Ok(0);
        }
        let here = len / PAGE;
        let Self { slots, layout, pages, arena, .. } = self;
        let sequence = crate::cache::sequence_mut(slots, id)?;
        let holds = run.iter().filter_map(|&node| prefixes.page(node));
        for hold in holds {
            for ((table, held), pages) in sequence.tables.iter_mut().zip(hold.groups()).zip(&mut *pages) {
                if let Some(page) = held.page {
                    pages.share(page, held.forms);
                }
                table.held.push(*held);
            }
        }
        let mut end = here + run.len();
        let reaches = |len: usize| {
            let mut tables = sequence.tables.iter().zip(&layout.groups);
            tables.all(|(table, group)| table.reaches(&group.schedule, len))
        };
        while end > here && !reaches(end * PAGE) {
            end -= 1;
        }
        sequence.len = end * PAGE;
        for ((table, group), pages) in sequence.tables.iter_mut().zip(&layout.groups).zip(pages) {
            table.cut(&group.schedule, pages, arena, end * PAGE);
        }
        if end > here {
            let before = offset_of(&sequence.turns, here);
            let start = Turn { first_page: 0, offset: 0 };
            if sequence.turns.is_empty() {
                sequence.turns.push(start);
            }
            sequence.turns.retain(|turn| turn.first_page < here);
            let offset = (was * PAGE) as isize - len as isize;
            sequence.turns.push(Turn { first_page: here, offset });
            sequence.turns.push(Turn { first_page: end, offset: before });
        }
        Ok((end - here) * PAGE)
    }
}
