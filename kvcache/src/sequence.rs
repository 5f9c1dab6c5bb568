//! A sequence: for each group of layers the table of its pages, and which forms of them it holds.

use crate::arena::Arena;
use crate::pages::{PageId, Pages, each};
use crate::schedule::{Forms, RAW, Schedule};
use crate::shift::Turn;
use crate::state::StateTable;
use crate::{Error, PAGE};
use std::ops::Range;

/// A page of a table; none where a sliding window has left it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub page: Option<PageId>,
    pub forms: Forms,
}

/// A form that some layer is still missing in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unfilled {
    pub form: usize,
    pub page: usize,
}

/// The pages of one group of layers.
#[derive(Debug, Default, Clone)]
pub(crate) struct Table {
    pub held: Vec<Held>,
    /// Up to which page of queries everything they see is reserved.
    reserved: Option<usize>,
    /// What is to be made before the next queries, ascending.
    pub unfilled: Vec<Unfilled>,
}

/// What a sequence remembers.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sequence {
    /// Committed positions.
    pub len: usize,
    /// By group.
    pub tables: Vec<Table>,
    /// Empty unless pages were forgotten or taken from elsewhere.
    pub turns: Vec<Turn>,
    /// Pages lost planes.
    pub reduced: bool,
    /// Of recurrent layers.
    pub state: StateTable,
}

impl From<Vec<Held>> for Table {
    fn from(held: Vec<Held>) -> Self {
        Self { held, ..Self::default() }
    }
}

impl Table {
    /// The forms that a page must get for queries in the pages from `first` to `last`, besides those that it has.
    fn missing(rule: &Schedule, have: Forms, page: usize, first: usize, last: usize) -> Forms {
        let seen = (first.max(page)..=last).rev().find_map(|m| rule.form(m, page));
        seen.map_or(0, |form| rule.steps(have, form))
    }

    /// The page that holds position `len` if others hold it too: it must be copied before it is written.
    fn shared_tail(&self, pages: &Pages, len: usize) -> Option<(usize, PageId)> {
        let index = (!len.is_multiple_of(PAGE)).then_some(len / PAGE)?;
        let page = self.held.get(index)?.page?;
        (pages.holders(page) > 1).then_some((index, page))
    }

    /// Whether nothing is missing for queries up to page `last`.
    pub fn is_reserved(&self, last: usize) -> bool {
        self.reserved == Some(last)
    }

    /// Counts the blocks, by pool, that queries from position `len` to the end of page `last` need.
    pub fn count(&self, rule: &Schedule, pages: &Pages, len: usize, last: usize, wanted: &mut [usize]) {
        let mut want = |form: usize| wanted[pages.pool(form) as usize] += 1;
        if self.shared_tail(pages, len).is_some() {
            want(RAW);
        }
        for page in 0..=last {
            match self.held.get(page) {
                None => {
                    want(RAW);
                    each(Self::missing(rule, 1 << RAW, page, len / PAGE, last)).for_each(&mut want);
                }
                Some(&Held { page: Some(id), forms }) => {
                    each(Self::missing(rule, forms, page, len / PAGE, last))
                        .filter(|&form| pages.block(id, form).is_none())
                        .for_each(&mut want);
                }
                Some(Held { page: None, .. }) => {}
            }
        }
    }

    /// Takes what [`Table::count`] counted.
    pub fn take(
        &mut self,
        rule: &Schedule,
        pages: &mut Pages,
        arena: &mut Arena,
        len: usize,
        last: usize,
    ) -> Result<(), Error> {
        if let Some((index, shared)) = self.shared_tail(pages, len) {
            let own = pages.create();
            let to = pages.hold(arena, own, RAW)?;
            if let Some(from) = pages.block(shared, RAW) {
                arena.copy(from, to);
            }
            pages.release(arena, shared, self.held[index].forms);
            self.held[index] = Held { page: Some(own), forms: 1 << RAW };
        }
        while self.held.len() <= last {
            let page = pages.create();
            self.held.push(Held { page: Some(page), forms: 1 << RAW });
            pages.hold(arena, page, RAW)?;
        }
        self.unfilled.clear();
        for (index, held) in self.held.iter_mut().enumerate() {
            let Some(id) = held.page else { continue };
            for form in each(Self::missing(rule, held.forms, index, len / PAGE, last)) {
                pages.hold(arena, id, form)?;
                held.forms |= 1 << form;
            }
            let open = each(held.forms).filter(|&form| !pages.is_full(id, form));
            self.unfilled.extend(open.map(|form| Unfilled { form, page: index }));
        }
        self.unfilled.sort_unstable();
        self.reserved = Some(last);
        Ok(())
    }

    /// Lets go of the forms that a sequence of `len` positions, or of up to 128 fewer, does not ask for.
    pub fn prune(&mut self, rule: &Schedule, pages: &mut Pages, arena: &mut Arena, len: usize) {
        let m = len / PAGE;
        for (index, held) in self.held.iter_mut().enumerate().take(m) {
            let Some(id) = held.page else { continue };
            let mut keep = held.forms & rule.kept(m, index);
            if let Some(form) = rule.form(m, index)
                && (held.forms >> form & 1 == 0 || !pages.is_full(id, form))
            {
                keep |= held.forms & rule.sources(form);
            }
            if keep == 0 {
                pages.release(arena, id, held.forms);
                held.page = None;
            } else {
                pages.drop_forms(arena, id, held.forms & !keep);
            }
            held.forms = keep;
        }
        let held = &self.held;
        self.unfilled.retain(|open| {
            held.get(open.page).is_some_and(|held| {
                held.forms >> open.form & 1 == 1 && held.page.is_some_and(|id| !pages.is_full(id, open.form))
            })
        });
    }

    /// Whether the sequence could go on from `len` positions with the bits of a straight run.
    pub fn reaches(&self, rule: &Schedule, len: usize) -> bool {
        self.reaches_without(rule, len, &(0..0))
    }

    /// The same if these pages were not there, and those behind them moved up.
    pub fn reaches_without(&self, rule: &Schedule, len: usize, gone: &Range<usize>) -> bool {
        let m = len / PAGE;
        let was = |page: usize| if page < gone.start { page } else { page + gone.len() };
        let forms = |page: usize| self.held.get(was(page)).map_or(0, |held| held.forms);
        let open = len.is_multiple_of(PAGE) || forms(m) >> RAW & 1 == 1;
        open && (rule.first(m)..m)
            .rev()
            .all(|page| rule.form(m, page).is_none_or(|form| forms(page) & rule.sources(form) != 0))
    }

    /// Forgets what lies behind `len` positions, which [`Table::reaches`] said can be reached.
    pub fn cut(&mut self, rule: &Schedule, pages: &mut Pages, arena: &mut Arena, len: usize) {
        for held in self.held.drain(len.div_ceil(PAGE).min(self.held.len())..) {
            if let Some(id) = held.page {
                pages.release(arena, id, held.forms);
            }
        }
        // What the last page was made into is of other positions.
        if let Some(held) = self.held.get_mut(len / PAGE)
            && let Some(id) = held.page
        {
            pages.drop_forms(arena, id, held.forms & !(1 << RAW));
            held.forms &= 1 << RAW;
        }
        self.prune(rule, pages, arena, len);
        self.reserved = None;
    }

    /// Lets go of some pages; those behind them move up.
    pub fn forget(&mut self, pages: &mut Pages, arena: &mut Arena, gone: Range<usize>) {
        for held in self.held.drain(gone) {
            if let Some(id) = held.page {
                pages.release(arena, id, held.forms);
            }
        }
    }

    /// A table of the same committed pages.
    pub fn fork(&mut self, pages: &mut Pages, len: usize) -> Self {
        // Its last page is shared from now on: it must be copied before the next write.
        self.reserved = None;
        let mut held = self.held[..len.div_ceil(PAGE).min(self.held.len())].to_vec();
        if let Some(open) = held.get_mut(len / PAGE) {
            // What it is being made into is of positions that are not committed.
            open.forms &= 1 << RAW;
        }
        for held in &held {
            if let Some(id) = held.page {
                pages.share(id, held.forms);
            }
        }
        Self { held, ..Self::default() }
    }

    /// Lets go of everything.
    pub fn release(self, pages: &mut Pages, arena: &mut Arena) {
        for held in self.held {
            if let Some(id) = held.page {
                pages.release(arena, id, held.forms);
            }
        }
    }
}

impl Sequence {
    /// Positions that its pages hold.
    pub fn capacity(&self) -> usize {
        self.tables.iter().map(|table| table.held.len()).min().map_or(usize::MAX, |pages| pages * PAGE)
    }
}
