//! Attention over pages: spans of 16 pages, exact maximum in a span, spans merged in ascending order.
use crate::Isa;
use half::f16;

/// Positions in a page.
pub const PAGE: usize = 128;
/// Pages in a span: the unit of work splitting.
pub const SPAN_PAGES: usize = 16;

/// One KV head's keys or values of one page, `[PAGE][dim]`.
#[derive(Debug, Clone, Copy)]
pub enum KvPage<'a> {
    /// The default.
    F16(&'a [f16]),
    /// The reference.
    F32(&'a [f32]),
}

/// Queries of consecutive tokens of one sequence on one KV head.
#[derive(Debug)]
pub struct AttentionTask<'a> {
    /// `[token][q_stride]`; the group's heads lie side by side from `q_offset` on, `dk` values each.
    pub q: &'a [f32],
    /// Values between tokens in `q`.
    pub q_stride: usize,
    /// First value of the group's first head.
    pub q_offset: usize,
    /// Query heads that share this KV head.
    pub group: usize,
    /// Key size.
    pub dk: usize,
    /// Value size.
    pub dv: usize,
    /// Query tokens.
    pub tokens: usize,
    /// Position of the first query token; token `t` sees positions `..=first_position + t`.
    pub first_position: usize,
    /// Sliding window: position k is visible from p if `p - k < window`.
    pub window: Option<usize>,
    /// Keys of pages 0, 1, ...
    pub k: &'a [KvPage<'a>],
    /// Values of the same pages.
    pub v: &'a [KvPage<'a>],
    /// Multiplies every score.
    pub scale: f32,
}

/// Running state of one (token, head): maximum, sum, and weighted values are merged span by span.
#[derive(Debug, Default, Clone)]
pub struct AttentionScratch {
    scores: Vec<f32>,
}

/// Attends: `out[token][group][dv]`, densely packed.
pub fn attend(_isa: Isa, task: &AttentionTask<'_>, scratch: &mut AttentionScratch, out: &mut [f32]) {
    for t in 0..task.tokens {
        for g in 0..task.group {
            let q = &task.q[t * task.q_stride + task.q_offset + g * task.dk..][..task.dk];
            let last = task.first_position + t;
            let first = task.window.map_or(0, |w| (last + 1).saturating_sub(w));
            let at = |page: &KvPage<'_>, i: usize| match page {
                KvPage::F16(x) => x[i].to_f32(),
                KvPage::F32(x) => x[i],
            };
            scratch.scores.clear();
            scratch.scores.extend((first..=last).map(|p| {
                crate::types::f32::dot_lanes(task.dk, |i| at(&task.k[p / PAGE], p % PAGE * task.dk + i), q)
                    * task.scale
            }));
            let max = scratch.scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            let out = &mut out[(t * task.group + g) * task.dv..][..task.dv];
            out.fill(0.0);
            for (p, s) in (first..=last).zip(&scratch.scores) {
                let w = (s - max).exp();
                sum += w;
                for (i, o) in out.iter_mut().enumerate() {
                    *o = w.mul_add(at(&task.v[p / PAGE], p % PAGE * task.dv + i), *o);
                }
            }
            for o in out {
                *o /= sum;
            }
        }
    }
}
