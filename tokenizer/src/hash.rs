//! The two hash tables of a vocabulary: text to id, and pair of ids to merge. Open addressing over flat arrays:
//! a vocabulary of 250,000 tokens and as many merges builds in milliseconds and owns two allocations.
//!
//! The keys are the file's; texts are only looked up. So the hash needs to be quick, not keyed.

/// The id that no token has.
pub(crate) const NONE: u32 = u32::MAX;

/// Ids take the lower 24 bits of a slot (plus one: zero is an empty slot), a piece of the hash the upper 8.
pub(crate) const MAX_TOKENS: usize = (1 << 24) - 2;

const ID_BITS: u32 = 24;
const ID_MASK: u32 = (1 << ID_BITS) - 1;

/// Most merges: a slot holds one's number in the same way.
pub(crate) const MAX_MERGES: usize = MAX_TOKENS;

/// Multiply to 128 bits and fold: every input bit reaches every output bit.
fn fold(word: u64) -> u64 {
    let product = u128::from(word ^ 0x9E37_79B9_7F4A_7C15) * u128::from(0xD6E8_FEB8_6659_FD93_u64);
    (product as u64) ^ ((product >> 64) as u64)
}

fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut state = bytes.len() as u64;
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word));
    }
    let mut tail = [0; 8];
    tail[..rest.len()].copy_from_slice(rest);
    fold(state ^ u64::from_le_bytes(tail))
}

/// Slots for `count` entries at a load of at most two thirds: a power of two.
fn slots_for(count: usize) -> usize {
    (count + count / 2 + 1).next_power_of_two().max(16)
}

/// Text to token id. The texts stay with the vocabulary; a slot holds an id and 8 bits of the hash, so that a
/// lookup that fails rarely touches a text.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextIndex {
    slots: Vec<u32>,
    used: usize,
}

impl TextIndex {
    pub(crate) fn with_capacity(tokens: usize) -> Self {
        Self { slots: vec![0; slots_for(tokens)], used: 0 }
    }

    /// The id of `bytes`, where `text` gives the bytes of an id.
    pub(crate) fn get<'a>(&self, bytes: &[u8], text: impl Fn(u32) -> &'a [u8]) -> Option<u32> {
        self.find(bytes, text).ok()
    }

    /// Adds `id` for `bytes` unless the text is there already: the first of two equal tokens is the one found.
    pub(crate) fn insert<'a>(&mut self, bytes: &[u8], id: u32, text: impl Fn(u32) -> &'a [u8]) {
        if slots_for(self.used + 1) > self.slots.len() {
            let old = std::mem::take(self);
            *self = Self::with_capacity((old.used + 1) * 2);
            for slot in old.slots.into_iter().filter(|&slot| slot != 0) {
                let known = (slot & ID_MASK) - 1;
                self.place(text(known), known, &text);
            }
        }
        self.place(bytes, id, text);
    }

    fn place<'a>(&mut self, bytes: &[u8], id: u32, text: impl Fn(u32) -> &'a [u8]) {
        if let Err((position, tag)) = self.find(bytes, text) {
            self.slots[position] = (tag << ID_BITS) | (id + 1);
            self.used += 1;
        }
    }

    /// The id, or else the empty slot and the tag to put there.
    fn find<'a>(&self, bytes: &[u8], text: impl Fn(u32) -> &'a [u8]) -> Result<u32, (usize, u32)> {
        let hash = hash(bytes);
        let tag = (hash >> 56) as u32;
        let mask = self.slots.len().wrapping_sub(1);
        let mut position = hash as usize & mask;
        loop {
            // The load limit leaves empty slots, so the walk ends; a table without slots holds nothing.
            let Some(&slot) = self.slots.get(position) else { return Err((0, tag)) };
            if slot == 0 {
                return Err((position, tag));
            }
            let id = (slot & ID_MASK) - 1;
            if slot >> ID_BITS == tag && text(id) == bytes {
                return Ok(id);
            }
            position = (position + 1) & mask;
        }
    }
}

/// What a pair of neighbouring tokens becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Merge {
    /// Lower merges first.
    pub(crate) rank: u32,
    /// The token that replaces the pair.
    pub(crate) id: u32,
}

/// A merge and the pair that it is for.
#[derive(Debug, Clone, Copy)]
struct Rule {
    left: u32,
    right: u32,
    merge: Merge,
}

/// Pair of token ids to merge. The rules lie in the order in which they came; a slot holds the number of one and 8
/// bits of the hash, so that the table that lookups hit at random is small and one that fails rarely reads a rule.
#[derive(Debug, Clone)]
pub(crate) struct PairMap {
    slots: Vec<u32>,
    rules: Vec<Rule>,
}

impl PairMap {
    pub(crate) fn with_capacity(merges: usize) -> Self {
        let merges = merges.min(MAX_MERGES);
        Self { slots: vec![0; slots_for(merges)], rules: Vec::with_capacity(merges) }
    }

    /// What `left` and `right` merge to.
    #[inline]
    pub(crate) fn get(&self, left: u32, right: u32) -> Option<Merge> {
        self.find(left, right).ok()
    }

    /// Adds a merge; the first of two for the same pair stays. False if there are [`MAX_MERGES`] already.
    #[must_use]
    pub(crate) fn insert(&mut self, left: u32, right: u32, merge: Merge) -> bool {
        if slots_for(self.rules.len() + 1) > self.slots.len() {
            self.slots = vec![0; self.slots.len() * 2];
            for number in 0..self.rules.len() {
                let Rule { left, right, .. } = self.rules[number];
                // It is not there yet: no two rules are for one pair.
                if let Err((position, tag)) = self.find(left, right) {
                    self.slots[position] = (tag << ID_BITS) | (number as u32 + 1);
                }
            }
        }
        if let Err((position, tag)) = self.find(left, right) {
            if self.rules.len() == MAX_MERGES {
                return false;
            }
            self.rules.push(Rule { left, right, merge });
            self.slots[position] = (tag << ID_BITS) | self.rules.len() as u32;
        }
        true
    }

    /// The merge, or else the empty slot and the tag to put there. There is always an empty slot.
    #[inline]
    fn find(&self, left: u32, right: u32) -> Result<Merge, (usize, u32)> {
        // The upper half of the product depends on both ids: 24 bits and more choose the slot, the 8 below the tag.
        let hash = ((u64::from(left) << 32) | u64::from(right)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let tag = (hash >> 24) as u32 & 0xFF;
        let mask = self.slots.len() - 1;
        let mut position = (hash >> 32) as usize & mask;
        loop {
            let slot = self.slots[position];
            if slot == 0 {
                return Err((position, tag));
            }
            if slot >> ID_BITS == tag {
                let rule = &self.rules[(slot & ID_MASK) as usize - 1];
                if (rule.left, rule.right) == (left, right) {
                    return Ok(rule.merge);
                }
            }
            position = (position + 1) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_index_finds_what_was_put_in_and_grows() {
        let texts: Vec<Vec<u8>> = (0..5000_u32).map(|i| format!("t{}", i * 7).into_bytes()).collect();
        let text = |id: u32| texts[id as usize].as_slice();
        let mut index = TextIndex::default();
        assert_eq!(index.get(b"t0", text), None);
        for (id, bytes) in texts.iter().enumerate() {
            index.insert(bytes, id as u32, text);
        }
        for (id, bytes) in texts.iter().enumerate() {
            assert_eq!(index.get(bytes, text), Some(id as u32));
        }
        assert_eq!(index.get(b"t1", text), None);
        assert_eq!(index.get(b"", text), None);
    }

    #[test]
    fn pair_map_keeps_the_first_of_two() {
        let mut map = PairMap::with_capacity(0);
        for i in 0..1000 {
            assert!(map.insert(i, i * 3, Merge { rank: i, id: i + 1 }));
        }
        assert!(map.insert(5, 15, Merge { rank: 0, id: 0 }));
        for i in 0..1000 {
            assert_eq!(map.get(i, i * 3), Some(Merge { rank: i, id: i + 1 }));
        }
        assert_eq!(map.get(5, 16), None);
        assert_eq!(map.get(NONE, NONE), None);
    }
}
