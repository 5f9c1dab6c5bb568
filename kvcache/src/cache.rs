//! The cache: sequences that grow in two steps (reserve and write, then commit), fork and rewind.

use crate::arena::Arena;
use crate::layout::{Layer, Layout};
use crate::pages::Pages;
use crate::prefixes::Prefixes;
use crate::seal::Sealer;
use crate::sequence::{Sequence, Table};
use crate::spill::SpillStore;
use crate::state::States;
use crate::{Error, PAGE, Policy};

/// Names a sequence of one cache. An id that was released never names another sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId {
    index: u32,
    generation: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Slot {
    generation: u32,
    pub(crate) sequence: Option<Sequence>,
}

/// The keys and values of many sequences.
#[derive(Debug)]
pub struct KvCache {
    policy: Policy,
    pub(crate) layout: Layout,
    pub(crate) arena: Arena,
    /// By group.
    pub(crate) pages: Vec<Pages>,
    pub(crate) sealer: Sealer,
    pub(crate) states: Option<States>,
    pub(crate) prefixes: Prefixes,
    pub(crate) spill: Option<Box<dyn SpillStore>>,
    pub(crate) slots: Vec<Slot>,
    free: Vec<u32>,
    /// Blocks that a reserve needs, by pool.
    wanted: Vec<usize>,
    pub(crate) peak: usize,
}

impl KvCache {
    /// An empty cache for these layers. Memory is allocated as it is needed, `budget_bytes` at the most.
    ///
    /// # Errors
    /// [`Error::LayoutTooLarge`] if a page of such layers can't exist, [`Error::Codec`] if a codec of the policy has no
    /// form for a head size, [`Error::PolicyParts`], [`Error::Source`].
    pub fn new<L: Into<Layer>>(
        layers: Vec<L>,
        policy: impl Into<Policy>,
        budget_bytes: usize,
    ) -> Result<Self, Error> {
        let policy = policy.into();
        let layout = Layout::new(layers.into_iter().map(Into::into).collect(), &policy)?;
        let mut arena = Arena::new(budget_bytes);
        let mut pages = Vec::with_capacity(layout.groups.len());
        for group in &layout.groups {
            let mut pools = vec![Vec::new(); group.forms.len()];
            for (form, level) in group.kinds() {
                pools[form].push(arena.add_pool(group.layout(form, level).bytes));
            }
            pages.push(Pages::new(pools, group.shapes.len()));
        }
        let states = States::new(&layout.layers, &mut arena)?;
        Ok(Self {
            policy,
            states,
            layout,
            arena,
            pages,
            sealer: Sealer::default(),
            prefixes: Prefixes::default(),
            spill: None,
            slots: Vec::new(),
            free: Vec::new(),
            wanted: Vec::new(),
            peak: 0,
        })
    }

    /// How keys and values are kept.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What a layer remembers.
    pub fn layer(&self, layer: usize) -> Option<&Layer> {
        self.layout.layers.get(layer)
    }

    /// Layers.
    pub fn layers(&self) -> usize {
        self.layout.layers.len()
    }

    /// A new, empty sequence. It takes no page until something is reserved.
    pub fn create(&mut self) -> SequenceId {
        let tables = vec![Table::default(); self.pages.len()];
        self.insert(Sequence { tables, ..Sequence::default() })
    }

    /// A sequence with the same past, sharing its pages: nothing is copied but the table. Positions that are not
    /// committed are not inherited.
    ///
    /// # Errors
    /// [`Error::Uncommitted`] if states of recurrent layers were changed since; [`Error::UnknownSequence`].
    pub fn fork(&mut self, id: SequenceId) -> Result<SequenceId, Error> {
        let Self { slots, pages, states, .. } = self;
        let parent = sequence_mut(slots, id)?;
        let (len, turns, reduced) = (parent.len, parent.turns.clone(), parent.reduced);
        let state = states.as_mut().map(|states| parent.state.fork(states)).transpose()?.unwrap_or_default();
        let tables =
            parent.tables.iter_mut().zip(pages).map(|(table, pages)| table.fork(pages, len)).collect();
        Ok(self.insert(Sequence { len, tables, turns, reduced, state }))
    }

    /// Forgets a sequence; pages that no other sequence holds are free at once.
    ///
    /// # Errors
    /// [`Error::UnknownSequence`].
    pub fn release(&mut self, id: SequenceId) -> Result<(), Error> {
        sequence_mut(&mut self.slots, id)?;
        let slot = &mut self.slots[id.index as usize];
        let sequence = slot.sequence.take().unwrap_or_default();
        // An id is never given twice: a slot whose generations are used up is retired.
        if let Some(generation) = slot.generation.checked_add(1) {
            slot.generation = generation;
            self.free.push(id.index);
        }
        for (table, pages) in sequence.tables.into_iter().zip(&mut self.pages) {
            table.release(pages, &mut self.arena);
        }
        if let Some(states) = &mut self.states {
            sequence.state.release(states, &mut self.arena);
        }
        Ok(())
    }

    /// Committed positions.
    ///
    /// # Errors
    /// [`Error::UnknownSequence`].
    pub fn len(&self, id: SequenceId) -> Result<usize, Error> {
        Ok(self.sequence(id)?.len)
    }

    /// Makes the next `count` positions writable: takes pages and the blocks that earlier pages are sealed into, and
    /// copies the last page if a fork shares it. Prefixes that no sequence holds make room; then, if the policy says so,
    /// pages lose planes ([`Policy::drop`]). Either all of it happens or nothing.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the budget does not hold it; [`Error::UnknownSequence`].
    pub fn reserve(&mut self, id: SequenceId, count: usize) -> Result<(), Error> {
        self.wanted.clear();
        let mut result = self.try_reserve(id, count);
        while matches!(result, Err(Error::OutOfMemory { .. })) && self.evict() {
            result = self.try_reserve(id, count);
        }
        if matches!(result, Err(Error::OutOfMemory { .. })) {
            let wanted = std::mem::take(&mut self.wanted);
            let relieved = self.relieve(&wanted);
            self.wanted = wanted;
            if relieved? {
                result = self.try_reserve(id, count);
            }
        }
        result
    }

    fn try_reserve(&mut self, id: SequenceId, count: usize) -> Result<(), Error> {
        let Self { slots, layout, arena, pages, states, wanted, peak, .. } = self;
        let sequence = sequence_mut(slots, id)?;
        let len = sequence.len;
        let positions = len.checked_add(count).ok_or(Error::TooManyPositions { positions: usize::MAX })?;
        let Some(last) = positions.checked_sub(1).map(|last| last / PAGE).filter(|_| count > 0) else {
            return Ok(());
        };
        let state_blocks = states.as_ref().map_or(0, |states| sequence.state.count(states, len, positions));
        if state_blocks == 0 && sequence.tables.iter().all(|table| table.is_reserved(last)) {
            return Ok(());
        }
        // Far too many are refused before they are counted page by page.
        let smallest = layout.groups.iter().map(|group| group.forms[0].bytes).min().unwrap_or(0);
        let (more, budget) = ((last - len / PAGE).saturating_mul(smallest), arena.budget());
        if more > budget {
            let available = budget.saturating_sub(arena.used_in_all());
            return Err(Error::OutOfMemory { needed: more, available, budget });
        }
        wanted.clear();
        wanted.resize(arena.pools(), 0);
        if let Some(states) = states {
            wanted[states.pool() as usize] = state_blocks;
        }
        for ((table, group), pages) in sequence.tables.iter().zip(&layout.groups).zip(&*pages) {
            table.count(&group.schedule, pages, len, last, wanted);
        }
        arena.ensure(wanted)?;
        for ((table, group), pages) in sequence.tables.iter_mut().zip(&layout.groups).zip(pages) {
            table.take(&group.schedule, pages, arena, len, last)?;
        }
        if let Some(states) = states {
            sequence.state.take(states, arena, len, positions)?;
        }
        *peak = arena.used_in_all().max(*peak);
        Ok(())
    }

    /// Makes the next `count` positions part of the sequence, once all layers have been written, and lets go of what
    /// no later query asks for.
    ///
    /// # Errors
    /// [`Error::CommitPastReserved`], [`Error::UnknownSequence`].
    pub fn commit(&mut self, id: SequenceId, count: usize) -> Result<(), Error> {
        let Self { slots, layout, arena, pages, states, .. } = self;
        let sequence = sequence_mut(slots, id)?;
        let (before, capacity) = (sequence.len, sequence.capacity());
        let len = before
            .checked_add(count)
            .filter(|&len| len <= capacity)
            .ok_or(Error::CommitPastReserved { count, len: before, capacity })?;
        sequence.len = len;
        if let Some(states) = states {
            sequence.state.commit(states, arena, len);
        }
        if len / PAGE > before / PAGE {
            for ((table, group), pages) in sequence.tables.iter_mut().zip(&layout.groups).zip(pages) {
                table.prune(&group.schedule, pages, arena, len);
            }
        }
        Ok(())
    }

    /// Forgets the positions from `len` on, and what is reserved past them. Returns the length that could be reached:
    /// the longest, `len` at the most, from which an append gives the bits of a straight run. That is `len` itself for
    /// up to 128 positions taken back; further back, and within attached pages ([`KvCache::attach`]), it may be the page
    /// boundary before it, and with a window, with tiers, with sliding or with recurrent layers less.
    ///
    /// # Errors
    /// [`Error::UnknownSequence`].
    pub fn rewind(&mut self, id: SequenceId, len: usize) -> Result<usize, Error> {
        let Self { slots, layout, arena, pages, states, .. } = self;
        let sequence = sequence_mut(slots, id)?;
        let committed = sequence.len;
        let mut reached = sequence.len.min(len);
        let can = |len: usize| {
            let mut tables = sequence.tables.iter().zip(&layout.groups);
            tables.all(|(table, group)| table.reaches(&group.schedule, len))
                && (states.is_none() || sequence.state.reaches(len, committed))
        };
        while reached > 0 && !can(reached) {
            reached = (reached - 1) / PAGE * PAGE;
        }
        sequence.len = reached;
        sequence.straighten();
        for ((table, group), pages) in sequence.tables.iter_mut().zip(&layout.groups).zip(pages) {
            table.cut(&group.schedule, pages, arena, reached);
        }
        if let Some(states) = states {
            sequence.state.rewind(states, arena, reached, committed);
        }
        Ok(reached)
    }

    /// Gives memory that no sequence uses back to the system.
    pub fn trim(&mut self) {
        self.arena.trim(&[]);
    }

    pub(crate) fn insert(&mut self, sequence: Sequence) -> SequenceId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.sequence = Some(sequence);
        SequenceId { index, generation: slot.generation }
    }

    pub(crate) fn sequence(&self, id: SequenceId) -> Result<&Sequence, Error> {
        self.slots
            .get(id.index as usize)
            .filter(|slot| slot.generation == id.generation)
            .and_then(|slot| slot.sequence.as_ref())
            .ok_or(unknown(id))
    }

    pub(crate) fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        self.slots.iter().filter_map(|slot| slot.sequence.as_ref())
    }
}

pub(crate) fn sequence_mut(slots: &mut [Slot], id: SequenceId) -> Result<&mut Sequence, Error> {
    slots
        .get_mut(id.index as usize)
        .filter(|slot| slot.generation == id.generation)
        .and_then(|slot| slot.sequence.as_mut())
        .ok_or(unknown(id))
}

fn unknown(id: SequenceId) -> Error {
    Error::UnknownSequence { index: id.index, generation: id.generation }
}
