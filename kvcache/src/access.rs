//! Rows in, pages out.

use crate::arena::{BlockId, Number, numbers, numbers_mut};
use crate::layout::{Cells, Place, Store};
use crate::schedule::RAW;
use crate::{Error, Half, KvCache, PAGE, SequenceId};
use half::f16;
use quant_kernels::Isa;
use quant_kernels::attention::{KeyPage, ValueDomains, ValuePage};
use quant_kernels::codecs::Codec;
use quant_kernels::store_f16::store_f16;

/// Rows to store.
struct Rows<'a> {
    layer: usize,
    half: Half,
    position: usize,
    heads: usize,
    dim: usize,
    values: &'a [f32],
}

impl KvCache {
    /// Stores consecutive positions of one layer from `position` on: `keys` is `[position][kv_head][key_dim]`, `values`
    /// is `[position][kv_head][value_dim]`; latent layers have no values of their own. `isa` rounds to f16; every tier gives the same bits. NaN and infinity are
    /// stored as they are: the logits show them, or sealing does.
    ///
    /// # Errors
    /// [`Error::NotReserved`] if a position is committed or not reserved, [`Error::Overflow`] if a value does
    /// not fit in f16, [`Error::RowLength`], [`Error::NoSuchHead`], [`Error::SharedLayer`], [`Error::UnknownSequence`].
    pub fn write(
        &mut self,
        isa: Isa,
        id: SequenceId,
        layer: usize,
        position: usize,
        keys: &[f32],
        values: &[f32],
    ) -> Result<(), Error> {
        let place = self.place(layer, 0)?;
        if place.shared {
            return Err(Error::SharedLayer { layer });
        }
        let shape = self.layout.layers[layer].shape;
        let heads = shape.kv_heads;
        let rows = |half, values, dim| Rows { layer, half, position, heads, dim, values };
        let keys = rows(Half::Key, keys, shape.key_dim);
        let values = rows(Half::Value, values, shape.value_dim);
        let count = keys.count(None)?;
        let latent = self.layout.layers[layer].latent.is_some();
        if !latent || !values.values.is_empty() {
            values.count(Some(count))?;
        }
        for at in position..position.saturating_add(count) {
            let block = self.writable(id, place.group, at)?;
            let cells = &self.layout.groups[place.group].forms[RAW].layers[place.slot];
            let bytes = self.arena.bytes_mut(block);
            keys.store(isa, at, &cells.keys, bytes)?;
            if !latent {
                values.store(isa, at, &cells.values, bytes)?;
            }
        }
        Ok(())
    }

    /// Appends one head's pages to `keys` and `values`, one for each page of the sequence up to that of the queries, in
    /// the forms that queries in page `queries` (position / 128) see. Pages that none of them sees are empty.
    ///
    /// # Errors
    /// [`Error::NotReserved`] if the sequence has no such page; [`Error::NotSealed`] if a page was not sealed, see
    /// [`KvCache::seal`]; [`Error::NoSuchHead`]; [`Error::UnknownSequence`].
    pub fn pages<'a>(
        &'a self,
        id: SequenceId,
        layer: usize,
        kv_head: usize,
        queries: usize,
        keys: &mut Vec<KeyPage<'a>>,
        values: &mut Vec<ValuePage<'a>>,
    ) -> Result<(), Error> {
        let sequence = self.sequence(id)?;
        let Place { group, slot, .. } = self.place(layer, kv_head)?;
        let (of, pages) = (&self.layout.groups[group], &self.pages[group]);
        let held = &sequence.tables[group].held;
        if queries >= held.len() {
            return Err(Error::NotReserved { position: queries.saturating_mul(PAGE), len: sequence.len });
        }
        for (index, held) in held.iter().enumerate().take(queries + 1) {
            let Some(form) = of.schedule.form(queries, index) else {
                keys.push(KeyPage::F16(&[]));
                values.push(ValuePage::F16(&[]));
                continue;
            };
            let ready =
                |id: &_| held.forms >> form & 1 == 1 && (form == RAW || pages.is_filled(*id, form, slot));
            let block = held.page.filter(ready).and_then(|id| pages.block(id, form));
            let bytes = self.arena.bytes(block.ok_or(Error::NotSealed { layer, page: index })?);
            let level = held.page.map_or(0, |id| pages.level(id, form));
            let cells = &of.layout(form, level).layers[slot];
            let (k, v) = (&bytes[cells.keys.of(kv_head)], &bytes[cells.values.of(kv_head)]);
            keys.push(match cells.keys.codec(kv_head) {
                Some(codec) => KeyPage::Coded { codec: &**codec, bytes: k },
                None if matches!(cells.keys.store, Store::F32) => KeyPage::F32(numbers(k)),
                None => KeyPage::F16(numbers(k)),
            });
            values.push(match cells.values.codec(kv_head) {
                Some(codec) => ValuePage::Coded { codec: &**codec, bytes: v },
                None if matches!(cells.values.store, Store::F32) => ValuePage::F32(numbers(v)),
                None => ValuePage::F16(numbers(v)),
            });
        }
        Ok(())
    }

    /// The domains that a layer's coded values are summed in.
    pub fn domains(&self, layer: usize) -> &ValueDomains {
        let place = self.layout.places.get(layer).copied().flatten();
        place.map_or(ValueDomains::none(), |place| &self.layout.groups[place.group].domains[place.slot])
    }

    pub(crate) fn place(&self, layer: usize, kv_head: usize) -> Result<Place, Error> {
        let exists = |place: &Place| kv_head < self.layout.groups[place.group].shapes[place.slot].kv_heads;
        self.layout
            .places
            .get(layer)
            .copied()
            .flatten()
            .filter(exists)
            .ok_or(Error::NoSuchHead { layer, kv_head })
    }

    /// The block that a position is written to.
    fn writable(&self, id: SequenceId, group: usize, position: usize) -> Result<BlockId, Error> {
        let sequence = self.sequence(id)?;
        let pages = &self.pages[group];
        let held = sequence.tables[group].held.get(position / PAGE);
        held.and_then(|held| held.page)
            .filter(|&page| position >= sequence.len && pages.holders(page) == 1)
            .and_then(|page| pages.block(page, RAW))
            .ok_or(Error::NotReserved { position, len: sequence.len })
    }
}

impl Rows<'_> {
    /// How many rows there are, which must be `expected` if that is known.
    fn count(&self, expected: Option<usize>) -> Result<usize, Error> {
        let width = self.heads * self.dim;
        let count = expected.unwrap_or(self.values.len() / width.max(1));
        let expected = width.saturating_mul(count);
        let got = self.values.len();
        if got == expected && count > 0 {
            return Ok(count);
        }
        let expected = if count > 0 && expected < got { expected + width } else { expected.max(width) };
        Err(Error::RowLength { layer: self.layer, half: self.half, expected, got })
    }

    /// Stores the row of a position.
    fn store<C: ?Sized + Codec>(
        &self,
        isa: Isa,
        position: usize,
        cells: &Cells<C>,
        block: &mut [u8],
    ) -> Result<(), Error> {
        let &Self { layer, half, heads, dim, .. } = self;
        let row = &self.values[(position - self.position) * heads * dim..][..heads * dim];
        for head in 0..heads {
            let from = &row[head * dim..][..dim];
            let to = &mut block[cells.of(head)];
            match cells.store {
                Store::F32 => own::<f32>(to, position, dim).copy_from_slice(from),
                _ => store_f16(isa, from, own::<f16>(to, position, dim)).map_err(|i| Error::Overflow {
                    layer,
                    position,
                    half,
                    value: from[i],
                })?,
            }
        }
        Ok(())
    }
}

/// A position's numbers in a head of a page as written.
fn own<T: Number>(head: &mut [u8], position: usize, dim: usize) -> &mut [T] {
    &mut numbers_mut(head)[position % PAGE * dim..][..dim]
}
