//! The pages of a group of layers: which blocks hold their forms, and how many hold on to each.
//!
//! A page is shared by sequences with the same past. Each of them holds the forms that it may still need; a form's block
//! is free when nobody holds it, so what one sequence has sealed serves the others, and what one still needs as it was
//! written costs the others nothing.
//!
//! The first sealed form may be reduced: at a level above 0 its block is a smaller one, without low planes
//! (`pressure.rs`).

use crate::Error;
use crate::arena::{Arena, BlockId};
use crate::schedule::{Forms, MAX_FORMS, RAW, SEALED};
use crate::spill::SpillKey;
use std::collections::BTreeMap;

const NONE: u32 = u32::MAX;

/// A page of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PageId(u32);

#[derive(Debug, Clone, Copy)]
struct Slot {
    block: u32,
    holders: u32,
    level: u8,
}

/// What a page has lost at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost {
    /// The level it had before.
    pub from: usize,
    /// Where the planes are kept.
    pub key: SpillKey,
}

#[derive(Debug, Clone)]
struct Page {
    holders: u32,
    forms: [Slot; MAX_FORMS],
    /// What can come back, the last loss last.
    lost: Vec<Lost>,
    /// Its share of the attention of late.
    mass: f32,
}

const EMPTY: Page = Page {
    holders: 0,
    forms: [Slot { block: NONE, holders: 0, level: 0 }; MAX_FORMS],
    lost: Vec::new(),
    mass: 0.0,
};

/// All pages of a group.
#[derive(Debug)]
pub(crate) struct Pages {
    /// The pools of each form, by level.
    pools: Vec<Vec<u32>>,
    layers: usize,
    pages: Vec<Page>,
    free: Vec<u32>,
    /// For each form and block of level 0, a bit for each layer that is in it.
    filled: Vec<Vec<u64>>,
    /// What is still kept of pages that are gone.
    orphans: Vec<SpillKey>,
}

/// The forms of a set, ascending.
pub(crate) fn each(forms: Forms) -> impl Iterator<Item = usize> {
    (0..MAX_FORMS).filter(move |form| forms >> form & 1 == 1)
}

impl Pages {
    pub fn new(pools: Vec<Vec<u32>>, layers: usize) -> Self {
        let filled = vec![Vec::new(); pools.len()];
        Self { pools, layers, pages: Vec::new(), free: Vec::new(), filled, orphans: Vec::new() }
    }

    /// The pool of a whole form.
    pub fn pool(&self, form: usize) -> u32 {
        self.pools[form][0]
    }

    /// The pool of a form at a level.
    pub fn pool_at(&self, form: usize, level: usize) -> u32 {
        self.pools[form][level]
    }

    /// Pages that somebody holds.
    pub fn live(&self) -> usize {
        self.pages.len() - self.free.len()
    }

    /// A page with one holder and no form yet.
    pub fn create(&mut self) -> PageId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.pages.push(EMPTY);
            (self.pages.len() - 1) as u32
        });
        self.pages[index as usize].holders = 1;
        PageId(index)
    }

    /// Who holds the page.
    pub fn holders(&self, id: PageId) -> usize {
        self.pages[id.0 as usize].holders as usize
    }

    /// Who holds a form of the page.
    pub fn holders_of(&self, id: PageId, form: usize) -> usize {
        self.pages[id.0 as usize].forms[form].holders as usize
    }

    /// One more holder, of these forms.
    pub fn share(&mut self, id: PageId, forms: Forms) {
        let page = &mut self.pages[id.0 as usize];
        page.holders += 1;
        for form in each(forms) {
            page.forms[form].holders += 1;
        }
    }

    /// The block of a form, if there is one.
    pub fn block(&self, id: PageId, form: usize) -> Option<BlockId> {
        let Slot { block, level, .. } = self.pages[id.0 as usize].forms[form];
        (block != NONE).then(|| BlockId { pool: self.pools[form][usize::from(level)], index: block })
    }

    /// The level of a form.
    pub fn level(&self, id: PageId, form: usize) -> usize {
        usize::from(self.pages[id.0 as usize].forms[form].level)
    }

    /// Holds one more form; its block is taken from the arena if nobody held it before.
    pub fn hold(&mut self, arena: &mut Arena, id: PageId, form: usize) -> Result<BlockId, Error> {
        self.hold_at(arena, id, form, 0)
    }

    /// The same; a block that is taken is one of this level.
    pub fn hold_at(
        &mut self,
        arena: &mut Arena,
        id: PageId,
        form: usize,
        level: usize,
    ) -> Result<BlockId, Error> {
        let words = self.words();
        let slot = &mut self.pages[id.0 as usize].forms[form];
        if slot.block == NONE {
            slot.block = arena.take(self.pools[form][level])?.index;
            slot.level = level as u8;
            if level == 0 {
                let bits = &mut self.filled[form];
                let start = slot.block as usize * words;
                bits.resize(bits.len().max(start + words), 0);
                bits[start..start + words].fill(0);
            }
        }
        slot.holders += 1;
        Ok(BlockId { pool: self.pools[form][usize::from(slot.level)], index: slot.block })
    }

    /// Gives a page a form whose block, of this level, holds all layers already.
    pub fn adopt(&mut self, id: PageId, form: usize, level: usize, block: BlockId) {
        self.pages[id.0 as usize].forms[form] = Slot { block: block.index, holders: 1, level: level as u8 };
        self.set_full(form, block);
    }

    /// All layers were put into the block of a form.
    pub fn set_full(&mut self, form: usize, block: BlockId) {
        if block.pool != self.pool(form) {
            return;
        }
        let words = self.words();
        let bits = &mut self.filled[form];
        let start = block.index as usize * words;
        bits.resize(bits.len().max(start + words), 0);
        for (i, word) in bits[start..start + words].iter_mut().enumerate() {
            let left = self.layers - i * 64;
            *word = if left >= 64 { !0 } else { (1 << left) - 1 };
        }
    }

    /// Lets go of some forms; blocks that nobody holds any more are free.
    pub fn drop_forms(&mut self, arena: &mut Arena, id: PageId, forms: Forms) {
        for form in each(forms) {
            let page = &mut self.pages[id.0 as usize];
            let slot = &mut page.forms[form];
            slot.holders -= 1;
            if slot.holders == 0 {
                let pool = self.pools[form][usize::from(slot.level)];
                if slot.block != NONE {
                    arena.release(BlockId { pool, index: slot.block });
                }
                *slot = Slot { block: NONE, holders: 0, level: 0 };
                if form == SEALED {
                    self.orphans.extend(page.lost.drain(..).map(|lost| lost.key));
                }
            }
        }
    }

    /// Lets go of the page and of the forms held of it.
    pub fn release(&mut self, arena: &mut Arena, id: PageId, forms: Forms) {
        self.drop_forms(arena, id, forms);
        let page = &mut self.pages[id.0 as usize];
        page.holders -= 1;
        if page.holders == 0 {
            page.mass = 0.0;
            self.free.push(id.0);
        }
    }

    /// Whether a coded form of the page holds a layer.
    pub fn is_filled(&self, id: PageId, form: usize, layer: usize) -> bool {
        let Slot { block, level, .. } = self.pages[id.0 as usize].forms[form];
        let start = block as usize * self.words();
        level > 0
            || self.filled[form].get(start + layer / 64).is_some_and(|word| word >> (layer % 64) & 1 == 1)
    }

    /// Whether a form of the page holds all layers; as written it always does.
    pub fn is_full(&self, id: PageId, form: usize) -> bool {
        let Slot { block, level, .. } = self.pages[id.0 as usize].forms[form];
        let start = block as usize * self.words();
        let bits = || self.filled[form].iter().skip(start).take(self.words());
        form == RAW
            || level > 0
            || bits().map(|word| word.count_ones() as usize).sum::<usize>() == self.layers
    }

    /// A layer was put into the block of a form.
    pub fn set_filled(&mut self, form: usize, block: BlockId, layer: usize) {
        let start = block.index as usize * self.words();
        if let Some(word) = self.filled[form].get_mut(start + layer / 64) {
            *word |= 1 << (layer % 64);
        }
    }

    /// Its share of the attention of late.
    pub fn mass(&self, id: PageId) -> f32 {
        self.pages[id.0 as usize].mass
    }

    /// Sets it.
    pub fn set_mass(&mut self, id: PageId, mass: f32) {
        self.pages[id.0 as usize].mass = mass;
    }

    /// What the page lost last, if that is kept.
    pub fn last_loss(&self, id: PageId) -> Option<Lost> {
        self.pages[id.0 as usize].lost.last().copied()
    }

    /// Takes the block of the sealed form away, for another one to come.
    pub fn take_sealed(&mut self, arena: &mut Arena, id: PageId) {
        let slot = &mut self.pages[id.0 as usize].forms[SEALED];
        if slot.block != NONE {
            let pool = self.pools[SEALED][usize::from(slot.level)];
            arena.release(BlockId { pool, index: slot.block });
            slot.block = NONE;
        }
    }

    /// The block of the sealed form at a lower level, and what was lost by that, if it is kept.
    pub fn reduce(&mut self, id: PageId, level: usize, block: BlockId, lost: Option<Lost>) {
        let page = &mut self.pages[id.0 as usize];
        page.forms[SEALED] = Slot { block: block.index, level: level as u8, ..page.forms[SEALED] };
        match lost {
            Some(lost) => page.lost.push(lost),
            // What was lost before can't come back either.
            None => self.orphans.extend(page.lost.drain(..).map(|lost| lost.key)),
        }
    }

    /// The block of the sealed form at the level that it had before its last loss.
    pub fn restore(&mut self, id: PageId, block: BlockId) {
        let page = &mut self.pages[id.0 as usize];
        if let Some(lost) = page.lost.pop() {
            page.forms[SEALED] = Slot { block: block.index, level: lost.from as u8, ..page.forms[SEALED] };
            self.set_full(SEALED, block);
        }
    }

    /// Keys of what is kept of pages that are gone.
    pub fn orphans(&mut self) -> std::vec::Drain<'_, SpillKey> {
        self.orphans.drain(..)
    }

    /// Puts blocks together, so that as few slabs as possible are in use.
    pub fn compact(&mut self, arena: &mut Arena) {
        for form in 0..self.pools.len() {
            for level in 0..self.pools[form].len() {
                let moved: BTreeMap<u32, u32> = arena.compact(self.pools[form][level]).into_iter().collect();
                if moved.is_empty() {
                    continue;
                }
                let words = self.words();
                for page in &mut self.pages {
                    let slot = &mut page.forms[form];
                    let Some(&to) = moved.get(&slot.block).filter(|_| usize::from(slot.level) == level)
                    else {
                        continue;
                    };
                    let (old, new) = (slot.block as usize * words, to as usize * words);
                    slot.block = to;
                    let bits = &mut self.filled[form];
                    if level == 0 && bits.len() >= old + words {
                        bits.resize(bits.len().max(new + words), 0);
                        bits.copy_within(old..old + words, new);
                    }
                }
            }
        }
    }

    fn words(&self) -> usize {
        self.layers.div_ceil(64)
    }
}
