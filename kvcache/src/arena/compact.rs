//! Putting the blocks of a pool together, so that slabs get empty.

use super::{Arena, BlockId, Owner, Pool, Slab};
use std::collections::BTreeSet;

impl Pool {
    /// Slabs of our own memory with a used block.
    fn own(&self) -> impl Iterator<Item = (usize, &Slab)> {
        let slabs = self.slabs.iter().enumerate().filter_map(|(at, slab)| Some((at, slab.as_ref()?)));
        slabs.filter(|(_, slab)| slab.used > 0 && !matches!(slab.owner, Owner::Foreign(..)))
    }
}

impl Arena {
    /// Whether a block lies in our own memory.
    pub fn is_own(&self, id: BlockId) -> bool {
        let pool = &self.pools[id.pool as usize];
        let slab = pool.slabs.get(id.index as usize / pool.per_slab).and_then(Option::as_ref);
        slab.is_some_and(|slab| !matches!(slab.owner, Owner::Foreign(..)))
    }

    /// Blocks of our own in use.
    pub fn used_blocks(&self, pool: u32) -> usize {
        self.pools[pool as usize].used
    }

    /// Bytes of the slabs that so many blocks of a pool take at the least.
    pub fn least_bytes(&self, pool: u32, blocks: usize) -> usize {
        let pool = &self.pools[pool as usize];
        blocks.div_ceil(pool.per_slab).saturating_mul(pool.slab_bytes())
    }

    /// Bytes of slabs if a pool whose blocks stay where they are takes `more`.
    pub fn bytes_with(&self, pool: u32, more: usize) -> usize {
        let pool = &self.pools[pool as usize];
        let used = pool.own().count();
        let free = used * pool.per_slab - pool.used;
        (used + more.saturating_sub(free).div_ceil(pool.per_slab)).saturating_mul(pool.slab_bytes())
    }

    /// Whether a block can be taken of a pool with `spare` bytes of the budget left over.
    pub fn has_room(&self, pool: u32, spare: usize) -> bool {
        let pool = &self.pools[pool as usize];
        let left = self.budget.saturating_sub(self.allocated);
        let needed = if pool.free.is_empty() { pool.slab_bytes() } else { 0 };
        needed.saturating_add(spare) <= left
    }

    /// Moves blocks of our own memory from slabs with few of them to free blocks of the others. Empty slabs go back to
    /// the system. Returns where blocks were and are.
    pub fn compact(&mut self, pool: u32) -> Vec<(u32, u32)> {
        let of = &self.pools[pool as usize];
        let mut partly: Vec<(usize, usize)> =
            of.own().filter(|(_, slab)| slab.used < of.per_slab).map(|(at, slab)| (slab.used, at)).collect();
        partly.sort_unstable();
        let used: usize = partly.iter().map(|(used, _)| used).sum();
        let leave = partly.len() - used.div_ceil(of.per_slab);
        let per_slab = of.per_slab;
        let blocks = |slabs: &[(usize, usize)]| -> Vec<u32> {
            slabs.iter().flat_map(|&(_, at)| at * per_slab..(at + 1) * per_slab).map(|i| i as u32).collect()
        };
        let free: BTreeSet<u32> = of.free.iter().copied().collect();
        let from = blocks(&partly[..leave]).into_iter().filter(|block| !free.contains(block));
        let to = blocks(&partly[leave..]).into_iter().filter(|block| free.contains(block));
        let moves: Vec<(u32, u32)> = from.zip(to).collect();
        for &(from, to) in &moves {
            let id = |index| BlockId { pool, index };
            self.copy(id(from), id(to));
            let of = &mut self.pools[pool as usize];
            of.free.retain(|&index| index != to);
            of.free.push(from);
            for (index, more) in [(from, false), (to, true)] {
                if let Some(slab) = &mut of.slabs[index as usize / per_slab] {
                    slab.used = if more { slab.used + 1 } else { slab.used - 1 };
                }
            }
        }
        self.trim(&[]);
        moves
    }
}
