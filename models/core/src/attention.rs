//! Softmax attention over the KV cache, with grouped queries.

use crate::Error;
use crate::context::{Angles, Batch, Context, Entry};
use crate::layer::RmsNorm;
use crate::matrix::Linear;
use crate::rows::{TILE_ROWS, for_each, lock, sized, take};
use quant_kernels::attention::{
    AttentionScratch, AttentionTask, KeyPage, PAGE, QueryVariants, ValueDomains, ValuePage, attend,
    attend_span, merge_spans,
};
use quant_kernels::rope::Rope;
use quant_kernels::{Isa, Parallel};
use quant_kvcache::{KvCache, Layer, LayerShape, Observed, offset_of};
use std::mem;
use std::ops::Range;
use std::sync::Mutex;

/// Attention with `n_heads / n_kv_heads` query heads on each KV head.
#[derive(Debug)]
pub struct Attention {
    /// Query heads.
    pub n_heads: usize,
    /// KV heads.
    pub n_kv_heads: usize,
    /// Values of a head's key.
    pub key_dim: usize,
    /// Values of a head's value.
    pub value_dim: usize,
    /// Which of the model's ropes turns queries and keys.
    pub rope: Option<usize>,
    /// Sliding window: position k is visible from p if `p - k < window`.
    pub window: Option<usize>,
    /// Multiplies every score.
    pub scale: f32,
    /// `attn_q`.
    pub q: Linear,
    /// `attn_k`.
    pub k: Linear,
    /// `attn_v`.
    pub v: Linear,
    /// `attn_output`.
    pub output: Linear,
}

/// Query tokens of a task: fixed, so that nothing depends on the number of workers.
const TILE_TOKENS: usize = 32;

/// With fewer tasks for each worker than this, workers would wait for the last one: tasks are split by positions too.
const TASKS_PER_WORKER: usize = 4;

/// Some tokens of one span on one KV head.
#[derive(Debug, Clone)]
struct Task {
    entry: Entry,
    kv_head: usize,
    /// First token of the span.
    first: usize,
    tokens: usize,
    /// The pages in the lists of the layer.
    pages: Range<usize>,
}

/// Buffers of attention layers.
#[derive(Debug, Default)]
pub(crate) struct AttentionBuffers {
    tasks: Vec<Task>,
    /// Where tasks are split by spans of positions: task and span, and results in the same order.
    units: Vec<(usize, usize)>,
    partials: Vec<f32>,
    /// For sequences that were shifted: the queries with each offset that their pages have.
    turned: Vec<Vec<f32>>,
    /// Which of them each listed page meets, 0 for `q`; empty if no sequence was shifted.
    turned_of_page: Vec<usize>,
    key_pages: Vec<KeyPage<'static>>,
    value_pages: Vec<ValuePage<'static>>,
    workers: Vec<Mutex<AttentionScratch>>,
}

impl Attention {
    /// What the KV cache keeps of this layer.
    pub fn kv_layer(&self) -> Layer {
        let shape =
            LayerShape { kv_heads: self.n_kv_heads, key_dim: self.key_dim, value_dim: self.value_dim };
        Layer { window: self.window, ..shape.into() }
    }

    pub(crate) fn fits(&self, n_embd: usize, ropes: &[Rope]) -> Result<(), &'static str> {
        let sizes = [self.n_heads, self.n_kv_heads, self.key_dim, self.value_dim];
        if sizes.contains(&0) || !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err("query heads and KV heads");
        }
        if [&self.q, &self.k, &self.v].iter().any(|linear| linear.cols() != n_embd)
            || self.output.rows() != n_embd
        {
            return Err("attention weights and the width");
        }
        let rows = [
            (self.q.rows(), self.n_heads, self.key_dim),
            (self.k.rows(), self.n_kv_heads, self.key_dim),
            (self.v.rows(), self.n_kv_heads, self.value_dim),
            (self.output.cols(), self.n_heads, self.value_dim),
        ];
        if rows.iter().any(|&(rows, heads, dim)| heads.checked_mul(dim) != Some(rows)) {
            return Err("attention weights and heads");
        }
        match self.rope.map(|rope| ropes.get(rope)) {
            Some(None) => Err("attention and the model's ropes"),
            Some(Some(rope)) if rope.inv_freq.len() * 2 > self.key_dim => Err("rope and the key size"),
            _ => Ok(()),
        }
    }

    /// From the norm of `stream` to `branch`, both `[rows][n_embd]`.
    pub(crate) fn forward(
        &self,
        layer: usize,
        norm: &RmsNorm,
        ropes: &[Rope],
        cx: &mut Context,
        cache: &mut KvCache,
    ) -> Result<(), Error> {
        let Context { kernels, parallel, activations, matmul, batch, buffers, attention, .. } = cx;
        let (isa, parallel, rows) = (kernels.isa(), &**parallel, batch.rows());
        let widths = [self.q.rows(), self.k.rows(), self.v.rows(), self.output.cols()];
        // The outputs in the order of rows take the place of the queries.
        let first = widths[0].max(widths[3]);
        let mut work = sized(&mut buffers.work, rows * (first + widths[1..].iter().sum::<usize>()));
        let queries = take(&mut work, rows * first);
        let [k, v, heads] = [1, 2, 3].map(|i| take(&mut work, rows * widths[i]));
        let q = &mut queries[..rows * widths[0]];
        let x = norm.of(&buffers.stream[..rows * self.q.cols()]);
        let mut projections = [self.q.projection(q)?, self.k.projection(k)?, self.v.projection(v)?];
        kernels.matmul(parallel, matmul, *activations, x, rows, &mut projections)?;

        attention.turned.resize_with(batch.turned.len(), Vec::new);
        for (turned, of) in attention.turned.iter_mut().zip(&batch.turned) {
            let turned = sized(turned, q.len());
            turned.copy_from_slice(q);
            self.rotate(isa, parallel, ropes, &of.angles, turned, &mut []);
        }
        self.rotate(isa, parallel, ropes, &batch.angles, q, k);
        for entry in &batch.entries {
            if entry.tokens > 0 {
                let k = &k[entry.first_row * self.k.rows()..][..entry.tokens * self.k.rows()];
                let v = &v[entry.first_row * self.v.rows()..][..entry.tokens * self.v.rows()];
                cache.write(isa, entry.sequence, layer, entry.first_position, k, v)?;
            }
        }
        cache.seal(isa, parallel, layer, batch.entries.iter().map(|entry| entry.sequence))?;
        for entry in &batch.entries {
            if cache.observes(entry.sequence, entry.tokens) {
                let last = entry.first_row + entry.tokens - 1;
                let q = &q[last * self.q.rows()..][..self.q.rows()];
                let position = entry.first_position + entry.tokens - 1;
                let of = Observed { q, position, scale: self.scale };
                cache.observe(isa, parallel, entry.sequence, layer, &of)?;
            }
        }
        self.attend(layer, (isa, parallel), batch, attention, cache, (q, heads))?;
        let mixed = &mut queries[..rows * widths[3]];
        self.order_rows(parallel, batch, heads, mixed);

        let out = sized(&mut buffers.branch, rows * self.output.rows());
        kernels.matmul(parallel, matmul, *activations, &*mixed, rows, &mut [self.output.projection(out)?])?;
        Ok(())
    }

    /// Turns queries and, if there are any, keys.
    fn rotate(
        &self,
        isa: Isa,
        parallel: &dyn Parallel,
        ropes: &[Rope],
        angles: &[Angles],
        q: &mut [f32],
        k: &mut [f32],
    ) {
        let Some((rope, angles)) = self.rope.and_then(|i| ropes.get(i).zip(angles.get(i))) else {
            return;
        };
        let pairs = rope.inv_freq.len();
        let (q_width, k_width) = (self.q.rows(), self.k.rows());
        let angles = angles.cos.chunks(TILE_ROWS * pairs).zip(angles.sin.chunks(TILE_ROWS * pairs));
        let mut rest = k;
        let tiles = q.chunks_mut(TILE_ROWS * q_width).zip(angles).map(|(q, angles)| {
            let keys = (q.len() / q_width * k_width).min(rest.len());
            ((q, take(&mut rest, keys)), angles)
        });
        for_each(parallel, tiles, |_, ((q, k), (cos, sin))| {
            for (x, width) in [(q, q_width), (k, k_width)] {
                let angles = cos.chunks_exact(pairs).zip(sin.chunks_exact(pairs));
                for (x, (cos, sin)) in x.chunks_exact_mut(width).zip(angles) {
                    rope.apply(isa, x, self.key_dim, cos, sin);
                }
            }
        });
    }

    /// From queries, `[row][head][key_dim]`, to `heads`, in the order of tasks:
    /// `[span][kv_head][token][group][value_dim]`.
    fn attend(
        &self,
        layer: usize,
        (isa, parallel): (Isa, &dyn Parallel),
        batch: &Batch,
        buffers: &mut AttentionBuffers,
        cache: &KvCache,
        (q, heads): (&[f32], &mut [f32]),
    ) -> Result<(), Error> {
        let AttentionBuffers {
            tasks,
            units,
            partials,
            turned,
            turned_of_page,
            key_pages,
            value_pages,
            workers,
        } = buffers;
        let mut keys = recycle(mem::take(key_pages));
        let mut values = recycle(mem::take(value_pages));
        self.list_tasks(layer, batch, cache, tasks, &mut keys, &mut values)?;
        list_turned(cache, tasks, keys.len(), turned_of_page)?;
        let turned = self.turned_queries(tasks, turned);
        workers.resize_with(workers.len().max(parallel.threads()), Mutex::default);

        let domains = cache.domains(layer);
        let kernel_task = |(i, task): (usize, &Task)| {
            let count = batch.turned.len();
            let of_page = turned_of_page.get(task.pages.clone()).unwrap_or_default();
            let variants = QueryVariants { queries: &turned[i * count..][..count], of_page };
            AttentionTask { variants, ..self.kernel_task(task, q, &keys, &values, domains) }
        };
        let mut rest = &mut *heads;
        let outputs = tasks.iter().enumerate();
        let outputs = outputs.map(|(i, task)| (kernel_task((i, task)), take(&mut rest, self.out_len(task))));
        if tasks.len() >= parallel.threads() * TASKS_PER_WORKER {
            for_each(parallel, outputs, |worker, (task, out)| {
                attend(isa, &task, &mut lock(&workers[worker]), out);
            });
        } else {
            // Few tokens: the spans of a long context are tasks of their own. The bits are the same.
            units.clear();
            let spans = |(i, task): (usize, &Task)| kernel_task((i, task)).spans().map(move |span| (i, span));
            units.extend(tasks.iter().enumerate().flat_map(spans));
            let len = |&(i, _): &(usize, usize)| kernel_task((i, &tasks[i])).partial_len();
            let partials = sized(partials, units.iter().map(len).sum());
            let mut rest = &mut *partials;
            let parts = units.iter().map(|unit| (unit, take(&mut rest, len(unit))));
            for_each(parallel, parts, |worker, (&(i, span), partial)| {
                attend_span(isa, &kernel_task((i, &tasks[i])), span, &mut lock(&workers[worker]), partial);
            });
            let mut rest = &*partials;
            for (task, out) in outputs {
                let (partials, after) = rest.split_at(task.partial_len() * task.spans().len());
                rest = after;
                merge_spans(isa, &task, partials, &mut lock(&workers[0]), out);
            }
        }
        *key_pages = recycle(keys);
        *value_pages = recycle(values);
        Ok(())
    }

    /// Cuts the batch into tasks and lists their pages.
    fn list_tasks<'c>(
        &self,
        layer: usize,
        batch: &Batch,
        cache: &'c KvCache,
        tasks: &mut Vec<Task>,
        keys: &mut Vec<KeyPage<'c>>,
        values: &mut Vec<ValuePage<'c>>,
    ) -> Result<(), Error> {
        tasks.clear();
        for &entry in &batch.entries {
            for kv_head in 0..self.n_kv_heads {
                let mut first = 0;
                // Queries of one page see every page in one form: no task straddles a page boundary.
                while first < entry.tokens {
                    let position = entry.first_position + first;
                    let end = entry.tokens.min(first + PAGE - position % PAGE);
                    let first_page = keys.len();
                    cache.pages(entry.sequence, layer, kv_head, position / PAGE, keys, values)?;
                    let pages = first_page..keys.len();
                    tasks.extend((first..end).step_by(TILE_TOKENS).map(|first| Task {
                        entry,
                        kv_head,
                        first,
                        tokens: TILE_TOKENS.min(end - first),
                        pages: pages.clone(),
                    }));
                    first = end;
                }
            }
        }
        Ok(())
    }

    /// Each task's part of the turned queries, task after task; nothing if no sequence was shifted.
    fn turned_queries<'t>(&self, tasks: &[Task], turned: &'t [Vec<f32>]) -> Vec<&'t [f32]> {
        let width = self.q.rows();
        let of_task = |task: &Task| {
            let rows = task.entry.first_row + task.first..task.entry.first_row + task.first + task.tokens;
            turned.iter().map(move |turned| &turned[rows.start * width..rows.end * width])
        };
        tasks.iter().flat_map(of_task).collect()
    }

    fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    fn out_len(&self, task: &Task) -> usize {
        task.tokens * self.group() * self.value_dim
    }

    fn kernel_task<'t>(
        &self,
        task: &Task,
        q: &'t [f32],
        keys: &'t [KeyPage<'t>],
        values: &'t [ValuePage<'t>],
        domains: &'t ValueDomains,
    ) -> AttentionTask<'t> {
        let width = self.q.rows();
        let first_row = task.entry.first_row + task.first;
        AttentionTask {
            q: &q[first_row * width..][..task.tokens * width],
            q_stride: width,
            q_offset: task.kv_head * self.group() * self.key_dim,
            group: self.group(),
            dk: self.key_dim,
            dv: self.value_dim,
            tokens: task.tokens,
            first_position: task.entry.first_position + task.first,
            window: self.window,
            k: &keys[task.pages.clone()],
            v: &values[task.pages.clone()],
            domains,
            variants: QueryVariants::default(),
            scale: self.scale,
        }
    }

    /// From the order of tasks, `[span][kv_head][token][group][value_dim]`, to `[row][head][value_dim]`.
    fn order_rows(&self, parallel: &dyn Parallel, batch: &Batch, heads: &[f32], rows: &mut [f32]) {
        let (width, group_width) = (self.output.cols(), self.group() * self.value_dim);
        for entry in &batch.entries {
            let span = entry.first_row * width..(entry.first_row + entry.tokens) * width;
            let heads = &heads[span.clone()];
            for_each(parallel, rows[span].chunks_mut(TILE_ROWS * width).enumerate(), |_, (tile, rows)| {
                for (token, row) in (tile * TILE_ROWS..).zip(rows.chunks_exact_mut(width)) {
                    for (kv_head, out) in row.chunks_exact_mut(group_width).enumerate() {
                        let at = (kv_head * entry.tokens + token) * group_width;
                        out.copy_from_slice(&heads[at..][..group_width]);
                    }
                }
            });
        }
    }
}

/// Lists which queries each page of the tasks meets; nothing if no sequence was shifted.
fn list_turned(cache: &KvCache, tasks: &[Task], pages: usize, of_page: &mut Vec<usize>) -> Result<(), Error> {
    of_page.clear();
    for task in tasks {
        let turns = cache.turns(task.entry.sequence)?;
        if turns.is_empty() {
            continue;
        }
        of_page.resize(pages, 0);
        let own = offset_of(turns, (task.entry.first_position + task.first) / PAGE);
        for (page, at) in task.pages.clone().enumerate() {
            let turn = turns.partition_point(|turn| turn.first_page <= page);
            of_page[at] = if offset_of(turns, page) == own { 0 } else { turn };
        }
    }
    Ok(())
}

/// An empty list of the same pages of another lifetime, in the same memory.
fn recycle<T, U>(mut list: Vec<T>) -> Vec<U> {
    list.clear();
    // Collecting a mapped vector whose items have one layout keeps its memory.
    list.into_iter().map(|_| unreachable!("the list is empty")).collect()
}
