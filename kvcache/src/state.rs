//! What recurrent layers remember: a state of fixed size for each sequence, and copies of it at some page boundaries, so
//! that a sequence can go back.
//!
//! A state is changed in place, so there is one way back from a pass that is not committed: the last copy. Forks share
//! states and copies until one of them goes on.

use crate::arena::{ALIGN, Arena, BlockId, numbers, numbers_mut};
use crate::layout::Layer;
use crate::{Error, KvCache, PAGE, SequenceId};
use std::ops::Range;

/// When states of recurrent layers are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoints {
    /// Pages between copies.
    pub every: usize,
    /// Copies that a sequence keeps, the last ones.
    pub count: usize,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self { every: 4, count: 8 }
    }
}

/// The states of all sequences.
#[derive(Debug)]
pub(crate) struct States {
    pool: u32,
    /// Sequences and copies that hold a block.
    holders: Vec<u32>,
    /// Each layer's part of a block.
    parts: Vec<Option<Range<usize>>>,
    /// Layers with a part.
    layers: usize,
    pub rule: Checkpoints,
}

/// A copy of a state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checkpoint {
    pub position: usize,
    pub block: BlockId,
    /// Layers that are in it.
    saved: usize,
}

/// The states of one sequence.
#[derive(Debug, Default, Clone)]
pub(crate) struct StateTable {
    current: Option<BlockId>,
    /// The current state is of positions that are not committed.
    dirty: bool,
    /// Ascending.
    pub checkpoints: Vec<Checkpoint>,
    /// Those of a pass that is not committed.
    pending: Vec<Checkpoint>,
}

impl States {
    /// `None` if no layer has a state.
    pub fn new(layers: &[Layer], arena: &mut Arena) -> Result<Option<Self>, Error> {
        let mut end = 0usize;
        let mut parts = Vec::with_capacity(layers.len());
        for layer in layers {
            let part = (layer.state > 0).then(|| {
                let bytes = layer.state.checked_mul(4)?;
                let next = end.checked_add(bytes.checked_next_multiple_of(ALIGN)?)?;
                (next <= isize::MAX as usize / 4).then(|| (std::mem::replace(&mut end, next), bytes))
            });
            let part = match part {
                Some(None) => return Err(Error::LayoutTooLarge { layers: layers.len() }),
                part => part.flatten(),
            };
            parts.push(part.map(|(start, bytes)| start..start + bytes));
        }
        let count = parts.iter().flatten().count();
        Ok((count > 0).then(|| Self {
            pool: arena.add_pool(end),
            holders: Vec::new(),
            parts,
            layers: count,
            rule: Checkpoints::default(),
        }))
    }

    pub fn pool(&self) -> u32 {
        self.pool
    }

    /// Blocks of a sequence at the most: its state, its copies, and as many of a pass.
    pub fn blocks(&self) -> usize {
        self.rule.count.saturating_mul(2).saturating_add(1)
    }

    /// Bytes of a block.
    pub fn bytes(&self) -> usize {
        self.parts.iter().flatten().map(|part| part.end.next_multiple_of(ALIGN)).max().unwrap_or(0)
    }

    fn take(&mut self, arena: &mut Arena) -> Result<BlockId, Error> {
        let block = arena.take(self.pool)?;
        let index = block.index as usize;
        self.holders.resize(self.holders.len().max(index + 1), 0);
        self.holders[index] = 1;
        Ok(block)
    }

    pub fn share(&mut self, block: BlockId) {
        self.holders[block.index as usize] += 1;
    }

    pub fn release(&mut self, arena: &mut Arena, block: BlockId) {
        let holders = &mut self.holders[block.index as usize];
        *holders -= 1;
        if *holders == 0 {
            arena.release(block);
        }
    }

    fn is_shared(&self, block: BlockId) -> bool {
        self.holders[block.index as usize] > 1
    }

    /// Positions in a range at which a pass makes copies: the last ones, as many as are kept.
    fn due(&self, from: usize, to: usize) -> impl Iterator<Item = usize> + use<> {
        let every = self.rule.every.max(1).saturating_mul(PAGE);
        let (first, last) = (from / every + 1, to / every);
        let first = first.max((last + 1).saturating_sub(self.rule.count));
        (first..=last).map(move |i| i * every)
    }
}

impl StateTable {
    fn missing(&self, states: &States, len: usize, to: usize) -> impl Iterator<Item = usize> {
        let have = |position: &usize| self.pending.iter().any(|copy| copy.position == *position);
        states.due(len, to).filter(move |position| !have(position))
    }

    /// Blocks that positions from `len` to `to` need.
    pub fn count(&self, states: &States, len: usize, to: usize) -> usize {
        let own = self.current.is_none_or(|block| states.is_shared(block));
        usize::from(own) + self.missing(states, len, to).count()
    }

    /// Takes them.
    pub fn take(
        &mut self,
        states: &mut States,
        arena: &mut Arena,
        len: usize,
        to: usize,
    ) -> Result<(), Error> {
        match self.current {
            None => {
                let block = states.take(arena)?;
                arena.bytes_mut(block).fill(0);
                self.current = Some(block);
            }
            Some(shared) if states.is_shared(shared) => {
                let own = states.take(arena)?;
                arena.copy(shared, own);
                states.release(arena, shared);
                self.current = Some(own);
            }
            Some(_) => {}
        }
        let missing: Vec<usize> = self.missing(states, len, to).collect();
        for position in missing {
            let block = states.take(arena)?;
            self.pending.push(Checkpoint { position, block, saved: 0 });
        }
        Ok(())
    }

    /// The state is that of `len` positions now.
    pub fn commit(&mut self, states: &mut States, arena: &mut Arena, len: usize) {
        self.dirty = false;
        for copy in self.pending.drain(..) {
            if copy.saved == states.layers && copy.position <= len {
                self.checkpoints.push(copy);
            } else {
                states.release(arena, copy.block);
            }
        }
        let old = self.checkpoints.len().saturating_sub(states.rule.count);
        for copy in self.checkpoints.drain(..old) {
            states.release(arena, copy.block);
        }
    }

    /// Whether there is a state after `len` of the `committed` positions.
    pub fn reaches(&self, len: usize, committed: usize) -> bool {
        len == 0
            || len == committed && !self.dirty && self.current.is_some()
            || self.checkpoints.iter().any(|copy| copy.position == len)
    }

    /// Goes back to `len` positions, which [`StateTable::reaches`] said there is a state of.
    pub fn rewind(&mut self, states: &mut States, arena: &mut Arena, len: usize, committed: usize) {
        for copy in self.pending.drain(..) {
            states.release(arena, copy.block);
        }
        if len < committed || self.dirty || self.current.is_none() {
            let copy = self.checkpoints.iter().find(|copy| copy.position == len).map(|copy| copy.block);
            if let Some(copy) = copy {
                states.share(copy);
            }
            if let Some(old) = std::mem::replace(&mut self.current, copy) {
                states.release(arena, old);
            }
            self.dirty = false;
        }
        let keep = self.checkpoints.partition_point(|copy| copy.position <= len);
        for copy in self.checkpoints.drain(keep..) {
            states.release(arena, copy.block);
        }
    }

    /// The same states for a fork.
    pub fn fork(&self, states: &mut States) -> Result<Self, Error> {
        if self.dirty {
            return Err(Error::Uncommitted);
        }
        let copies = self.checkpoints.iter().map(|copy| copy.block);
        for block in self.current.into_iter().chain(copies) {
            states.share(block);
        }
        Ok(Self { current: self.current, checkpoints: self.checkpoints.clone(), ..Self::default() })
    }

    /// Lets go of everything.
    pub fn release(self, states: &mut States, arena: &mut Arena) {
        let copies = self.checkpoints.iter().chain(&self.pending).map(|copy| copy.block);
        for block in self.current.into_iter().chain(copies) {
            states.release(arena, block);
        }
    }
}

impl KvCache {
    /// Sets when states of recurrent layers are copied, before there is a sequence.
    #[must_use]
    pub fn with_checkpoints(mut self, rule: Checkpoints) -> Self {
        if let Some(states) = &mut self.states {
            states.rule = rule;
        }
        self
    }

    /// The state of a recurrent layer, to be advanced over reserved positions; zeros at first. Until they are committed
    /// the sequence can be neither forked nor, without a copy, taken back.
    ///
    /// # Errors
    /// [`Error::NoState`] if the layer has none, or nothing is reserved; [`Error::UnknownSequence`].
    pub fn state_mut(&mut self, id: SequenceId, layer: usize) -> Result<&mut [f32], Error> {
        let part = self.part(layer)?;
        let Self { states, arena, slots, .. } = self;
        let table = &mut crate::cache::sequence_mut(slots, id)?.state;
        let shared = |block: &BlockId| states.as_ref().is_none_or(|states| states.is_shared(*block));
        let block = table.current.filter(|block| !shared(block)).ok_or(Error::NoState { layer })?;
        table.dirty = true;
        Ok(numbers_mut(&mut arena.bytes_mut(block)[part]))
    }

    /// The state of a recurrent layer.
    ///
    /// # Errors
    /// As [`KvCache::state_mut`].
    pub fn state(&self, id: SequenceId, layer: usize) -> Result<&[f32], Error> {
        let part = self.part(layer)?;
        let block = self.sequence(id)?.state.current.ok_or(Error::NoState { layer })?;
        Ok(numbers(&self.arena.bytes(block)[part]))
    }

    /// The next position behind `position` at which the states of a sequence are to be copied, if that is reserved: all
    /// recurrent layers call [`KvCache::checkpoint`] when they have advanced their states so far.
    ///
    /// # Errors
    /// [`Error::UnknownSequence`].
    pub fn next_checkpoint(&self, id: SequenceId, position: usize) -> Result<Option<usize>, Error> {
        let pending = &self.sequence(id)?.state.pending;
        Ok(pending.iter().map(|copy| copy.position).filter(|&at| at > position).min())
    }

    /// Copies the state of a layer, which is that of `position` positions.
    ///
    /// # Errors
    /// [`Error::NoState`] if no copy was due there, see [`KvCache::next_checkpoint`]; [`Error::UnknownSequence`].
    pub fn checkpoint(&mut self, id: SequenceId, layer: usize, position: usize) -> Result<(), Error> {
        let part = self.part(layer)?;
        let Self { arena, slots, .. } = self;
        let table = &mut crate::cache::sequence_mut(slots, id)?.state;
        let due = table.pending.iter_mut().find(|copy| copy.position == position);
        let (from, to) = table.current.zip(due).ok_or(Error::NoState { layer })?;
        to.saved += 1;
        arena.copy_part(from, to.block, part);
        Ok(())
    }

    fn part(&self, layer: usize) -> Result<Range<usize>, Error> {
        let parts = self.states.as_ref().map(|states| &states.parts);
        parts.and_then(|parts| parts.get(layer)?.clone()).ok_or(Error::NoState { layer })
    }
}
