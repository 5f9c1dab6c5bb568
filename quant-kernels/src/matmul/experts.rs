//! Mixtures of experts: many small matrices, each met by the few tokens that chose it.
//!
//! Tokens are grouped by expert, so that an expert's rows are read once for all of its tokens, and experts that nobody
//! chose are not read at all. The bits are those of [`Kernels::matmul`] of one token with one expert.

use super::{GROUP, Job, MatmulScratch, Plan, ROW_GROUP, Shared, TASKS_PER_THREAD, Weight, Worker};
use crate::activations::{ActKind, Acts, SERIAL_VALUES};
use crate::{Activations, Error, Isa, Kernels, Parallel, Serial};
use std::sync::{Mutex, PoisonError, RwLock};

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
    /// Chosen experts, those with most tokens first.
    chosen: Vec<u32>,
    /// The activations of the chosen experts, in that order; sorted so, the buffers of all calls together stay within a
    /// small multiple of the largest call.
    acts: Vec<[RwLock<Acts>; 3]>,
    tasks: Vec<Task>,
}

/// Some rows of one expert's part of one projection.
#[derive(Debug, Clone, Copy)]
struct Task {
    projection: usize,
    /// Index into [`ExpertScratch::chosen`].
    rank: usize,
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
                experts.gather(parallel, &acts[kind as usize], kind, routes, rows);
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
            experts.run(parallel, workers, &parts);
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
    /// Runs all tasks in one parallel region.
    fn run(&self, parallel: &dyn Parallel, workers: &[Mutex<Worker>], parts: &[Option<Part<'_>>; GROUP]) {
        parallel.run(self.tasks.len(), &|worker, task| {
            let Task { projection, rank, first_row, rows } = self.tasks[task];
            let Some(part) = &parts[projection] else { return };
            let expert = self.chosen[rank] as usize;
            let acts = &self.acts[rank][part.plan.kind as usize];
            // A panic elsewhere leaves nothing half-written that this task reads.
            let acts = acts.read().unwrap_or_else(PoisonError::into_inner);
            let mut worker = workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
            // Workers claim tasks in turn, so this one's next is as many tasks on as there are workers.
            let next = self.tasks.get(task + parallel.threads()).and_then(|next| {
                let part = parts[next.projection].as_ref()?;
                let first_row = self.chosen[next.rank] as usize * part.rows + next.first_row;
                Some(part.weight.slice_rows(first_row, next.rows).bytes)
            });
            let job = Job {
                weight: part.weight.slice_rows(expert * part.rows, part.rows),
                bias: part.bias.map(|bias| &bias[expert * part.rows..][..part.rows]),
                out: part.out,
                out_tokens: Some(self.places_of(expert)),
                next,
                acts: &acts,
                kernels: part.plan.kernels,
                reference: part.plan.reference,
            };
            job.task(&mut worker, first_row, rows);
        });
    }

    /// Where an expert's outputs go.
    fn places_of(&self, expert: usize) -> &[u32] {
        &self.places[self.starts[expert]..self.starts[expert + 1]]
    }

    /// Groups the places by expert and ranks the experts: a counting sort.
    fn group(&mut self, routes: Routes<'_>) {
        self.starts.clear();
        self.starts.resize(routes.experts + 1, 0);
        for &id in routes.ids {
            self.starts[id as usize] += 1;
        }
        self.chosen.clear();
        self.chosen.extend((0u32..).zip(&self.starts).filter(|(_, count)| **count > 0).map(|(id, _)| id));
        let counts = &self.starts;
        self.chosen.sort_unstable_by_key(|&id| (std::cmp::Reverse(counts[id as usize]), id));
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
        if self.acts.len() < self.chosen.len() {
            self.acts.resize_with(self.chosen.len(), Default::default);
        }
    }

    /// Collects each expert's activations from those of all rows.
    fn gather(&self, parallel: &dyn Parallel, all: &Acts, kind: ActKind, routes: Routes<'_>, rows: usize) {
        let shared = rows != routes.ids.len();
        // A small input is copied before a region would have started.
        let serial = routes.ids.len() * all.cols <= SERIAL_VALUES;
        let parallel = if serial { &Serial } else { parallel };
        parallel.run(self.chosen.len(), &|_, rank| {
            let expert = self.chosen[rank] as usize;
            let rows = self.places_of(expert).iter().map(|&place| {
                let place = place as usize;
                if shared { place / routes.per_token } else { place }
            });
            let mut acts = self.acts[rank][kind as usize].write().unwrap_or_else(PoisonError::into_inner);
            acts.gather(all, rows);
        });
    }

    /// Cuts the work into tasks, the experts with most tokens first: rows of a task are a multiple of the row groups, and
    /// fewer where more tokens meet them.
    fn split(&mut self, threads: usize, routes: Routes<'_>, projections: &[ExpertProjection<'_>]) {
        self.tasks.clear();
        for (projection, p) in projections.iter().enumerate() {
            let per_expert = p.weight.rows / routes.experts;
            let share = routes.ids.len() * per_expert / (threads * TASKS_PER_THREAD);
            for (rank, &expert) in self.chosen.iter().enumerate() {
                let expert = expert as usize;
                let tokens = self.starts[expert + 1] - self.starts[expert];
                let rows = if threads == 1 { per_expert } else { share / tokens };
                let rows = rows.max(1).next_multiple_of(ROW_GROUP);
                for first_row in (0..per_expert).step_by(rows) {
                    let rows = rows.min(per_expert - first_row);
                    self.tasks.push(Task { projection, rank, first_row, rows });
                }
            }
        }
    }
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
