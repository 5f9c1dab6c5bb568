//! Context shift: whole pages in the middle of a sequence are forgotten, and what follows moves up, without touching a
//! stored number.
//!
//! A rotary embedding makes scores depend on differences of angles alone. So keys keep the angles they were written with,
//! and queries are turned to fit: with `offset` the positions that were forgotten before a page, its keys were turned for
//! `position + offset`, and a query at position `t` meets them turned for `t + offset`. New rows take the offset of the
//! page they go to, so that a sequence has as many offsets as it was shifted, and its first pages offset 0:
//!
//! ```text
//! pages before   0 1 2 3 4 5       offset 0
//! shift 1..3     0     3 4 5       page 0: offset 0; pages 1, 2, 3 (once 3, 4, 5): offset 256
//! ```
//!
//! A run of pages that another sequence left can be put behind a sequence in the same way ([`KvCache::reuse`]): there the
//! offset is the distance from where they were written.
//!
//! What the layers above made of the forgotten positions stays in the values that are kept: the sequence is not that of a
//! straight run, and its pages serve no other sequence.

use crate::sequence::Sequence;
use crate::{Error, KvCache, PAGE, SequenceId};
use std::ops::Range;

/// Pages from here on were written for positions that many further on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The first page.
    pub first_page: usize,
    /// Positions that were forgotten before it; negative for pages taken from before here.
    pub offset: isize,
}

/// What must be added to a position in a page for the angles of its keys, and of queries that meet them.
pub fn offset_of(turns: &[Turn], page: usize) -> isize {
    let next = turns.partition_point(|turn| turn.first_page <= page);
    next.checked_sub(1).and_then(|at| turns.get(at)).map_or(0, |turn| turn.offset)
}

impl KvCache {
    /// The offsets of a sequence's pages, ascending from page 0 on; empty for one that was never shifted.
    ///
    /// # Errors
    /// [`Error::UnknownSequence`].
    pub fn turns(&self, id: SequenceId) -> Result<&[Turn], Error> {
        Ok(&self.sequence(id)?.turns)
    }

    /// Forgets some full pages; what follows moves up. Their memory is free if nobody else holds it.
    ///
    /// # Errors
    /// [`Error::Shift`] if the pages are not all full, or if the policy or a sliding window asks for forms of the others
    /// that are gone: nothing has happened then. [`Error::UnknownSequence`].
    pub fn shift(&mut self, id: SequenceId, forget: Range<usize>) -> Result<(), Error> {
        let Self { slots, layout, arena, pages, states, .. } = self;
        let sequence = crate::cache::sequence_mut(slots, id)?;
        let bad = |problem| Error::Shift { first: forget.start, end: forget.end, problem };
        if forget.is_empty() || forget.end > sequence.len / PAGE {
            return Err(bad("they are not full pages of the sequence"));
        }
        if states.is_some() {
            return Err(bad("recurrent layers can't forget a part of the text"));
        }
        let len = sequence.len - forget.len() * PAGE;
        let reaches = sequence
            .tables
            .iter()
            .zip(&layout.groups)
            .all(|(table, group)| table.reaches_without(&group.schedule, len, &forget));
        if !reaches {
            return Err(bad("pages that stay would be seen as they were stored before"));
        }
        for ((table, group), pages) in sequence.tables.iter_mut().zip(&layout.groups).zip(pages) {
            table.forget(pages, arena, forget.clone());
            table.cut(&group.schedule, pages, arena, len);
        }
        sequence.len = len;
        sequence.turns = turned(&sequence.turns, &forget);
        Ok(())
    }
}

impl Sequence {
    /// Fails for a sequence whose pages are only its own.
    pub(crate) fn straight(&self) -> Result<(), Error> {
        match (self.reduced, self.turns.is_empty()) {
            (true, _) => Err(Error::Reduced),
            (_, false) => Err(Error::Shifted),
            _ => Ok(()),
        }
    }

    /// Once positions were taken back: what lies before the first turn, or nothing, is that of a straight run.
    pub(crate) fn straighten(&mut self) {
        // That of the page to come was there at this length, too.
        let page = self.len / PAGE;
        self.turns.retain(|turn| turn.first_page <= page);
        if matches!(self.turns[..], [Turn { first_page: 0, offset: 0 }]) {
            self.turns.clear();
        }
        self.reduced &= self.len > 0;
    }
}

/// The turns once some pages are gone.
fn turned(turns: &[Turn], forget: &Range<usize>) -> Vec<Turn> {
    let moved = |offset: isize| offset + (forget.len() * PAGE) as isize;
    let start = Turn { first_page: 0, offset: offset_of(turns, 0) };
    let before = std::iter::once(start).chain(turns.iter().copied().filter(|turn| turn.first_page > 0));
    let mut out: Vec<Turn> = before.filter(|turn| turn.first_page < forget.start).collect();
    out.push(Turn { first_page: forget.start, offset: moved(offset_of(turns, forget.end)) });
    let after = turns.iter().filter(|turn| turn.first_page > forget.end);
    out.extend(
        after.map(|turn| Turn { first_page: turn.first_page - forget.len(), offset: moved(turn.offset) }),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::{PAGE, Turn, offset_of, turned};
    use proptest::prelude::*;

    proptest! {
        /// Against a list of where each page once was.
        #[test]
        fn offsets_are_where_pages_were(shifts in prop::collection::vec((0..20usize, 1..5usize), 0..6)) {
            let mut pages: Vec<usize> = (0..60).collect();
            let mut turns: Vec<Turn> = Vec::new();
            for (start, count) in shifts {
                let forget = start..start + count;
                pages.drain(forget.clone());
                turns = turned(&turns, &forget);
                prop_assert!(turns.is_sorted_by(|a, b| a.first_page < b.first_page));
                prop_assert_eq!(turns.first().map(|turn| turn.first_page), Some(0));
                for (page, was) in pages.iter().enumerate() {
                    prop_assert_eq!(offset_of(&turns, page), ((was - page) * PAGE) as isize);
                }
            }
        }
    }
}
