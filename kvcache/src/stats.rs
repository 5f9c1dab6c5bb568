//! What a cache takes, and what it would take in f16.

use crate::schedule::RAW;
use crate::{KvCache, PAGE};
use std::collections::BTreeMap;

/// Memory of a cache. Shared pages count once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Sequences that live.
    pub sequences: usize,
    /// Bytes that sequences and prefixes hold: `sealed_bytes + written_bytes`.
    pub used_bytes: usize,
    /// Of these, pages in codecs, with their scales.
    pub sealed_bytes: usize,
    /// Of these, pages as they were written: open ones, windows, and originals that are kept for taking back.
    pub written_bytes: usize,
    /// Of these, gaps between records.
    pub padding_bytes: usize,
    /// Pages of prefixes that are kept for later sequences; their bytes are among the others.
    pub prefix_pages: usize,
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
    /// Bits for each number of a key or value, everything counted; 0 for an empty cache.
    pub fn bits_per_value(&self) -> f64 {
        if self.f16_bytes == 0 { 0.0 } else { 16.0 * self.used_bytes as f64 / self.f16_bytes as f64 }
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
            padding_bytes: 0,
            prefix_pages: self.prefixes.len(),
            mapped_bytes: self.arena.used_foreign(),
            peak_bytes: self.peak,
            allocated_bytes: self.arena.allocated(),
            budget_bytes: self.arena.budget(),
            f16_bytes: 0,
        };
        for (i, (group, pages)) in self.layout.groups.iter().zip(&self.pages).enumerate() {
            for (form, block) in group.forms.iter().enumerate() {
                let bytes = self.arena.used(pages.pool(form));
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
            let others = pages.live() - rows.len();
            let positions = rows.values().sum::<usize>() + others * PAGE;
            stats.f16_bytes += positions * group.f16_bytes();
        }
        stats
    }
}
