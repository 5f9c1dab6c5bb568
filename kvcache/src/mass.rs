//! How much attention pages receive: the order in which they are reduced when memory is short.
//!
//! The mass of a page is the share that it has in the softmax of the queries of one position, the mean of all heads and
//! layers, summed over the positions that are looked at, each counting half of the next one. It is measured with the
//! attention's own kernel, which gives the maximum and the sum of the weights of whatever it is given: here one page at a
//! time, without values. What the merge of a whole attention gives anyway is for 16 pages at once, too coarse to choose
//! by. One position is looked at for each page that fills, which is at most one 128th of the cost of the scores.

use crate::layout::Place;
use crate::{Error, KvCache, PAGE, SequenceId, offset_of};
use quant_kernels::attention::{
    AttentionScratch, AttentionTask, KeyPage, QueryVariants, ValueDomains, ValuePage, attend_span,
};
use quant_kernels::{Isa, Parallel};
use std::sync::{Mutex, PoisonError};

/// The queries of one position in a layer.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// `[head][key_dim]`, as many heads for each KV head.
    pub q: &'a [f32],
    /// Its position.
    pub position: usize,
    /// Multiplies scores.
    pub scale: f32,
}

impl KvCache {
    /// Whether [`KvCache::observe`] is worth calling, in every layer, for the last one of the `count` positions that
    /// follow those committed: with a policy that drops planes, if they fill a page.
    pub fn observes(&self, id: SequenceId, count: usize) -> bool {
        let fills = |len: usize| len.saturating_add(count) / PAGE > len / PAGE;
        self.policy().drop.is_some() && self.len(id).is_ok_and(fills)
    }

    /// Looks at what pages receive of the attention of a reserved position, after the layer was sealed. Pages that were
    /// moved from elsewhere ([`KvCache::turns`]) keep the mass that they have.
    ///
    /// # Errors
    /// [`Error::RowLength`] if the queries are not those of whole heads; as [`KvCache::pages`].
    pub fn observe(
        &mut self,
        isa: Isa,
        parallel: &dyn Parallel,
        id: SequenceId,
        layer: usize,
        of: &Observed<'_>,
    ) -> Result<(), Error> {
        let Place { group, slot, shared } = self.place(layer, 0)?;
        if shared {
            // The layer that the pages are of was looked at.
            return Ok(());
        }
        let shape = self.layout.groups[group].shapes[slot];
        let (heads, rows) = (shape.kv_heads, of.q.len() / (shape.kv_heads * shape.key_dim).max(1));
        if rows * heads * shape.key_dim != of.q.len() {
            let half = crate::Half::Key;
            let expected = rows * heads * shape.key_dim;
            return Err(Error::RowLength { layer, half, expected, got: of.q.len() });
        }
        let mut lists = Vec::with_capacity(heads);
        let mut values = Vec::new();
        for head in 0..heads {
            let mut keys = Vec::new();
            self.pages(id, layer, head, of.position / PAGE, &mut keys, &mut values)?;
            values.clear();
            lists.push((keys, Mutex::new(Vec::new())));
        }
        let turns = self.turns(id)?;
        let own = offset_of(turns, of.position / PAGE);
        let seen = |page: usize| offset_of(turns, page) == own;
        let window = self.layout.layers.get(layer).and_then(|layer| layer.window);
        parallel.run(heads, &|_, head| {
            let (keys, shares) = &lists[head];
            let width = rows * shape.key_dim;
            let head = Head { q: &of.q[head * width..][..width], rows, dim: shape.key_dim, of, window };
            *shares.lock().unwrap_or_else(PoisonError::into_inner) = head.shares(isa, keys, &seen);
        });
        let mut shares = Vec::new();
        for (_, of_head) in lists {
            let of_head = of_head.into_inner().unwrap_or_else(PoisonError::into_inner);
            shares.resize(of_head.len(), 0.0);
            shares.iter_mut().zip(of_head).for_each(|(sum, share)| *sum += share);
        }
        let all = (heads * rows * self.layout.groups[group].shapes.len()).max(1) as f32;
        let held: Vec<_> = self.sequence(id)?.tables[group].held.iter().map(|held| held.page).collect();
        for (page, share) in held.into_iter().zip(shares) {
            // Queries that overflowed say nothing.
            if let Some(page) = page.filter(|_| share.is_finite()) {
                let pages = &mut self.pages[group];
                // The group's first layer begins another look.
                let before = pages.mass(page) * if slot == 0 { 0.5 } else { 1.0 };
                pages.set_mass(page, before + share / all);
            }
        }
        Ok(())
    }
}

/// The queries of a KV head.
struct Head<'a> {
    q: &'a [f32],
    rows: usize,
    dim: usize,
    of: &'a Observed<'a>,
    window: Option<usize>,
}

impl Head<'_> {
    /// What each page has of the attention, all rows together.
    fn shares(&self, isa: Isa, keys: &[KeyPage<'_>], seen: &dyn Fn(usize) -> bool) -> Vec<f32> {
        let first = self.window.map_or(0, |window| (self.of.position + 1).saturating_sub(window));
        let mut scratch = AttentionScratch::default();
        // Of each page and row the maximum and the sum of the weights.
        let mut parts: Vec<Vec<f32>> = Vec::with_capacity(keys.len());
        for (page, keys) in keys.iter().enumerate() {
            let start = page * PAGE;
            if start + PAGE <= first || !seen(page) {
                parts.push(Vec::new());
                continue;
            }
            let last = (self.of.position - start).min(PAGE - 1);
            let task = AttentionTask {
                q: self.q,
                q_stride: self.q.len(),
                q_offset: 0,
                group: self.rows,
                dk: self.dim,
                dv: 0,
                tokens: 1,
                first_position: last,
                window: Some(last + 1 - first.saturating_sub(start)),
                k: std::slice::from_ref(keys),
                v: &[ValuePage::F16(&[])],
                domains: ValueDomains::none(),
                variants: QueryVariants::default(),
                scale: self.of.scale,
            };
            let mut part = vec![0.0; task.partial_len()];
            attend_span(isa, &task, 0, &mut scratch, &mut part);
            parts.push(part);
        }
        let mut shares = vec![0.0; parts.len()];
        for row in 0..self.rows {
            let of_row = |part: &Vec<f32>| part.get(2 * row..2 * row + 2).map(|x| (x[0], x[1]));
            let max = parts.iter().filter_map(of_row).fold(f32::NEG_INFINITY, |max, (m, _)| max.max(m));
            let weight = |(m, sum): (f32, f32)| sum * quant_kernels::exp::exp(m - max);
            let all: f32 = parts.iter().filter_map(of_row).map(weight).sum();
            for (share, part) in shares.iter_mut().zip(&parts) {
                if let Some(part) = of_row(part).filter(|_| all > 0.0) {
                    *share += weight(part) / all;
                }
            }
        }
        shares
    }
}
