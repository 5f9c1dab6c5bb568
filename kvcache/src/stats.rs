//! What a cache takes, and what it would take in f16.

use crate::schedule::{RAW, SEALED};
use crate::{KvCache, PAGE};
use std::collections::BTreeMap;

/// Memory of a cache. Shared pages count once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Sequences that live.
    pub sequences: usize,
    /// Bytes that sequences and prefixes hold: `sealed_bytes + written_bytes + state_bytes`.
    pub used_bytes: usize,
    /// Of these, pages in codecs, with their scales.
    pub sealed_bytes: usize,
    /// Of these, pages as they were written: open ones, windows, and originals that are kept for taking back.
    pub written_bytes: usize,
    /// Of these, states of recurrent layers and their copies.
    pub state_bytes: usize,
    /// Of these, gaps between records.
    pub padding_bytes: usize,
    /// Pages of prefixes that are kept for later sequences; their bytes are among the others.
    pub prefix_pages: usize,
    /// Pages that lost planes and did not get all of them back.
    pub reduced_pages: usize,
    /// Bytes that these are smaller by.
    pub reduced_bytes: usize,
    /// Bytes of lost planes that are kept elsewhere, see [`KvCache::with_spill`].
    pub spilled_bytes: usize,
    /// Bytes of pages that lie in mapped snapshots: not in `used_bytes`, nor in the budget.
    pub mapped_bytes: usize,
    /// The most that `used_bytes` ever was.
    pub peak_bytes: usize,
    /// Bytes of all slabs; free ones are kept for reuse, see [`KvCache::trim`].
    pub allocated_bytes: usize,
    /// The most that `allocated_bytes` may be.
    pub budget_bytes: usize,
    /// What the committed positions would take in f16, nothing else counted.
    pub f16_bytes: usize,
}

impl Stats {
    /// Bits for each number of a key or value, everything but states counted; 0 for an empty cache.
    pub fn bits_per_value(&self) -> f64 {
        if self.f16_bytes == 0 {
            0.0
        } else {
            16.0 * (self.used_bytes - self.state_bytes) as f64 / self.f16_bytes as f64
        }
    }
}

impl KvCache {
    /// Memory in use.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            sequences: self.sequences().count(),
            used_bytes: self.arena.used_in_all(),
            sealed_bytes: 0,
            written_bytes: 0,
            state_bytes: self.states.as_ref().map_or(0, |states| self.arena.used(states.pool())),
            padding_bytes: 0,
            prefix_pages: self.prefixes.len(),
            reduced_pages: 0,
            reduced_bytes: 0,
            spilled_bytes: self.spill.as_ref().map_or(0, |store| store.bytes()),
            mapped_bytes: self.arena.used_foreign(),
            peak_bytes: self.peak,
            allocated_bytes: self.arena.allocated(),
            budget_bytes: self.arena.budget(),
            f16_bytes: 0,
        };
        for (i, (group, pages)) in self.layout.groups.iter().zip(&self.pages).enumerate() {
            for (form, level) in group.kinds() {
                let (block, bytes) = (group.layout(form, level), self.arena.used(pages.pool_at(form, level)));
                *(if form == RAW { &mut stats.written_bytes } else { &mut stats.sealed_bytes }) += bytes;
                stats.padding_bytes += bytes.checked_div(block.bytes).unwrap_or(0) * block.padding;
            }
            let mut rows = BTreeMap::new();
            for sequence in self.sequences() {
                for (index, held) in sequence.tables[i].held.iter().enumerate() {
                    if let Some(page) = held.page {
                        let committed = sequence.len.saturating_sub(index * PAGE).min(PAGE);
                        let rows: &mut usize = rows.entry(page).or_default();
                        *rows = committed.max(*rows);
                    }
                }
            }
            for &page in rows.keys() {
                let level = pages.level(page, SEALED);
                if level > 0 {
                    stats.reduced_pages += 1;
                    let (whole, reduced) = (group.layout(SEALED, 0), group.layout(SEALED, level));
                    stats.reduced_bytes += whole.bytes - reduced.bytes;
                }
            }
            let others = pages.live() - rows.len();
            let positions = rows.values().sum::<usize>() + others * PAGE;
            stats.f16_bytes += positions * group.f16_bytes();
        }
        stats
    }
}
