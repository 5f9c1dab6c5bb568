//! Memory of pages: blocks of a few sizes from slabs within one byte budget. The only unsafe code of this crate.
//!
//! Every size has a pool of its own. A pool grows by whole slabs, each aligned to cache lines and, from 2 MiB on, mapped
//! so that the system may give huge pages. The budget counts slabs, used or not; when it is full, slabs without a used
//! block go back to the system. Fresh memory is zero.
#![allow(unsafe_code, reason = "typed views of bytes, and disjoint blocks written in parallel")]

mod compact;
#[cfg(test)]
mod tests;

use crate::Error;
use half::f16;
use quant_kernels::Parallel;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes that a slab has at least: a huge page of x86 and of most ARM systems.
const HUGE: usize = 2 << 20;
/// But a slab takes no larger part of the budget than this, if a block does not.
const SLABS: usize = 64;
/// Blocks begin at multiples of a cache line.
pub(crate) const ALIGN: usize = 64;

/// A block of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockId {
    pub pool: u32,
    pub index: u32,
}

/// A part of a block.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub block: BlockId,
    pub bytes: Range<usize>,
}

/// A source, and where what is made of it goes.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    pub to: Part,
    pub from: Part,
}

/// What is done with a transfer: `work(worker, job, from, to)`.
pub(crate) type Work<'a> = dyn Fn(usize, usize, &[u8], &mut [u8]) + Sync + 'a;

/// Memory of somebody else, only read: of a mapped file, for one.
pub(crate) type Foreign = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// All memory of a cache.
#[derive(Debug)]
pub(crate) struct Arena {
    pools: Vec<Pool>,
    budget: usize,
    allocated: usize,
}

#[derive(Debug)]
struct Pool {
    block_bytes: usize,
    /// Blocks of a slab.
    per_slab: usize,
    slabs: Vec<Option<Slab>>,
    free: Vec<u32>,
    /// Blocks in use that count.
    used: usize,
    /// Blocks in use that lie in memory of somebody else.
    foreign: usize,
}

impl Pool {
    fn slab_bytes(&self) -> usize {
        self.per_slab * self.block_bytes
    }

    /// Adds a slab; the index of its first block.
    fn add(&mut self, slab: Slab) -> u32 {
        let at = self.slabs.iter().position(Option::is_none).unwrap_or(self.slabs.len());
        if at == self.slabs.len() {
            self.slabs.push(None);
        }
        self.slabs[at] = Some(slab);
        (at * self.per_slab) as u32
    }
}

/// Blocks of a slab under a budget: as few as fill huge pages with little left over, if they fit in its share.
pub(crate) fn blocks_per_slab(block_bytes: usize, budget: usize) -> usize {
    let block_bytes = block_bytes.max(1);
    let most = (budget / SLABS / block_bytes).max(1);
    let least = HUGE.div_ceil(block_bytes).min(most);
    // Left over in 32nds of the slab.
    let left_over = |blocks: &usize| {
        let bytes = blocks.saturating_mul(block_bytes);
        (bytes.div_ceil(HUGE).saturating_mul(HUGE) - bytes).saturating_mul(32) / bytes
    };
    (least..=most.min(least.saturating_mul(8))).min_by_key(left_over).unwrap_or(least)
}

impl Arena {
    pub fn new(budget: usize) -> Self {
        Self { pools: Vec::new(), budget, allocated: 0 }
    }

    /// Adds a pool of blocks of this size, a multiple of [`ALIGN`].
    pub fn add_pool(&mut self, block_bytes: usize) -> u32 {
        debug_assert!(block_bytes.is_multiple_of(ALIGN));
        self.pools.push(Pool {
            block_bytes,
            per_slab: blocks_per_slab(block_bytes, self.budget),
            slabs: Vec::new(),
            free: Vec::new(),
            used: 0,
            foreign: 0,
        });
        (self.pools.len() - 1) as u32
    }

    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Bytes of all slabs.
    pub fn allocated(&self) -> usize {
        self.allocated
    }

    /// Bytes of a pool's blocks in use.
    pub fn used(&self, pool: u32) -> usize {
        self.pools.get(pool as usize).map_or(0, |pool| pool.used * pool.block_bytes)
    }

    /// Bytes of all blocks in use.
    pub fn used_in_all(&self) -> usize {
        self.pools.iter().map(|pool| pool.used * pool.block_bytes).sum()
    }

    /// Bytes of blocks in use that lie in memory of somebody else.
    pub fn used_foreign(&self) -> usize {
        self.pools.iter().map(|pool| pool.foreign * pool.block_bytes).sum()
    }

    /// Makes sure that so many more blocks can be taken of each pool: `wanted[pool]`.
    pub fn ensure(&mut self, wanted: &[usize]) -> Result<(), Error> {
        let missing = |pools: &[Pool]| {
            pools.iter().zip(wanted).fold(0usize, |sum, (pool, &wanted)| {
                let slabs = wanted.saturating_sub(pool.free.len()).div_ceil(pool.per_slab);
                sum.saturating_add(slabs.saturating_mul(pool.slab_bytes()))
            })
        };
        let needed = missing(&self.pools);
        if needed == 0 {
            return Ok(());
        }
        if needed > self.budget.saturating_sub(self.allocated) {
            self.trim(wanted);
        }
        let available = self.budget.saturating_sub(self.allocated);
        if needed > available {
            return Err(Error::OutOfMemory { needed, available, budget: self.budget });
        }
        for (pool, &wanted) in self.pools.iter_mut().zip(wanted) {
            while pool.free.len() < wanted {
                let slab = Slab::new(pool.slab_bytes()).ok_or(Error::System { bytes: pool.slab_bytes() })?;
                let first = pool.add(slab);
                pool.free.extend((first..first + pool.per_slab as u32).rev());
                self.allocated += pool.slab_bytes();
            }
        }
        Ok(())
    }

    /// Gives slabs without a used block back to the system, but leaves `wanted[pool]` blocks free.
    pub fn trim(&mut self, wanted: &[usize]) {
        for (i, pool) in self.pools.iter_mut().enumerate() {
            let keep = wanted.get(i).copied().unwrap_or(0);
            let per_slab = pool.per_slab;
            for at in 0..pool.slabs.len() {
                let empty = pool.slabs[at].as_ref().is_some_and(|slab| slab.used == 0);
                if empty && pool.free.len() >= keep + per_slab {
                    pool.slabs[at] = None;
                    pool.free.retain(|&index| index as usize / per_slab != at);
                    self.allocated -= per_slab * pool.block_bytes;
                }
            }
        }
    }

    /// A block of the pool, holding whatever is left over; [`Arena::ensure`] made sure that there is one.
    pub fn take(&mut self, pool: u32) -> Result<BlockId, Error> {
        let wanted = |i: usize| usize::from(i == pool as usize);
        if self.pools[pool as usize].free.is_empty() {
            let wanted: Vec<usize> = (0..self.pools.len()).map(wanted).collect();
            self.ensure(&wanted)?;
        }
        let of = &mut self.pools[pool as usize];
        let index = of.free.pop().ok_or(Error::System { bytes: of.block_bytes })?;
        of.used += 1;
        if let Some(slab) = &mut of.slabs[index as usize / of.per_slab] {
            slab.used += 1;
        }
        Ok(BlockId { pool, index })
    }

    /// Blocks of a pool that lie one after the other in `range` of memory of somebody else; they count as used from now
    /// on, but not against the budget.
    ///
    /// # Panics
    /// Unless the range lies within the memory and is a whole number of blocks.
    pub fn adopt(&mut self, pool: u32, memory: &Foreign, range: Range<usize>) -> Vec<BlockId> {
        let of = &mut self.pools[pool as usize];
        assert!(range.len().is_multiple_of(of.block_bytes.max(1)), "whole blocks");
        assert!((**memory).as_ref().get(range.clone()).is_some(), "a range within the memory");
        let mut ids = Vec::with_capacity(range.len() / of.block_bytes.max(1));
        for start in range.clone().step_by(of.slab_bytes().max(1)) {
            let bytes = of.slab_bytes().min(range.end - start);
            let used = bytes / of.block_bytes;
            let owner = Owner::Foreign(Arc::clone(memory), start);
            let first = of.add(Slab { base: NonNull::dangling(), bytes, owner, used });
            ids.extend((first..first + used as u32).map(|index| BlockId { pool, index }));
            of.foreign += used;
        }
        ids
    }

    /// Gives a block back to its pool, or to whom it belongs.
    pub fn release(&mut self, id: BlockId) {
        let pool = &mut self.pools[id.pool as usize];
        let place = &mut pool.slabs[id.index as usize / pool.per_slab];
        let Some(slab) = place else { return };
        slab.used -= 1;
        if let Owner::Foreign(..) = slab.owner {
            pool.foreign -= 1;
            if slab.used == 0 {
                *place = None;
            }
        } else {
            pool.used -= 1;
            pool.free.push(id.index);
        }
    }

    /// The first byte of a block, and how many it has.
    fn place(&self, id: BlockId) -> (NonNull<u8>, usize) {
        let pool = &self.pools[id.pool as usize];
        let (slab, block) = (id.index as usize / pool.per_slab, id.index as usize % pool.per_slab);
        // Ids come from `take` and die with `release`: a slab with a used block is never given back.
        let slab = pool.slabs[slab].as_ref().expect("the slab of a block in use");
        assert!(!matches!(slab.owner, Owner::Foreign(..)), "a block of our own memory");
        // SAFETY: the slab has `per_slab` blocks of `block_bytes` bytes, and `block < per_slab`.
        (unsafe { slab.base.add(block * pool.block_bytes) }, pool.block_bytes)
    }

    /// A block's bytes.
    pub fn bytes(&self, id: BlockId) -> &[u8] {
        let pool = &self.pools[id.pool as usize];
        let (slab, block) = (id.index as usize / pool.per_slab, id.index as usize % pool.per_slab);
        if let Some(Slab { owner: Owner::Foreign(memory, start), .. }) = &pool.slabs[slab] {
            return &(**memory).as_ref()[start + block * pool.block_bytes..][..pool.block_bytes];
        }
        let (start, len) = self.place(id);
        // SAFETY: `len` initialised bytes of a slab that lives as long as `self`, which is borrowed: nobody writes.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }

    /// A block's bytes, to write.
    pub fn bytes_mut(&mut self, id: BlockId) -> &mut [u8] {
        let (start, len) = self.place(id);
        // SAFETY: as in `bytes`; `self` is borrowed exclusively, so this is the only view.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) }
    }

    /// Copies a block of our own memory into another one of the same pool.
    pub fn copy(&mut self, from: BlockId, to: BlockId) {
        let len = self.place(from).1;
        self.copy_part(from, to, 0..len);
    }

    /// Copies a part of a block to the same part of another one of its pool.
    pub fn copy_part(&mut self, from: BlockId, to: BlockId, part: Range<usize>) {
        assert!(from.pool == to.pool && from != to, "blocks of one pool, not the same");
        let ((from, len), (to, _)) = (self.place(from), self.place(to));
        assert!(part.start <= part.end && part.end <= len, "a part of the block");
        // SAFETY: two different blocks of one pool do not overlap, the part lies within both, and `self` is borrowed
        // exclusively.
        unsafe {
            let (from, to) = (from.as_ptr().add(part.start), to.as_ptr().add(part.start));
            std::ptr::copy_nonoverlapping(from, to, part.len());
        }
    }

    /// Pools there are.
    pub fn pools(&self) -> usize {
        self.pools.len()
    }

    /// Calls `work(worker, job, from, to)` for every transfer, in parallel.
    ///
    /// # Panics
    /// Unless the targets lie in one pool, ascend without overlap, and no source lies in that pool.
    pub fn transfer(&mut self, parallel: &dyn Parallel, jobs: &[Transfer], work: &Work<'_>) {
        let Some(pool) = jobs.first().map(|job| job.to.block.pool) else { return };
        let ascends = jobs.is_sorted_by(|a, b| {
            (a.to.block, a.to.bytes.end) <= (b.to.block, b.to.bytes.start) || a.to.block < b.to.block
        });
        let apart = jobs.iter().all(|job| job.to.block.pool == pool && job.from.block.pool != pool);
        assert!(ascends && apart, "targets overlap each other or a source");
        let arena = &*self;
        parallel.run(jobs.len(), &|worker, index| {
            let Transfer { to, from } = &jobs[index];
            let from = &arena.bytes(from.block)[from.bytes.clone()];
            let (start, len) = arena.place(to.block);
            assert!(to.bytes.start <= to.bytes.end && to.bytes.end <= len, "a target within its block");
            // SAFETY: the range lies within its block. Ranges of different jobs do not overlap, and sources lie in
            // other pools, so nobody else reads or writes these bytes while `self` is borrowed exclusively. `place`
            // hands out a pointer that was not made from a reference.
            let to =
                unsafe { std::slice::from_raw_parts_mut(start.as_ptr().add(to.bytes.start), to.bytes.len()) };
            work(worker, index, from, to);
        });
    }
}

/// Memory of some blocks.
struct Slab {
    base: NonNull<u8>,
    bytes: usize,
    owner: Owner,
    used: usize,
}

/// Whom the memory goes back to.
enum Owner {
    Heap(Layout),
    #[cfg(feature = "mmap")]
    Map(#[allow(dead_code, reason = "dropping it unmaps")] memmap2::MmapMut),
    /// The blocks begin at this byte; the slab's base means nothing.
    Foreign(Foreign, usize),
}

// SAFETY: a slab owns its memory alone; views of it are borrowed from the arena.
unsafe impl Send for Slab {}
// SAFETY: as above; through a shared slab memory is only read, or written where `Arena::transfer` shows it disjoint.
unsafe impl Sync for Slab {}

impl Slab {
    /// Zeroed memory; `None` if the system has none.
    fn new(bytes: usize) -> Option<Self> {
        #[cfg(feature = "mmap")]
        if bytes >= HUGE
            && let Some(slab) = Self::map(bytes)
        {
            return Some(slab);
        }
        let layout = Layout::from_size_align(bytes.max(ALIGN), ALIGN).ok()?;
        // SAFETY: the layout's size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { base, bytes, owner: Owner::Heap(layout), used: 0 })
    }

    /// Anonymous memory, aligned to huge pages.
    #[cfg(feature = "mmap")]
    fn map(bytes: usize) -> Option<Self> {
        let mut map = memmap2::MmapMut::map_anon(bytes.checked_add(HUGE)?).ok()?;
        let start = map.as_mut_ptr();
        let skipped = start.align_offset(HUGE) % HUGE;
        // What is left of a huge page at the end would be memory that nobody counts, so it is none. A system without
        // huge pages refuses; the memory is as good, only slower.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::HugePage, skipped, bytes / HUGE * HUGE);
        // SAFETY: less than `HUGE` bytes are skipped, and the mapping is that much longer than `bytes`.
        let base = NonNull::new(unsafe { start.add(skipped) })?;
        Some(Self { base, bytes, owner: Owner::Map(map), used: 0 })
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if let Owner::Heap(layout) = self.owner {
            // SAFETY: allocated in `new` with this layout, and given back once.
            unsafe { dealloc(self.base.as_ptr(), layout) }
        }
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab").field("bytes", &self.bytes).field("used", &self.used).finish_non_exhaustive()
    }
}

/// Numbers that any bytes are.
pub(crate) trait Number: Copy {}

impl Number for f16 {}
impl Number for f32 {}

/// Aligned bytes as numbers in the machine's order.
///
/// # Panics
/// If the bytes are not aligned or no whole number of numbers.
pub(crate) fn numbers<T: Number>(bytes: &[u8]) -> &[T] {
    // SAFETY: every bit pattern is a value of f16 and f32, the only types with the trait, and neither has padding.
    let (before, numbers, after) = unsafe { bytes.align_to::<T>() };
    assert!(before.is_empty() && after.is_empty(), "aligned numbers");
    numbers
}

/// As [`numbers`], to write.
///
/// # Panics
/// As [`numbers`].
pub(crate) fn numbers_mut<T: Number>(bytes: &mut [u8]) -> &mut [T] {
    // SAFETY: as in `numbers`; every value of f16 and f32 is four or two bytes without padding.
    let (before, numbers, after) = unsafe { bytes.align_to_mut::<T>() };
    assert!(before.is_empty() && after.is_empty(), "aligned numbers");
    numbers
}
