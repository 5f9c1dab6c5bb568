//! Pages that are kept without a sequence: what a prefix tree is made of.

use crate::arena::Arena;
use crate::pages::{PageId, Pages};
use crate::schedule::RAW;
use crate::sequence::{Held, Sequence, Table};
use crate::state::{Checkpoint, StateTable};
use crate::{Error, KvCache, PAGE, SequenceId};

/// A full page of a sequence's past, kept until it is given back to [`KvCache::drop_hold`].
///
/// It holds the forms that queries far behind it see, so that a sequence made of such pages ([`KvCache::attach`]) goes on
/// with the bits of a straight run. Dropping it without giving it back keeps its memory for as long as the cache lives.
#[derive(Debug)]
#[must_use = "its memory is free only when it is given back"]
pub struct PageHold {
    /// By group; none where a sliding window had left the page.
    groups: Vec<Held>,
    /// The states of recurrent layers behind it, if they were copied there.
    state: Option<Checkpoint>,
    index: usize,
}

impl PageHold {
    /// Which page of the sequence it was.
    pub fn index(&self) -> usize {
        self.index
    }

    /// By group.
    pub(crate) fn groups(&self) -> &[Held] {
        &self.groups
    }
}

impl KvCache {
    /// Keeps page `index` of a sequence, whose positions must all be committed.
    ///
    /// # Errors
    /// [`Error::NotReserved`] if they are not; [`Error::Shifted`]; [`Error::Reduced`]; [`Error::UnknownSequence`].
    pub fn hold(&mut self, id: SequenceId, index: usize) -> Result<PageHold, Error> {
        let sequence = self.sequence(id)?;
        sequence.straight()?;
        let len = sequence.len;
        if index >= len / PAGE {
            return Err(Error::NotReserved { position: index.saturating_mul(PAGE), len });
        }
        let held: Vec<Held> = sequence.tables.iter().map(|table| table.held[index]).collect();
        let mut groups = Vec::with_capacity(held.len());
        for ((held, pages), group) in held.into_iter().zip(&mut self.pages).zip(&self.layout.groups) {
            let forms = held.page.map_or(0, |page| {
                // As written it is needed only until it is sealed.
                let sealed =
                    crate::pages::each(held.forms).any(|form| form != RAW && pages.is_full(page, form));
                let forms = if sealed && group.schedule.tiers.first() == Some(&0) { !(1 << RAW) } else { !0 };
                held.forms & forms
            });
            if let Some(page) = held.page {
                pages.share(page, forms);
            }
            groups.push(Held { page: held.page, forms });
        }
        let end = (index + 1) * PAGE;
        let state = self.sequence(id)?.state.checkpoints.iter().find(|copy| copy.position == end).copied();
        if let Some((states, copy)) = self.states.as_mut().zip(state) {
            states.share(copy.block);
        }
        Ok(PageHold { groups, state, index })
    }

    /// Whether [`KvCache::complete`] might add something.
    pub(crate) fn is_incomplete(&self, page: &PageHold) -> bool {
        self.states.is_some() && page.state.is_none()
            || page.groups.iter().zip(&self.layout.groups).any(|(held, group)| {
                held.page.is_none() || group.schedule.tiers.first() == Some(&0) && held.forms >> RAW & 1 == 1
            })
    }

    /// Completes what is kept of a page by what is kept of the same page elsewhere: groups that a sliding window had left
    /// there, and sealed forms in place of what was written. Returns the rest, to be given back.
    pub(crate) fn complete(&self, page: &mut PageHold, mut other: PageHold) -> PageHold {
        if page.state.is_none() {
            std::mem::swap(&mut page.state, &mut other.state);
        }
        let groups = page.groups.iter_mut().zip(&mut other.groups).zip(&self.layout.groups);
        for ((kept, other), group) in groups {
            let written = |held: &Held| held.forms >> RAW & 1 == 1;
            let sealed = group.schedule.tiers.first() == Some(&0) && written(kept) && !written(other);
            if other.page.is_some() && (kept.page.is_none() || sealed) {
                std::mem::swap(kept, other);
            }
        }
        other
    }

    /// Gives a page back; its memory is free if nobody else holds it.
    pub fn drop_hold(&mut self, hold: PageHold) {
        for (held, pages) in hold.groups.iter().zip(&mut self.pages) {
            give_back(held, pages, &mut self.arena);
        }
        if let Some((states, copy)) = self.states.as_mut().zip(hold.state) {
            states.release(&mut self.arena, copy.block);
        }
    }

    /// Bytes that giving a page back would free now.
    pub fn hold_bytes(&self, hold: &PageHold) -> usize {
        let of = |((held, pages), group): ((&Held, &Pages), &crate::layout::Group)| -> usize {
            let alone = |page: PageId, form: usize| pages.holders_of(page, form) == 1;
            let forms = crate::pages::each(held.forms);
            let page = held.page;
            forms
                .filter(|&form| page.is_some_and(|page| alone(page, form)))
                .map(|form| group.forms[form].bytes)
                .sum()
        };
        hold.groups.iter().zip(&self.pages).zip(&self.layout.groups).map(of).sum()
    }

    /// A new sequence whose past is these pages, and how many positions of it could be reached: all, unless a window,
    /// tiers or sliding layers ask for forms that were not held.
    ///
    /// # Errors
    /// [`Error::PageOrder`] unless the pages are number 0, 1, 2, ...
    pub fn attach<'h>(
        &mut self,
        holds: impl IntoIterator<Item = &'h PageHold>,
    ) -> Result<(SequenceId, usize), Error> {
        let mut tables = vec![Table::default(); self.pages.len()];
        let mut state = StateTable::default();
        let mut count = 0;
        let mut order = Ok(());
        for hold in holds {
            if hold.index != count || hold.groups.len() != tables.len() {
                order = Err(Error::PageOrder { expected: count, got: hold.index });
                break;
            }
            for ((table, held), pages) in tables.iter_mut().zip(&hold.groups).zip(&mut self.pages) {
                if let Some(page) = held.page {
                    pages.share(page, held.forms);
                }
                table.held.push(*held);
            }
            if let Some((states, copy)) = self.states.as_mut().zip(hold.state) {
                states.share(copy.block);
                state.checkpoints.push(copy);
            }
            count += 1;
        }
        let id = self.insert(Sequence { len: count * PAGE, tables, state, ..Sequence::default() });
        if let Err(error) = order {
            self.release(id)?;
            return Err(error);
        }
        let reached = self.rewind(id, count * PAGE)?;
        Ok((id, reached))
    }
}

fn give_back(held: &Held, pages: &mut Pages, arena: &mut Arena) {
    if let Some(page) = held.page {
        pages.release(arena, page, held.forms);
    }
}
