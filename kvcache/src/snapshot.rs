//! A sequence's memory as bytes to store, and back: mapped bytes are used where they lie.
//!
//! A part is all blocks of one form of one group, one after the other ([`crate::schedule`]); sealed forms never change, so
//! an imported sequence reads them from the caller's bytes, and only what was written last is copied. The bytes mean
//! something only to a cache with the same [`KvCache::describe`], and f16 and f32 are in the machine's byte order.

use crate::arena::{ALIGN, Foreign};
use crate::layout::{Cells, Layer};
use crate::pages::PageId;
use crate::schedule::{RAW, SEALED};
use crate::sequence::{Held, Sequence, Table};
use crate::shift::Turn;
use crate::state::StateTable;
use crate::{Error, KvCache, PAGE, SequenceId};
use quant_kernels::codecs::Codec;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::ops::Range;
use std::sync::Arc;

/// What a sequence is besides its blocks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Past {
    /// Positions.
    pub len: usize,
    /// The offsets of its pages, see [`KvCache::turns`].
    pub turns: Vec<Turn>,
    /// Its pages lost planes, see [`KvCache::is_reduced`].
    pub reduced: bool,
}

/// A sequence, to be stored.
#[derive(Debug)]
pub struct Export<'a> {
    /// What it is.
    pub past: Past,
    /// Its blocks.
    pub parts: Vec<ExportPart<'a>>,
}

/// The blocks of one form of one group of layers; or, of the group behind the last, states of recurrent layers, whose
/// `pages` are the positions that they are of.
#[derive(Debug)]
pub struct ExportPart<'a> {
    /// The group.
    pub group: usize,
    /// The form; those behind the last are the sealed one without some of its planes.
    pub form: usize,
    /// Which pages of the sequence, ascending.
    pub pages: Vec<u32>,
    /// A block for each of them, all of one size.
    pub blocks: Vec<Cow<'a, [u8]>>,
}

/// A range of bytes that live as long as anybody uses them: of a mapped file, for one.
#[derive(Clone)]
pub struct Bytes {
    memory: Foreign,
    range: Range<usize>,
}

impl Bytes {
    /// A range of some memory; `None` if it is not within it.
    pub fn new(memory: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Option<Self> {
        (*memory).as_ref().get(range.clone())?;
        Some(Self { memory, range })
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        (*self.memory).as_ref().get(self.range.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.range.len())
    }
}

/// What [`ExportPart`] was, read back.
#[derive(Debug, Clone)]
pub struct ImportPart {
    /// The group.
    pub group: usize,
    /// The form.
    pub form: usize,
    /// Which pages of the sequence.
    pub pages: Vec<u32>,
    /// Their blocks, one after the other.
    pub bytes: Bytes,
}

impl Past {
    /// Whether the offsets can be those of such a sequence.
    fn check(&self) -> Result<(), &'static str> {
        let ascend = self.turns.is_sorted_by(|a, b| a.first_page < b.first_page);
        // A straight sequence has none.
        let none = Turn { first_page: 0, offset: 0 };
        let starts = self.turns.first().is_none_or(|turn| turn.first_page == 0) && self.turns != [none];
        // No angle is of a position before the first, nor of one that no text has.
        let fits = |turn: &Turn| {
            let first =
                turn.first_page.checked_mul(PAGE).and_then(|first| first.checked_add_signed(turn.offset));
            turn.first_page <= self.len / PAGE && first.is_some_and(|first| first < u32::MAX as usize)
        };
        if ascend && starts && self.turns.iter().all(fits) {
            Ok(())
        } else {
            Err("its offsets are no sequence's")
        }
    }
}

impl ImportPart {
    /// Whether its blocks are used where they lie: they are never written, and aligned as our own.
    fn stays(&self) -> bool {
        self.form != RAW && self.bytes.as_ref().as_ptr().addr().is_multiple_of(ALIGN)
    }
}

impl KvCache {
    /// Writes everything that the bytes of a page depend on besides the model: two caches that are described alike
    /// understand each other's pages.
    ///
    /// # Errors
    /// As `out`.
    pub fn describe(&self, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "pages of {PAGE}, format {FORMAT}, {}", self.policy())?;
        writeln!(out, "{}", if cfg!(target_endian = "little") { "little-endian" } else { "big-endian" })?;
        for Layer { shape, window, source, balance, latent, state } in &self.layout.layers {
            writeln!(out, "{shape:?} {window:?} {source:?} {latent:?} {state}")?;
            for weight in balance.iter().flat_map(|balance| balance.iter()) {
                write!(out, "{:x} ", weight.to_bits())?;
            }
        }
        Ok(())
    }

    /// The blocks that a sequence holds, to be stored. What was not committed is not in it, nor is anything of another
    /// sequence.
    ///
    /// # Errors
    /// [`Error::Uncommitted`] if states of recurrent layers were changed since; [`Error::UnknownSequence`].
    pub fn export(&self, id: SequenceId) -> Result<Export<'_>, Error> {
        let sequence = self.sequence(id)?;
        let len = sequence.len;
        let mut parts = Vec::new();
        for (group, ((table, pages), of)) in
            sequence.tables.iter().zip(&self.pages).zip(&self.layout.groups).enumerate()
        {
            for (kind, (form, level)) in of.kinds().enumerate() {
                let mut part = ExportPart { group, form: kind, pages: Vec::new(), blocks: Vec::new() };
                for (index, held) in table.held.iter().enumerate().take(len.div_ceil(PAGE)) {
                    let here =
                        |page: &PageId| held.forms >> form & 1 == 1 && pages.level(*page, form) == level;
                    let Some(page) = held.page.filter(here) else { continue };
                    let whole = (index + 1) * PAGE <= len;
                    let Some(block) = pages.block(page, form).filter(|_| pages.is_full(page, form)) else {
                        continue;
                    };
                    let bytes = self.arena.bytes(block);
                    part.pages.push(index as u32);
                    if whole {
                        part.blocks.push(Cow::Borrowed(bytes));
                    } else if form == RAW {
                        part.blocks.push(Cow::Owned(self.committed_rows(group, bytes, len - index * PAGE)));
                    } else {
                        part.pages.pop();
                    }
                }
                if !part.pages.is_empty() {
                    parts.push(part);
                }
            }
        }
        if let Some(states) = &self.states {
            let (copies, group) = (sequence.state.export(len)?, self.layout.groups.len());
            let pages = copies.iter().map(|copy| copy.0 as u32).collect();
            let blocks = copies.iter().map(|copy| Cow::Borrowed(self.arena.bytes(copy.1))).collect();
            debug_assert!(copies.iter().all(|copy| copy.1.pool == states.pool()));
            parts.push(ExportPart { group, form: 0, pages, blocks });
        }
        let past = Past { len, turns: sequence.turns.clone(), reduced: sequence.reduced };
        Ok(Export { past, parts })
    }

    /// A block as written with zeros behind its first rows: what lies there may be of others.
    fn committed_rows(&self, group: usize, block: &[u8], rows: usize) -> Vec<u8> {
        fn keep<C: ?Sized + Codec>(cells: &Cells<C>, heads: usize, rows: usize, from: &[u8], to: &mut [u8]) {
            for head in 0..heads {
                let mut range = cells.of(head);
                range.end = range.start + range.len() / PAGE * rows;
                to[range.clone()].copy_from_slice(&from[range]);
            }
        }
        let of = &self.layout.groups[group];
        let mut out = vec![0; block.len()];
        for (cells, shape) in of.forms[RAW].layers.iter().zip(&of.shapes) {
            keep(&cells.keys, shape.kv_heads, rows, block, &mut out);
            keep(&cells.values, shape.kv_heads, rows, block, &mut out);
        }
        out
    }

    /// A sequence from what [`KvCache::export`] gave. Sealed blocks are read where they lie, if
    /// their bytes begin at a multiple of 64, and count neither as used nor against the budget; the others are copied.
    ///
    /// # Errors
    /// [`Error::Snapshot`] if the parts are not those of such a sequence of this cache; [`Error::OutOfMemory`].
    pub fn import(&mut self, past: &Past, parts: &[ImportPart]) -> Result<SequenceId, Error> {
        let bad = |problem| Error::Snapshot { problem };
        let len = past.len;
        past.check().map_err(bad)?;
        let count = len.div_ceil(PAGE);
        let listed: usize = parts.iter().map(|part| part.pages.len()).sum();
        if len == 0 || listed < count {
            return Err(bad("it does not hold as many pages as it has positions"));
        }
        let mut wanted = vec![0; self.arena.pools()];
        let mut sealed = BTreeSet::new();
        for (i, part) in parts.iter().enumerate() {
            if parts[..i].iter().any(|other| (other.group, other.form) == (part.group, part.form)) {
                return Err(bad("it holds pages twice"));
            }
            if let Some(states) = self.states.as_ref().filter(|_| part.group == self.layout.groups.len()) {
                let positions = part.pages.iter().map(|&position| position as usize);
                let ends = part.pages.last().is_some_and(|&last| last as usize == len);
                if part.form != 0 || !ends || !positions.is_sorted_by(|a, b| a < b) {
                    return Err(bad("its states are not in order"));
                }
                if part.pages.len().checked_mul(states.bytes()) != Some(part.bytes.as_ref().len()) {
                    return Err(bad("its states have another size"));
                }
                wanted[states.pool() as usize] += part.pages.len();
                continue;
            }
            let group = self.layout.groups.get(part.group).ok_or(bad("it has other groups of layers"))?;
            let (form, level) = group.kinds().nth(part.form).ok_or(bad("it has other forms of pages"))?;
            if level > 0 && !past.reduced {
                return Err(bad("it lacks planes without saying so"));
            }
            if !part.pages.is_sorted_by(|a, b| a < b)
                || part.pages.last().is_some_and(|&page| page as usize >= count)
            {
                return Err(bad("its pages are not in order"));
            }
            // Whole or reduced, a page is sealed once.
            if form == SEALED && part.pages.iter().any(|&page| !sealed.insert((part.group, page))) {
                return Err(bad("it holds pages twice"));
            }
            if part.pages.len().checked_mul(group.layout(form, level).bytes)
                != Some(part.bytes.as_ref().len())
            {
                return Err(bad("its pages have another size"));
            }
            if !part.stays() {
                wanted[self.pages[part.group].pool_at(form, level) as usize] += part.pages.len();
            }
        }
        while let Err(error) = self.arena.ensure(&wanted) {
            if !self.evict() && !self.relieve(&wanted)? {
                return Err(error);
            }
        }
        let mut tables: Vec<Vec<Held>> = Vec::with_capacity(self.pages.len());
        for pages in &mut self.pages {
            tables.push((0..count).map(|_| Held { page: Some(pages.create()), forms: 0 }).collect());
        }
        let mut result = Ok(());
        let mut state = StateTable::default();
        for part in parts {
            result = result.and_then(|()| match tables.get_mut(part.group) {
                Some(table) => self.import_part(part, table),
                None => self.import_states(part, &mut state),
            });
        }
        let tables = tables.into_iter().map(Table::from).collect();
        let turns = past.turns.clone();
        let id = self.insert(Sequence { len, tables, turns, reduced: past.reduced, state });
        // Pages without any form are those that a sliding window has left.
        let reached = result.and_then(|()| self.rewind(id, len));
        if reached == Ok(len) {
            return Ok(id);
        }
        self.release(id)?;
        Err(reached.err().unwrap_or(bad("it lacks pages that the next position sees")))
    }

    /// Takes the states of recurrent layers; the part was checked.
    fn import_states(&mut self, part: &ImportPart, table: &mut StateTable) -> Result<(), Error> {
        let Self { states: Some(states), arena, .. } = self else { return Ok(()) };
        let bytes = part.bytes.as_ref();
        let size = states.bytes().max(1);
        for (&position, bytes) in part.pages.iter().zip(bytes.chunks_exact(size)) {
            table.add(states, arena, position as usize, bytes)?;
        }
        Ok(())
    }

    /// Gives the pages of a table a form; the part was checked, and its form is new to them.
    fn import_part(&mut self, part: &ImportPart, table: &mut [Held]) -> Result<(), Error> {
        let Self { layout, arena, pages, .. } = self;
        let Some((form, level)) = layout.groups[part.group].kinds().nth(part.form) else { return Ok(()) };
        let pages = &mut pages[part.group];
        let bytes = part.bytes.as_ref();
        let blocks = if part.stays() {
            arena.adopt(pages.pool_at(form, level), &part.bytes.memory, part.bytes.range.clone())
        } else {
            Vec::new()
        };
        let size = bytes.len() / part.pages.len().max(1);
        for (i, &index) in part.pages.iter().enumerate() {
            let held = &mut table[index as usize];
            let Some(page) = held.page else { continue };
            match blocks.get(i) {
                Some(&block) => pages.adopt(page, form, level, block),
                None => {
                    let to = pages.hold_at(arena, page, form, level)?;
                    arena.bytes_mut(to).copy_from_slice(&bytes[i * size..][..size]);
                    pages.set_full(form, to);
                }
            }
            held.forms |= 1 << form;
        }
        Ok(())
    }
}

/// Grows whenever the bytes of some form change.
const FORMAT: u32 = 1;
