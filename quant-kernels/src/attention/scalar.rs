//! The specification of a span, row by row.

use super::{AttentionTask, KvPage, PAGE, SPAN};
use crate::exp::exp;
use crate::types::f32::{dot_lanes, tree};

impl KvPage<'_> {
    fn at(&self, index: usize) -> f32 {
        match self {
            Self::F16(x) => x[index].to_f32(),
            Self::F32(x) => x[index],
        }
    }
}

/// Maximum, sum and weighted values of every row.
pub(super) fn span(task: &AttentionTask<'_>, span: usize, scores: &mut Vec<f32>, partial: &mut [f32]) {
    let (dk, dv) = (task.dk, task.dv);
    for (row, part) in partial.chunks_exact_mut(dv + 2).enumerate() {
        let visible = task.visible_in(row, span);
        let q = task.query(row);
        scores.clear();
        scores.extend(visible.clone().map(|p| {
            let key = &task.k[p / PAGE];
            dot_lanes(dk, |i| key.at(p % PAGE * dk + i), q) * task.scale
        }));
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        part.fill(0.0);
        let mut lanes = [0f32; 16];
        for (p, score) in visible.zip(&*scores) {
            let weight = exp(score - max);
            lanes[p % SPAN % 16] += weight;
            let value = &task.v[p / PAGE];
            for (i, out) in part[2..].iter_mut().enumerate() {
                *out = weight.mul_add(value.at(p % PAGE * dv + i), *out);
            }
        }
        part[0] = max;
        part[1] = tree(lanes);
    }
}
