//! From the results of spans to the output.

use super::{AttentionTask, PAGE, page::Domain};
use crate::Isa;
use crate::codecs::{CodecScratch, take};
use crate::exp::exp;

/// The state before the first span: `[row](maximum, sum, values, sums of each domain)`.
pub(super) fn start(task: &AttentionTask<'_>, merged: &mut Vec<f32>) {
    merged.clear();
    merged.resize(task.partial_len(), 0.0);
    for state in merged.chunks_exact_mut(task.row_len()) {
        state[0] = f32::NEG_INFINITY;
    }
}

pub(super) fn merge(task: &AttentionTask<'_>, partial: &[f32], merged: &mut [f32]) {
    let width = task.row_len();
    for (state, part) in merged.chunks_exact_mut(width).zip(partial.chunks_exact(width)) {
        let (part_max, part_sum) = (part[0], part[1]);
        if part_max == f32::NEG_INFINITY && part_sum == 0.0 {
            continue; // nothing visible
        }
        let max = state[0].max(part_max);
        let (a, b) = (exp(state[0] - max), exp(part_max - max));
        state[0] = max;
        for (state, part) in state[1..].iter_mut().zip(&part[1..]) {
            *state = *state * a + *part * b;
        }
    }
}

pub(super) fn finish(
    isa: Isa,
    task: &AttentionTask<'_>,
    merged: &[f32],
    scratch: &mut CodecScratch,
    finished: &mut Vec<f32>,
    out: &mut [f32],
) {
    if task.dv == 0 {
        return;
    }
    let rows = merged.chunks_exact(task.row_len()).zip(out.chunks_exact_mut(task.dv));
    for (row, (state, out)) in rows.enumerate() {
        let (values, sums) = state[2..].split_at(task.dv);
        out.copy_from_slice(values);
        for domain in task.domains.iter().filter(|domain| sees(task, row, domain)) {
            let finished = take(finished, task.dv);
            domain.codec.finish(isa, &sums[domain.at..][..domain.len], scratch, finished);
            for (out, value) in out.iter_mut().zip(finished) {
                *out += *value;
            }
        }
        for out in out {
            *out /= state[1];
        }
    }
}

/// Whether a row sees a position of a page in this domain.
fn sees(task: &AttentionTask<'_>, row: usize, domain: &Domain) -> bool {
    let visible = task.visible(row);
    let pages = visible.start / PAGE..visible.end.div_ceil(PAGE).max(visible.start / PAGE);
    !visible.is_empty() && task.v[pages].iter().any(|page| page.space() == Some(domain.space))
}
