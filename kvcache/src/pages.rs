//! The pages of a group of layers: which blocks hold their forms, and how many hold on to each.
//!
//! A page is shared by sequences with the same past. Each of them holds the forms that it may still need; a form's block
//! is free when nobody holds it, so what one sequence has sealed serves the others, and what one still needs as it was
//! written costs the others nothing.

use crate::Error;
use crate::arena::{Arena, BlockId};
use crate::schedule::{Forms, MAX_FORMS, RAW};

const NONE: u32 = u32::MAX;

/// A page of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PageId(u32);

#[derive(Debug, Clone, Copy)]
struct Slot {
    block: u32,
    holders: u32,
}

#[derive(Debug, Clone)]
struct Page {
    holders: u32,
    forms: [Slot; MAX_FORMS],
}

const EMPTY: Page = Page { holders: 0, forms: [Slot { block: NONE, holders: 0 }; MAX_FORMS] };

/// All pages of a group.
#[derive(Debug)]
pub(crate) struct Pages {
    /// The pool of each form.
    pools: Vec<u32>,
    layers: usize,
    pages: Vec<Page>,
    free: Vec<u32>,
    /// For each form and block, a bit for each layer that is in it.
    filled: Vec<Vec<u64>>,
}

/// The forms of a set, ascending.
pub(crate) fn each(forms: Forms) -> impl Iterator<Item = usize> {
    (0..MAX_FORMS).filter(move |form| forms >> form & 1 == 1)
}

impl Pages {
    pub fn new(pools: Vec<u32>, layers: usize) -> Self {
        let filled = vec![Vec::new(); pools.len()];
        Self { pools, layers, pages: Vec::new(), free: Vec::new(), filled }
    }

    /// The pool of a form.
    pub fn pool(&self, form: usize) -> u32 {
        self.pools[form]
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
        let index = self.pages[id.0 as usize].forms[form].block;
        (index != NONE).then(|| BlockId { pool: self.pools[form], index })
    }

    /// Holds one more form; its block is taken from the arena if nobody held it before.
    pub fn hold(&mut self, arena: &mut Arena, id: PageId, form: usize) -> Result<BlockId, Error> {
        let words = self.words();
        let slot = &mut self.pages[id.0 as usize].forms[form];
        if slot.block == NONE {
            slot.block = arena.take(self.pools[form])?.index;
            let bits = &mut self.filled[form];
            let start = slot.block as usize * words;
            bits.resize(bits.len().max(start + words), 0);
            bits[start..start + words].fill(0);
        }
        slot.holders += 1;
        Ok(BlockId { pool: self.pools[form], index: slot.block })
    }

    /// Gives a page a form whose block holds all layers already.
    pub fn adopt(&mut self, id: PageId, form: usize, block: BlockId) {
        self.set_full(form, block);
        self.pages[id.0 as usize].forms[form] = Slot { block: block.index, holders: 1 };
    }

    /// All layers were put into the block of a form.
    pub fn set_full(&mut self, form: usize, block: BlockId) {
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
            let slot = &mut self.pages[id.0 as usize].forms[form];
            slot.holders -= 1;
            if slot.holders == 0 {
                arena.release(BlockId { pool: self.pools[form], index: slot.block });
                slot.block = NONE;
            }
        }
    }

    /// Lets go of the page and of the forms held of it.
    pub fn release(&mut self, arena: &mut Arena, id: PageId, forms: Forms) {
        self.drop_forms(arena, id, forms);
        let page = &mut self.pages[id.0 as usize];
        page.holders -= 1;
        if page.holders == 0 {
            self.free.push(id.0);
        }
    }

    /// Whether a coded form of the page holds a layer.
    pub fn is_filled(&self, id: PageId, form: usize, layer: usize) -> bool {
        let start = self.pages[id.0 as usize].forms[form].block as usize * self.words();
        self.filled[form].get(start + layer / 64).is_some_and(|word| word >> (layer % 64) & 1 == 1)
    }

    /// Whether a form of the page holds all layers; as written it always does.
    pub fn is_full(&self, id: PageId, form: usize) -> bool {
        let start = self.pages[id.0 as usize].forms[form].block as usize * self.words();
        let bits = || self.filled[form].iter().skip(start).take(self.words());
        form == RAW || bits().map(|word| word.count_ones() as usize).sum::<usize>() == self.layers
    }

    /// A layer was put into the block of a form.
    pub fn set_filled(&mut self, form: usize, block: BlockId, layer: usize) {
        let start = block.index as usize * self.words();
        if let Some(word) = self.filled[form].get_mut(start + layer / 64) {
            *word |= 1 << (layer % 64);
        }
    }

    fn words(&self) -> usize {
        self.layers.div_ceil(64)
    }
}
