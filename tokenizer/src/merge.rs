//! Merging neighbours into tokens, best pair first: the loop that byte-level BPE and SentencePiece share.
//!
//! Symbols are a linked list and the candidates a heap, so a text of n characters takes O(n log n) whatever it is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::hash::NONE;

/// A stretch of the text that is one token, or one character on its way to become part of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol {
    /// The token, or [`NONE`] for a character that is none.
    pub(crate) id: u32,
    /// Where it begins.
    pub(crate) start: u32,
    /// Bytes; zero once it has been merged into its left neighbour.
    pub(crate) len: u32,
    previous: u32,
    next: u32,
}

/// A pair that could be merged. It's stale if either side has changed since, and then the lengths don't add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// Priority (lower first), then the index of the left symbol: ties go to the leftmost pair.
    order: u64,
    right: u32,
    len: u32,
    id: u32,
}

/// A list of symbols and its work queue, kept between calls for their allocations.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// The most bytes that one call may be given: symbols count in 32 bits.
    pub(crate) const LIMIT: usize = 1 << 30;

    /// Forgets the symbols of the last call.
    pub(crate) fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends a symbol of `len` bytes.
    pub(crate) fn push(&mut self, id: u32, len: u32) {
        let index = self.symbols.len() as u32;
        let start = self.symbols.last().map_or(0, |last| last.start + last.len);
        if let Some(last) = self.symbols.last_mut() {
            last.next = index;
        }
        self.symbols.push(Symbol { id, start, len, previous: index.wrapping_sub(1), next: NONE });
    }

    /// Merges until `pair`, which gives priority and token of two neighbours, has no more for any of them.
    pub(crate) fn merge(&mut self, pair: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        for left in 0..self.symbols.len().saturating_sub(1) as u32 {
            self.consider(left, left + 1, &pair);
        }
        while let Some(Reverse(best)) = self.queue.pop() {
            // The lower half of the order is the index.
            let left = best.order as u32;
            let (l, r) = (self.symbols[left as usize], self.symbols[best.right as usize]);
            if l.len == 0 || r.len == 0 || l.len + r.len != best.len {
                continue;
            }
            self.symbols[best.right as usize].len = 0;
            let merged = &mut self.symbols[left as usize];
            *merged = Symbol { id: best.id, len: best.len, next: r.next, ..*merged };
            if let Some(after) = self.symbols.get_mut(r.next as usize) {
                after.previous = left;
            }
            self.consider(l.previous, left, &pair);
            self.consider(left, r.next, &pair);
        }
    }

    /// What is left, in order.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = Symbol> + '_ {
        self.symbols.iter().copied().filter(|symbol| symbol.len > 0)
    }

    /// Queues a pair. An index past the end (there's no neighbour) is no pair.
    fn consider(&mut self, left: u32, right: u32, pair: &impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        let (Some(l), Some(r)) = (self.symbols.get(left as usize), self.symbols.get(right as usize)) else {
            return;
        };
        if let Some((priority, id)) = pair(l, r) {
            let order = (u64::from(priority) << 32) | u64::from(left);
            self.queue.push(Reverse(Candidate { order, right, len: l.len + r.len, id }));
        }
    }
}

/// `text` in stretches of at most [`Merger::LIMIT`] bytes, cut between characters. Only a text of more than a
/// gibibyte has more than one.
pub(crate) fn stretches(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (head, tail) = text.split_at(text.floor_char_boundary(Merger::LIMIT));
        text = tail;
        (!head.is_empty()).then_some(head)
    })
}
