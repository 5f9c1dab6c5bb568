//! Sequences: tables of pages, with forks, appends in two steps (reserve and write, then commit) and rewinding.

use crate::layout::Layout;
use crate::pool::{PageData, PageId, Pool};
use crate::{Error, Half, KvType, LayerShape, PAGE};
use quant_kernels::Isa;
use quant_kernels::attention::{KeyPage, ValuePage};
use quant_kernels::store_f16::store_f16;

/// Names a sequence of one cache. An id that was released never names another sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId {
    index: u32,
    generation: u32,
}

/// Memory of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Sequences that live.
    pub sequences: usize,
    /// Bytes of pages that sequences hold, shared pages counted once.
    pub used_bytes: usize,
    /// Bytes of all pages that were ever needed at once; free ones are kept for reuse.
    pub allocated_bytes: usize,
    /// The most that `used_bytes` and `allocated_bytes` may be.
    pub budget_bytes: usize,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    sequence: Option<Sequence>,
}

#[derive(Debug, Default, Clone)]
struct Sequence {
    len: usize,
    pages: Vec<PageId>,
}

/// The keys and values of many sequences.
#[derive(Debug)]
pub struct KvCache {
    ty: KvType,
    layout: Layout,
    pool: Pool,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl KvCache {
    /// An empty cache for these layers. Pages are allocated as they are needed, `budget_bytes` at the most.
    ///
    /// # Errors
    /// [`Error::LayoutTooLarge`] if a page of such layers can't exist.
    pub fn new(layers: Vec<LayerShape>, ty: KvType, budget_bytes: usize) -> Result<Self, Error> {
        let layout = Layout::new(&layers)?;
        let pool = Pool::new(ty, layout.elements, budget_bytes);
        Ok(Self { ty, layout, pool, slots: Vec::new(), free: Vec::new() })
    }

    /// How elements are stored.
    pub fn kv_type(&self) -> KvType {
        self.ty
    }

    /// The shape of a layer.
    pub fn layer(&self, layer: usize) -> Option<LayerShape> {
        self.layout.layers.get(layer).map(|place| place.shape)
    }

    /// Layers.
    pub fn layers(&self) -> usize {
        self.layout.layers.len()
    }

    /// Bytes of a page: [`PAGE`] positions of all layers.
    pub fn page_bytes(&self) -> usize {
        self.pool.page_bytes()
    }

    /// Memory in use.
    pub fn stats(&self) -> Stats {
        Stats {
            sequences: self.slots.len() - self.free.len(),
            used_bytes: self.pool.used() * self.pool.page_bytes(),
            allocated_bytes: self.pool.allocated() * self.pool.page_bytes(),
            budget_bytes: self.pool.budget(),
        }
    }

    /// A new, empty sequence. It takes no page until something is reserved.
    pub fn create(&mut self) -> SequenceId {
        self.insert(Sequence::default())
    }

    /// A sequence with the same past, sharing its pages. Positions that are not committed are not inherited.
    ///
    /// # Errors
    /// [`Error::UnknownSequence`].
    pub fn fork(&mut self, id: SequenceId) -> Result<SequenceId, Error> {
        let parent = self.sequence(id)?;
        let len = parent.len;
        let pages = parent.pages[..len.div_ceil(PAGE)].to_vec();
        for &page in &pages {
            self.pool.share(page);
        }
        Ok(self.insert(Sequence { len, pages }))
    }

    /// Forgets a sequence; pages that no other sequence shares are free at once.
    ///
    /// # Errors
    /// [`Error::UnknownSequence`].
    pub fn release(&mut self, id: SequenceId) -> Result<(), Error> {
        let slot = self.slot_mut(id)?;
        let sequence = slot.sequence.take().unwrap_or_default();
        // An id is never given twice: a slot whose generations are used up is retired.
        if let Some(generation) = slot.generation.checked_add(1) {
            slot.generation = generation;
            self.free.push(id.index);
        }
        for page in sequence.pages {
            self.pool.release(page);
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

    /// Makes the next `count` positions writable: allocates pages, and copies the last one if a fork shares it.
    /// Either all of it happens or nothing.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the budget does not hold the pages; [`Error::UnknownSequence`].
    pub fn reserve(&mut self, id: SequenceId, count: usize) -> Result<(), Error> {
        let sequence = self.sequence(id)?;
        if count == 0 {
            return Ok(());
        }
        let (len, have) = (sequence.len, sequence.pages.len());
        let positions = len.checked_add(count).ok_or(Error::TooManyPositions { positions: usize::MAX })?;
        // Pages past the last committed position are never shared: forks take committed pages only.
        let tail = (!len.is_multiple_of(PAGE)).then(|| (len / PAGE, sequence.pages[len / PAGE]));
        let copied = tail.filter(|&(_, page)| self.pool.is_shared(page));
        let missing = positions.div_ceil(PAGE).saturating_sub(have);
        self.pool.check(missing + usize::from(copied.is_some()))?;

        let copied = copied.map(|(index, page)| {
            let own = self.pool.copy(page);
            self.pool.release(page);
            (index, own)
        });
        let new: Vec<PageId> = (0..missing).map(|_| self.pool.take()).collect();
        let sequence = self.sequence_mut(id)?;
        if let Some((index, page)) = copied {
            sequence.pages[index] = page;
        }
        sequence.pages.extend(new);
        Ok(())
    }

    /// Stores one position of one layer: `keys` is `[kv_head][key_dim]`, `values` is `[kv_head][value_dim]`. `isa`
    /// rounds to f16; every tier gives the same bits. NaN and infinity are stored as they are: the logits show them.
    ///
    /// # Errors
    /// [`Error::NotReserved`] if the position is committed or not reserved, [`Error::Overflow`] if a value does
    /// not fit in f16, [`Error::RowLength`], [`Error::NoSuchHead`], [`Error::UnknownSequence`].
    pub fn write(
        &mut self,
        isa: Isa,
        id: SequenceId,
        layer: usize,
        position: usize,
        keys: &[f32],
        values: &[f32],
    ) -> Result<(), Error> {
        let sequence = self.sequence(id)?;
        let len = sequence.len;
        let page = sequence
            .pages
            .get(position / PAGE)
            .copied()
            .filter(|&page| position >= len && !self.pool.is_shared(page))
            .ok_or(Error::NotReserved { position, len })?;
        let place = self.layout.layers.get(layer).ok_or(Error::NoSuchHead { layer, kv_head: 0 })?;
        let shape = place.shape;
        for (half, got, dim) in
            [(Half::Key, keys.len(), shape.key_dim), (Half::Value, values.len(), shape.value_dim)]
        {
            let expected = shape.kv_heads * dim;
            if got != expected {
                return Err(Error::RowLength { layer, half, expected, got });
            }
        }
        let data = self.pool.data_mut(page);
        let row = position % PAGE;
        for head in 0..shape.kv_heads {
            for (half, place, from, dim) in [
                (Half::Key, place.keys(head), keys, shape.key_dim),
                (Half::Value, place.values(head), values, shape.value_dim),
            ] {
                let from = &from[head * dim..][..dim];
                let to = place.start + row * dim;
                match data {
                    PageData::F16(data) => store_f16(isa, from, &mut data[to..][..dim])
                        .map_err(|i| Error::Overflow { layer, position, half, value: from[i] })?,
                    PageData::F32(data) => data[to..][..dim].copy_from_slice(from),
                }
            }
        }
        Ok(())
    }

    /// Makes the next `count` positions part of the sequence, once all layers have been written.
    ///
    /// # Errors
    /// [`Error::CommitPastReserved`], [`Error::UnknownSequence`].
    pub fn commit(&mut self, id: SequenceId, count: usize) -> Result<(), Error> {
        let sequence = self.sequence_mut(id)?;
        let (len, capacity) = (sequence.len, sequence.pages.len() * PAGE);
        sequence.len = len
            .checked_add(count)
            .filter(|&len| len <= capacity)
            .ok_or(Error::CommitPastReserved { count, len, capacity })?;
        Ok(())
    }

    /// Forgets the positions from `len` on, and what is reserved past them. Returns the length that could be
    /// reached, from which an append gives what a straight run would have: the smaller of `len` and what there is.
    ///
    /// # Errors
    /// [`Error::UnknownSequence`].
    pub fn rewind(&mut self, id: SequenceId, len: usize) -> Result<usize, Error> {
        let sequence = self.sequence_mut(id)?;
        sequence.len = sequence.len.min(len);
        let reached = sequence.len;
        let dropped = sequence.pages.split_off(reached.div_ceil(PAGE).min(sequence.pages.len()));
        for page in dropped {
            self.pool.release(page);
        }
        Ok(reached)
    }

    /// Appends one head's pages to `keys` and `values`: those that hold the first `positions` positions,
    /// committed or just written.
    ///
    /// # Errors
    /// [`Error::NotReserved`] if the sequence has no such positions; [`Error::NoSuchHead`];
    /// [`Error::UnknownSequence`].
    pub fn pages<'a>(
        &'a self,
        id: SequenceId,
        layer: usize,
        kv_head: usize,
        positions: usize,
        keys: &mut Vec<KeyPage<'a>>,
        values: &mut Vec<ValuePage<'a>>,
    ) -> Result<(), Error> {
        let sequence = self.sequence(id)?;
        let place = self
            .layout
            .layers
            .get(layer)
            .filter(|place| kv_head < place.shape.kv_heads)
            .ok_or(Error::NoSuchHead { layer, kv_head })?;
        let pages = sequence
            .pages
            .get(..positions.div_ceil(PAGE))
            .ok_or(Error::NotReserved { position: positions.saturating_sub(1), len: sequence.len })?;
        for &page in pages {
            let (k, v) = match self.pool.data(page) {
                PageData::F16(data) => {
                    (KeyPage::F16(&data[place.keys(kv_head)]), ValuePage::F16(&data[place.values(kv_head)]))
                }
                PageData::F32(data) => {
                    (KeyPage::F32(&data[place.keys(kv_head)]), ValuePage::F32(&data[place.values(kv_head)]))
                }
            };
            keys.push(k);
            values.push(v);
        }
        Ok(())
    }

    fn insert(&mut self, sequence: Sequence) -> SequenceId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.sequence = Some(sequence);
        SequenceId { index, generation: slot.generation }
    }

    fn sequence(&self, id: SequenceId) -> Result<&Sequence, Error> {
        self.slots
            .get(id.index as usize)
            .filter(|slot| slot.generation == id.generation)
            .and_then(|slot| slot.sequence.as_ref())
            .ok_or(unknown(id))
    }

    fn slot_mut(&mut self, id: SequenceId) -> Result<&mut Slot, Error> {
        self.slots
            .get_mut(id.index as usize)
            .filter(|slot| slot.generation == id.generation && slot.sequence.is_some())
            .ok_or(unknown(id))
    }

    fn sequence_mut(&mut self, id: SequenceId) -> Result<&mut Sequence, Error> {
        self.slot_mut(id)?.sequence.as_mut().ok_or(unknown(id))
    }
}

fn unknown(id: SequenceId) -> Error {
    Error::UnknownSequence { index: id.index, generation: id.generation }
}
