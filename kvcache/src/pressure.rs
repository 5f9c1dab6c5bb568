//! When the budget is full: pages that are seen least lose their low planes, if the policy says that they may.
//!
//! The planes of a page are nested: without the low ones it is the same page with wider cells, so that nothing is
//! quantized again. A page of fewer bits is a block of another pool; the slabs of a budget are worth something only when
//! they are empty, so blocks are moved together as well.
//!
//! Only pages that one sequence holds alone are reduced, and only their sealed form, when all of it is there. In which
//! order: by attention mass ([`KvCache::observe`]) times four for each level, since two planes fewer make the cells four
//! times as wide; so the coldest pages go down further before warm ones begin. No more is dropped than what is wanted
//! needs, and nothing if that is not enough.
//!
//! Lost planes may be kept elsewhere ([`SpillStore`]); [`KvCache::raise`] brings them back.

use crate::layout::{BlockLayout, Group};
use crate::pages::{Lost, PageId};
use crate::schedule::SEALED;
use crate::spill::SpillStore;
use crate::{Error, KvCache, SequenceId};
use std::ops::Range;

/// A page that one sequence holds alone, sealed in our own memory.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    group: usize,
    page: PageId,
    /// The slot of its sequence.
    sequence: usize,
    level: usize,
    mass: f32,
}

impl Candidate {
    /// What going down to a level may cost.
    fn cost(&self, level: usize) -> f32 {
        self.mass * 4f32.powi(level as i32)
    }
}

/// A page between two blocks.
#[derive(Debug)]
struct Cut {
    candidate: Candidate,
    level: usize,
    bytes: Vec<u8>,
    lost: Option<Lost>,
}

impl KvCache {
    /// Keeps lost planes in a store, so that they can come back.
    #[must_use]
    pub fn with_spill(mut self, store: Box<dyn SpillStore>) -> Self {
        self.spill = Some(store);
        self
    }

    /// Whether pages of the sequence, or of the one it was forked from, ever lost planes. What it has computed since is
    /// no longer a function of its tokens alone, and can't be reproduced, even if the planes came back; its pages serve no
    /// other sequence.
    ///
    /// # Errors
    /// [`Error::UnknownSequence`].
    pub fn is_reduced(&self, id: SequenceId) -> Result<bool, Error> {
        Ok(self.sequence(id)?.reduced)
    }

    /// Makes room for `wanted` blocks of each pool; `false` if that can't be: then nothing has happened.
    pub(crate) fn relieve(&mut self, wanted: &[usize]) -> Result<bool, Error> {
        if self.policy().drop.is_none() || wanted.len() != self.arena.pools() {
            return Ok(false);
        }
        self.forget_orphans();
        let candidates = self.candidates();
        let mut steps: Vec<(f32, usize, usize)> = Vec::new();
        for (i, candidate) in candidates.iter().enumerate() {
            let levels = self.layout.groups[candidate.group].levels(SEALED);
            steps.extend((candidate.level + 1..levels).map(|level| (candidate.cost(level), level, i)));
        }
        steps.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let mut levels: Vec<usize> = candidates.iter().map(|candidate| candidate.level).collect();
        let mut used: Vec<usize> =
            (0..self.arena.pools()).map(|pool| self.arena.used_blocks(pool as u32)).collect();
        let mut steps = steps.into_iter();
        while !self.fits(&used, wanted) {
            let Some((_, level, i)) = steps.next() else { return Ok(false) };
            let pages = &self.pages[candidates[i].group];
            used[pages.pool_at(SEALED, levels[i]) as usize] -= 1;
            used[pages.pool_at(SEALED, level) as usize] += 1;
            levels[i] = level;
        }
        let mut cuts = Vec::new();
        for (candidate, level) in candidates.into_iter().zip(levels) {
            if level > candidate.level {
                cuts.push(self.cut(candidate, level));
                // So that no more than about a slab is in neither place.
                self.place_cuts(&mut cuts, false)?;
            }
        }
        self.compact();
        self.place_cuts(&mut cuts, true)?;
        Ok(true)
    }

    /// Brings back what was kept of lost planes, to the pages that are seen most, as long as `spare` bytes of the budget
    /// are left. Returns how often a page was raised; what comes back is bit for bit what was lost.
    ///
    /// # Errors
    /// [`Error::Spill`] if the store can't read what it kept: that page stays as it is.
    pub fn raise(&mut self, spare: usize) -> Result<usize, Error> {
        self.forget_orphans();
        let mut raised = 0;
        loop {
            let mut candidates = self.candidates();
            candidates.retain(|c| self.pages[c.group].last_loss(c.page).is_some());
            if candidates.is_empty() {
                return Ok(raised);
            }
            self.compact();
            candidates.sort_by(|a, b| b.cost(b.level).total_cmp(&a.cost(a.level)));
            for candidate in candidates {
                if !self.raise_one(candidate, spare)? {
                    return Ok(raised);
                }
                raised += 1;
            }
        }
    }

    /// Takes back the last loss of a page; `false` if there is no room.
    fn raise_one(&mut self, candidate: Candidate, spare: usize) -> Result<bool, Error> {
        let Self { layout, arena, pages, spill, .. } = self;
        let (of, pages) = (&layout.groups[candidate.group], &mut pages[candidate.group]);
        let (Some(store), Some(Lost { from, key })) = (spill, pages.last_loss(candidate.page)) else {
            return Ok(false);
        };
        let pool = pages.pool_at(SEALED, from);
        let Some(block) = pages.block(candidate.page, SEALED).filter(|_| arena.has_room(pool, spare)) else {
            return Ok(false);
        };
        let (whole, reduced) = (of.layout(SEALED, from), of.layout(SEALED, candidate.level));
        let mut lost = vec![0; lost_bytes(of, whole, reduced)];
        let read = store.get(key, &mut lost);
        read.map_err(|source| Error::Spill { problem: source.to_string() })?;
        let to = arena.take(pool)?;
        let kept = arena.bytes(block).to_vec();
        join(of, whole, reduced, &kept, &lost, arena.bytes_mut(to));
        store.remove(key);
        pages.take_sealed(arena, candidate.page);
        pages.restore(candidate.page, to);
        self.peak = self.arena.used_in_all().max(self.peak);
        Ok(true)
    }

    /// The pages that may be reduced, in the order of sequences, groups and positions.
    fn candidates(&self) -> Vec<Candidate> {
        let mut out = Vec::new();
        for (at, slot) in self.slots.iter().enumerate() {
            let tables = slot.sequence.iter().flat_map(|sequence| &sequence.tables);
            for (group, (table, pages)) in tables.zip(&self.pages).enumerate() {
                if self.layout.groups[group].levels(SEALED) == 1 {
                    continue;
                }
                for page in table.held.iter().filter_map(|held| held.page) {
                    let alone = pages.holders(page) == 1 && pages.holders_of(page, SEALED) == 1;
                    let block = if alone { pages.block(page, SEALED) } else { None };
                    if block.is_some_and(|block| self.arena.is_own(block)) && pages.is_full(page, SEALED) {
                        let (level, mass) = (pages.level(page, SEALED), pages.mass(page));
                        out.push(Candidate { group, page, sequence: at, level, mass });
                    }
                }
            }
        }
        out
    }

    /// Whether so many blocks, and those wanted, fit in the budget when they lie together.
    fn fits(&self, used: &[usize], wanted: &[usize]) -> bool {
        let states = self.states.as_ref().map(|states| states.pool());
        let bytes = used.iter().zip(wanted).enumerate().fold(0usize, |sum, (pool, (&used, &wanted))| {
            let pool = pool as u32;
            sum.saturating_add(if Some(pool) == states {
                self.arena.bytes_with(pool, wanted)
            } else {
                self.arena.least_bytes(pool, used.saturating_add(wanted))
            })
        });
        bytes <= self.arena.budget()
    }

    /// Takes a page out of its block; its lost planes go to the store.
    fn cut(&mut self, candidate: Candidate, level: usize) -> Cut {
        let Self { layout, arena, pages, slots, spill, .. } = self;
        let (of, pages) = (&layout.groups[candidate.group], &mut pages[candidate.group]);
        let (whole, reduced) = (of.layout(SEALED, candidate.level), of.layout(SEALED, level));
        let from = pages.block(candidate.page, SEALED).map_or(&[][..], |block| arena.bytes(block));
        let (bytes, lost) = split(of, whole, reduced, from);
        let key = spill.as_mut().and_then(|store| store.put(&lost));
        pages.take_sealed(arena, candidate.page);
        if let Some(sequence) = slots.get_mut(candidate.sequence).and_then(|slot| slot.sequence.as_mut()) {
            sequence.reduced = true;
        }
        let lost = key.map(|key| Lost { from: candidate.level, key });
        Cut { candidate, level, bytes, lost }
    }

    /// Puts pages into blocks of their own, all of them or as many as there is room for.
    fn place_cuts(&mut self, cuts: &mut Vec<Cut>, all: bool) -> Result<(), Error> {
        let mut compacted = all;
        while let Some(cut) = cuts.pop() {
            let pages = &mut self.pages[cut.candidate.group];
            match self.arena.take(pages.pool_at(SEALED, cut.level)) {
                Ok(block) => {
                    self.arena.bytes_mut(block).copy_from_slice(&cut.bytes);
                    pages.reduce(cut.candidate.page, cut.level, block, cut.lost);
                }
                Err(error) if all => return Err(error),
                Err(_) => {
                    cuts.push(cut);
                    if std::mem::replace(&mut compacted, true) {
                        return Ok(());
                    }
                    self.compact();
                }
            }
        }
        Ok(())
    }

    fn compact(&mut self) {
        for pages in &mut self.pages {
            pages.compact(&mut self.arena);
        }
    }

    /// Lets the store forget planes of pages that are gone.
    fn forget_orphans(&mut self) {
        for pages in &mut self.pages {
            for key in pages.orphans() {
                if let Some(store) = &mut self.spill {
                    store.remove(key);
                }
            }
        }
    }
}

/// Every head's cells of a whole page and of a reduced one.
fn each_head(
    of: &Group,
    whole: &BlockLayout,
    reduced: &BlockLayout,
    mut f: impl FnMut(Range<usize>, Range<usize>),
) {
    for ((whole, reduced), shape) in whole.layers.iter().zip(&reduced.layers).zip(&of.shapes) {
        for head in 0..shape.kv_heads {
            f(whole.keys.of(head), reduced.keys.of(head));
            if !whole.values.alias {
                f(whole.values.of(head), reduced.values.of(head));
            }
        }
    }
}

/// Bytes that a reduced page lacks.
fn lost_bytes(of: &Group, whole: &BlockLayout, reduced: &BlockLayout) -> usize {
    let mut sum = 0;
    each_head(of, whole, reduced, |whole, reduced| sum += whole.len() - reduced.len());
    sum
}

/// A block as a reduced one, and what that lacks.
fn split(of: &Group, whole: &BlockLayout, reduced: &BlockLayout, from: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut kept, mut lost) = (vec![0; reduced.bytes], Vec::new());
    each_head(of, whole, reduced, |whole, reduced| {
        let (first, rest) = from[whole].split_at(reduced.len());
        kept[reduced].copy_from_slice(first);
        lost.extend_from_slice(rest);
    });
    (kept, lost)
}

/// The reverse of [`split`].
fn join(of: &Group, whole: &BlockLayout, reduced: &BlockLayout, kept: &[u8], mut lost: &[u8], to: &mut [u8]) {
    to.fill(0);
    each_head(of, whole, reduced, |whole, reduced| {
        let (first, rest) = to[whole].split_at_mut(reduced.len());
        first.copy_from_slice(&kept[reduced]);
        let (own, after) = lost.split_at(rest.len());
        rest.copy_from_slice(own);
        lost = after;
    });
}
