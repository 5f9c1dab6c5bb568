//! The pages of all sequences: a byte budget, reference counts, a free list.

use crate::{Error, KvType};
use half::f16;

/// Elements of one page.
#[derive(Debug, Clone)]
pub(crate) enum PageData {
    F16(Box<[f16]>),
    F32(Box<[f32]>),
}

impl PageData {
    fn zeroed(ty: KvType, elements: usize) -> Self {
        match ty {
            KvType::F16 => Self::F16(vec![f16::ZERO; elements].into()),
            KvType::F32 => Self::F32(vec![0.0; elements].into()),
        }
    }
}

/// A page of the pool. Only the pool makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageId(usize);

#[derive(Debug)]
struct Slot {
    refs: usize,
    data: PageData,
}

/// All pages. Released pages keep their memory for the next user.
#[derive(Debug)]
pub(crate) struct Pool {
    ty: KvType,
    elements: usize,
    budget: usize,
    slots: Vec<Slot>,
    free: Vec<PageId>,
}

impl Pool {
    pub fn new(ty: KvType, elements: usize, budget: usize) -> Self {
        Self { ty, elements, budget, slots: Vec::new(), free: Vec::new() }
    }

    pub fn page_bytes(&self) -> usize {
        self.elements * self.ty.bytes()
    }

    pub fn budget(&self) -> usize {
        self.budget
    }

    pub fn allocated(&self) -> usize {
        self.slots.len()
    }

    pub fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Bytes that pages in use leave of the budget.
    pub fn available_bytes(&self) -> usize {
        self.budget.saturating_sub(self.used() * self.page_bytes())
    }

    /// Fails unless `count` more pages can be taken.
    pub fn check(&self, count: usize) -> Result<(), Error> {
        let available = self.available_bytes();
        let needed = self.page_bytes().saturating_mul(count);
        if needed <= available {
            return Ok(());
        }
        Err(Error::OutOfMemory { needed, available, budget: self.budget })
    }

    /// A page with one reference; what it holds is left over. Call [`Pool::check`] first.
    pub fn take(&mut self) -> PageId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { refs: 0, data: PageData::zeroed(self.ty, self.elements) });
            PageId(self.slots.len() - 1)
        });
        self.slots[id.0].refs = 1;
        id
    }

    /// A page of its own with the same contents.
    pub fn copy(&mut self, from: PageId) -> PageId {
        let to = self.take();
        if let Ok([from, to]) = self.slots.get_disjoint_mut([from.0, to.0]) {
            match (&from.data, &mut to.data) {
                (PageData::F16(from), PageData::F16(to)) => to.copy_from_slice(from),
                (PageData::F32(from), PageData::F32(to)) => to.copy_from_slice(from),
                _ => unreachable!("a pool has one element type"),
            }
        }
        to
    }

    pub fn share(&mut self, id: PageId) {
        self.slots[id.0].refs += 1;
    }

    /// Drops one reference.
    pub fn release(&mut self, id: PageId) {
        let slot = &mut self.slots[id.0];
        slot.refs -= 1;
        if slot.refs == 0 {
            self.free.push(id);
        }
    }

    pub fn is_shared(&self, id: PageId) -> bool {
        self.slots[id.0].refs > 1
    }

    pub fn data(&self, id: PageId) -> &PageData {
        &self.slots[id.0].data
    }

    pub fn data_mut(&mut self, id: PageId) -> &mut PageData {
        &mut self.slots[id.0].data
    }
}
