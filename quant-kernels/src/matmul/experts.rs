//! Mixtures of experts: many small matrices, each met by the few tokens that chose it.
//!
//! Tokens are grouped by expert, so that an expert's rows are read once for all of its tokens, and experts that nobody
//! chose are not read at all. The bits are those of [`Kernels::matmul`] of one token with one expert.
//!
//! With few tokens the memory's pace is the limit, so memory must not rest between experts: they come in the order of the
//! file, kernels of several tokens ask for the next task's rows at the end of one, and for those of one token, which ask
//! for what follows in memory, a task asks for its first rows before anything else.

use super::{GROUP, Job, MatmulScratch, Plan, ROW_GROUP, Shared, Weight, Worker};
use crate::activations::{ActKind, Acts};
use crate::{Activations, Error, Isa, Kernels, Parallel};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The experts that each token goes to, `[tokens][per_token]`. Checked on creation.
#[derive(Debug, Clone, Copy)]
pub struct Routes<'a> {
    experts: usize,
    per_token: usize,
    ids: &'a [u32],
}

impl<'a> Routes<'a> {
    /// `ids[token * per_token + slot]` is below `experts`.
    ///
    /// # Errors
    /// [`Error::Length`] if there are no experts or `per_token` does not divide the number of ids, [`Error::Expert`] for an id too large.
    pub fn new(experts: usize, per_token: usize, ids: &'a [u32]) -> Result<Self, Error> {
        if experts == 0 {
            return Err(Error::Length { what: "experts", expected: 1, got: 0 });
        }
        if per_token == 0 || !ids.len().is_multiple_of(per_token) {
            let expected = ids.len().next_multiple_of(per_token.max(1));
            return Err(Error::Length { what: "routes", expected, got: ids.len() });
        }
        match ids.iter().find(|&&id| id as usize >= experts) {
            Some(&id) => Err(Error::Expert { id, experts }),
            None => Ok(Self { experts, per_token, ids }),
        }
    }

    /// Rows of the batch.
    pub fn tokens(&self) -> usize {
        self.ids.len() / self.per_token
    }
}

/// One output of a call: `out[token][slot] = weight[expert of that slot] * x + bias`.
#[derive(Debug)]
pub struct ExpertProjection<'a> {
    /// All experts' rows, one expert after the other: `[experts * rows][cols]`.
    pub weight: Weight<'a>,
    /// `[experts][rows]`.
    pub bias: Option<&'a [f32]>,
    /// `[tokens][per_token][rows]`.
    pub out: &'a mut [f32],
}

/// Buffers that calls reuse.
#[derive(Debug, Default)]
pub(super) struct ExpertScratch {
    /// Places `token * per_token + slot`, grouped by expert.
    places: Vec<u32>,
    /// Where each expert's places begin, and after the last one their end.
    starts: Vec<usize>,
    tasks: Vec<Task>,
}

/// The activations of one expert's tokens, as a worker collected them: kept for its next task.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    acts: Acts,
    /// Whose they are: the stamp of all activations, and the expert.
    of: Option<(u64, u32)>,
}

/// Some rows of one expert's part of one projection.
#[derive(Debug, Clone, Copy)]
struct Task {
    projection: usize,
    expert: u32,
    first_row: usize,
    rows: usize,
}

impl Kernels {
    /// Multiplies every token with the experts it goes to. `x` is `[tokens][cols]`, the same for all of a token's
    /// experts, or `[tokens][per_token][cols]`, one row for each.
    ///
    /// # Errors
    /// Shapes that do not fit, or a type without arithmetic.
    pub fn matmul_experts(
        &self,
        parallel: &dyn Parallel,
        scratch: &mut MatmulScratch,
        activations: Activations,
        x: &[f32],
        routes: Routes<'_>,
        projections: &mut [ExpertProjection<'_>],
    ) -> Result<(), Error> {
        let Some(cols) = projections.first().map(|p| p.weight.cols) else { return Ok(()) };
        let tokens = routes.tokens();
        let rows = if x.len() == tokens.saturating_mul(cols) { tokens } else { routes.ids.len() };
        let mut needed = [false; 3];
        for p in projections.iter() {
            needed[self.checked_experts(activations, x, rows, routes, p)? as usize] = true;
        }
        let MatmulScratch { acts, workers, experts, .. } = scratch;
        experts.group(routes);
        for kind in [ActKind::F32, ActKind::Q32, ActKind::Q256] {
            if needed[kind as usize] {
                acts[kind as usize].quantize(self.isa(), parallel, kind, x, None, cols);
            }
        }
        if workers.len() < parallel.threads() {
            workers.resize_with(parallel.threads(), Default::default);
        }
        for group in projections.chunks_mut(GROUP) {
            experts.split(parallel.threads(), routes, group);
            let mut parts = [const { None }; GROUP];
            for (part, p) in parts.iter_mut().zip(group) {
                *part = self.part(activations, routes, p);
            }
            let slots = if rows == tokens { routes.per_token } else { 1 };
            experts.run(parallel, workers, acts, slots, &parts);
        }
        Ok(())
    }

    /// Checks the shapes of a projection; returns the form of activations it needs.
    fn checked_experts(
        &self,
        activations: Activations,
        x: &[f32],
        x_rows: usize,
        routes: Routes<'_>,
        p: &ExpertProjection<'_>,
    ) -> Result<ActKind, Error> {
        let Weight { ty, rows, cols, .. } = p.weight;
        let check = |what, expected: usize, got: usize| {
            if expected == got { Ok(()) } else { Err(Error::Length { what, expected, got }) }
        };
        let plan = self.plan(activations, ty).ok_or(Error::NoKernel { ty })?;
        let per_expert = rows / routes.experts;
        check("rows of all experts", per_expert.saturating_mul(routes.experts), rows)?;
        check("experts' input", x_rows.saturating_mul(cols), x.len())?;
        check("experts' output", routes.ids.len().saturating_mul(per_expert), p.out.len())?;
        check("experts' bias", rows, p.bias.map_or(rows, <[f32]>::len))?;
        Ok(plan.kind)
    }
}

/// One projection, ready for the workers.
struct Part<'a> {
    plan: Plan<'a>,
    weight: Weight<'a>,
    bias: Option<&'a [f32]>,
    out: Shared<'a, f32>,
    /// Rows of one expert.
    rows: usize,
}

impl Kernels {
    fn part<'a>(
        &'a self,
        activations: Activations,
        routes: Routes<'_>,
        p: &'a mut ExpertProjection<'_>,
    ) -> Option<Part<'a>> {
        Some(Part {
            plan: self.plan(activations, p.weight.ty)?,
            weight: p.weight,
            bias: p.bias,
            out: Shared::new(p.out),
            rows: p.weight.rows / routes.experts,
        })
    }
}

impl ExpertScratch {
    /// Runs all tasks in one parallel region; a row of the activations `all` serves `slots` places.
    fn run(
        &self,
        parallel: &dyn Parallel,
        workers: &[Mutex<Worker>],
        all: &[Acts; 3],
        slots: usize,
        parts: &[Option<Part<'_>>; GROUP],
    ) {
        let rows_of = |task: &Task| {
            let part = parts[task.projection].as_ref()?;
            Some(part.weight.slice_rows(task.expert as usize * part.rows + task.first_row, task.rows).bytes)
        };
        let run = |worker: usize, index: usize| {
            let task = self.tasks[index];
            let (Some(part), Some(bytes)) = (&parts[task.projection], rows_of(&task)) else { return };
            // A panic elsewhere leaves nothing half-written that this task reads.
            let mut worker = workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
            let (kind, places) = (part.plan.kind as usize, self.places_of(task.expert));
            if places.len() == 1 {
                request(&bytes[..bytes.len().min(FIRST)]);
            }
            let mut gathered = std::mem::take(&mut worker.gathered[kind]);
            let first = task.expert as usize * part.rows;
            let job = Job {
                weight: part.weight.slice_rows(first, part.rows),
                bias: part.bias.map(|bias| &bias[first..][..part.rows]),
                out: part.out,
                out_tokens: Some(places),
                // Workers claim tasks in turn, so this one's next is as many tasks on as there are workers.
                next: self.tasks.get(index + parallel.threads()).and_then(rows_of),
                acts: gathered.get(
                    &all[kind],
                    task.expert,
                    places.iter().map(|&place| place as usize / slots),
                ),
                kernels: part.plan.kernels,
                reference: part.plan.reference,
            };
            job.task(&mut worker, task.first_row, task.rows);
            worker.gathered[kind] = gathered;
        };
        // Tasks shrink towards the end, so they are claimed from the first to the last, whatever order `parallel` keeps.
        let claimed = AtomicUsize::new(0);
        parallel.run(self.tasks.len().min(parallel.threads()), &|worker, _| {
            let claims = std::iter::repeat_with(|| claimed.fetch_add(1, Ordering::Relaxed));
            claims.take_while(|&index| index < self.tasks.len()).for_each(|index| run(worker, index));
        });
    }

    /// Where an expert's outputs go.
    fn places_of(&self, expert: u32) -> &[u32] {
        &self.places[self.starts[expert as usize]..self.starts[expert as usize + 1]]
    }

    /// Groups the places by expert: a counting sort.
    fn group(&mut self, routes: Routes<'_>) {
        self.starts.clear();
        self.starts.resize(routes.experts + 1, 0);
        for &id in routes.ids {
            self.starts[id as usize] += 1;
        }
        // Counts to ends; filling from the back turns ends into starts.
        let mut end = 0;
        for start in &mut self.starts {
            end += *start;
            *start = end;
        }
        self.places.resize(routes.ids.len(), 0);
        for (place, &id) in routes.ids.iter().enumerate().rev() {
            self.starts[id as usize] -= 1;
            self.places[self.starts[id as usize]] = place as u32;
        }
    }

    /// Cuts the work into tasks, in the order of the file: whole experts, and towards the end less and less of one, so
    /// that the workers end together. The projections of an expert follow each other, for they share its activations.
    fn split(&mut self, threads: usize, routes: Routes<'_>, projections: &[ExpertProjection<'_>]) {
        self.tasks.clear();
        let chosen = (0..).zip(self.starts.windows(2)).filter(|(_, ends)| ends[0] < ends[1]);
        let chosen = chosen.map(|(expert, ends)| (expert, (ends[1] - ends[0]).max(READ)));
        let rows = |p: &ExpertProjection<'_>| p.weight.rows / routes.experts;
        let all_rows: usize = projections.iter().map(rows).sum();
        let mut left = chosen.clone().map(|(_, cost)| cost * all_rows).sum::<usize>();
        for (expert, cost) in chosen {
            for (projection, p) in projections.iter().enumerate() {
                let mut first_row = 0;
                while first_row < rows(p) {
                    let rest = rows(p) - first_row;
                    let share = (left / (threads * SHARES) / cost).max(1);
                    let pieces = if threads == 1 { 1 } else { rest.div_ceil(share) };
                    let rows = rest.div_ceil(pieces).next_multiple_of(ROW_GROUP).min(rest);
                    self.tasks.push(Task { projection, expert, first_row, rows });
                    first_row += rows;
                    left -= cost * rows;
                }
            }
        }
    }
}

impl Gathered {
    /// The activations of an expert whose tokens are these rows of `all`.
    fn get<'a>(
        &'a mut self,
        all: &'a Acts,
        expert: u32,
        rows: impl ExactSizeIterator<Item = usize> + Clone,
    ) -> &'a Acts {
        if rows.len() == all.tokens && rows.clone().eq(0..all.tokens) {
            return all;
        }
        let of = Some((all.stamp, expert));
        if self.of != of {
            self.acts.gather(all, rows);
            self.of = of;
        }
        &self.acts
    }
}

/// What is left is shared out among the workers in so many tasks each.
const SHARES: usize = 2;
/// Rows cost reading them, which takes as long as multiplying so many tokens with them.
const READ: usize = 3;
/// Bytes of a task's rows that are asked for first: as far ahead as the kernels of one token ask.
const FIRST: usize = 16 << 10;

/// Asks for memory that will be read soon, where there is an instruction for it.
fn request(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    crate::x86::request(bytes);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// The experts' answers to one token become one: `out = sum over slots of weights[slot] * y[slot]`, added in the order
/// of the slots to +0.0. `y` is `[slots][out.len()]`.
///
/// # Panics
/// If `y` has another length.
pub fn combine_experts(isa: Isa, y: &[f32], weights: &[f32], out: &mut [f32]) {
    assert!(y.len() == weights.len() * out.len(), "combine_experts: the lengths differ");
    out.fill(0.0);
    if out.is_empty() {
        return;
    }
    for (y, &weight) in y.chunks_exact(out.len()).zip(weights) {
        crate::simd::dispatch(isa, crate::simd::Zip { x: out, y, f: move |out, y| out + weight * y });
    }
}
