//! How much memory a context takes, before there is one.

use crate::arena::blocks_per_slab;
use crate::layout::Group;
use crate::schedule::SEALED;
use crate::{KvCache, PAGE};

impl KvCache {
    /// Bytes of a page of all layers, [`PAGE`] positions, in the form that it has in the end.
    pub fn page_bytes(&self) -> usize {
        self.layout.groups.iter().map(|group| group.forms[group.schedule.tiers.len()].bytes).sum()
    }

    /// A budget that holds one sequence of `positions` that is appended to in passes of up to `chunk` positions.
    pub fn bytes_for(&self, positions: usize, chunk: usize) -> usize {
        self.settled(positions, chunk, false)
    }

    /// The same if pages lose all planes that the policy lets them lose ([`Policy::drop`](crate::Policy::drop)).
    pub fn least_bytes_for(&self, positions: usize, chunk: usize) -> usize {
        // Two pools round up where there was one.
        self.settled(positions, chunk, true).min(self.bytes_for(positions, chunk))
    }

    fn settled(&self, positions: usize, chunk: usize, least: bool) -> usize {
        let mut budget = 0;
        // A larger budget may have larger slabs, which round up more; a few rounds settle it.
        for _ in 0..8 {
            let needed = self.needed(positions, chunk, budget, least);
            if needed <= budget {
                break;
            }
            budget = needed;
        }
        budget
    }

    /// The most positions that one sequence can have under a budget, in passes of up to `chunk` positions; whole pages.
    pub fn positions_in(&self, budget: usize, chunk: usize) -> usize {
        let smallest =
            self.layout.groups.iter().flat_map(|group| group.forms.iter().map(|form| form.bytes)).min();
        let (mut low, mut high) = (0, budget / smallest.unwrap_or(usize::MAX).max(1));
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.needed(middle.saturating_mul(PAGE), chunk, budget, false) <= budget {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        low.saturating_mul(PAGE)
    }

    /// Bytes of the slabs for that under a budget.
    fn needed(&self, positions: usize, chunk: usize, budget: usize, least: bool) -> usize {
        let pages = positions.div_ceil(PAGE);
        let slabs = |count: usize, bytes: usize| {
            let blocks = count.checked_next_multiple_of(blocks_per_slab(bytes, budget));
            blocks.unwrap_or(usize::MAX).saturating_mul(bytes)
        };
        let states = self.states.as_ref().map_or(0, |states| slabs(states.blocks(), states.bytes()));
        self.layout.groups.iter().fold(states, |sum: usize, group| {
            let pass = chunk.div_ceil(PAGE);
            let counts = blocks(group, pages, pass);
            group.forms.iter().zip(counts).enumerate().fold(sum, |sum, (form, (layout, count))| {
                // What a pass seals is whole until the next one.
                let smallest = group.reduced.last().filter(|_| least && form == SEALED);
                let whole = smallest.map_or(count, |_| count.min(pass.saturating_add(1)));
                let reduced = smallest.map_or(0, |reduced| slabs(count - whole, reduced.bytes));
                sum.saturating_add(slabs(whole, layout.bytes)).saturating_add(reduced)
            })
        })
    }
}

/// Blocks of each form that a sequence of so many pages holds at the most.
fn blocks(group: &Group, pages: usize, chunk: usize) -> Vec<usize> {
    let rule = &group.schedule;
    // Pages that a pass writes, and one that it may straddle.
    let pass = chunk.saturating_add(1);
    let pages = rule.sliding.map_or(pages, |sliding| {
        let seen = (sliding.div_ceil(PAGE) + 2).saturating_add(pass);
        pages.min(seen)
    });
    let mut counts = Vec::with_capacity(group.forms.len());
    if rule.tiers.is_empty() {
        counts.push(pages);
        return counts;
    }
    counts.push(pages.min(pass.saturating_add(rule.raw_pages())));
    for (i, from) in rule.tiers.iter().enumerate() {
        let held = rule.tiers.get(i + 1).map_or(pages, |to| (to - from + 1).saturating_add(pass));
        counts.push(pages.min(held));
    }
    if rule.sinks > 0 {
        let sinks = rule.sinks.min(pages);
        counts.push(sinks);
        // Sinks take no part in the last tier.
        if let Some(last) = counts.get_mut(rule.tiers.len()) {
            *last = (*last).min(pages - sinks);
        }
    }
    counts
}
