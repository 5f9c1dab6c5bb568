//! ggml's kernels one by one, over weights that the parent wrote to a file. Jobs, one a line:
//!
//! - `weights PATH TYPE_ID ROW_BYTES`: maps the file and copies it into huge pages; a row is 2048 values long;
//! - `cache COLS ROWS`: `vec_dot` over the first rows, which fit the L2 cache; seconds of a pass;
//! - `dots MEM COLS`: `vec_dot` over all of them; seconds of a pass; `MEM` is `file` or `huge`;
//! - `mul MEM ROWS COLS TOKENS THREADS SLICES`: `mul_mat`; seconds of one; `MEM` may be `repack`; consecutive calls
//!   use consecutive slices of the weights, at most `SLICES` of them;
//! - `experts MEM ROWS COLS TOKENS THREADS EXPERTS USED SEED`: `mul_mat_id`; seconds of one;
//! - `attention TYPE DIM GROUP HEADS CONTEXT TOKENS THREADS`: [`attention`]; needs no weights.
//!
//! Seconds are null where ggml has no such kernel.

use crate::attention;
use crate::ggml::{Backend, Graph, Weights};
use anyhow::{Context as _, Result, bail};
use llama_cpp_sys_2 as sys;
use memmap2::{Advice, Mmap, MmapMut};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fs::File;
use std::io::BufRead as _;
use std::time::{Duration, Instant};

/// How long one measurement goes on, warm-up aside.
const BUDGET: Duration = Duration::from_millis(50);
/// Matmuls in a graph: starting one must not weigh.
const GROUP: usize = 4;
/// Choices of experts that calls take turns with.
const CHOICES: usize = 64;

/// The weights of the jobs that follow.
struct Loaded {
    /// Tensors made last, one set for each kind of memory. Dropped before the memory that they point into.
    made: BTreeMap<String, (Made, Option<Weights>)>,
    ty: sys::ggml_type,
    row_bytes: usize,
    file: Mmap,
    huge: MmapMut,
}

/// What a set of tensors was made for: columns, rows, experts; how many.
type Made = ([i64; 3], usize);

/// Answers jobs until standard input ends.
pub fn serve() -> Result<()> {
    let backend = Backend::new()?;
    let mut loaded: Option<Loaded> = None;
    let mut turn = 0;
    println!("{}", json!({ "ready": true }));
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let seconds = match words.as_slice() {
            ["weights", path, ty, row_bytes] => {
                drop(loaded.take());
                loaded = load(path, ty.parse()?, row_bytes.parse()?)?;
                println!("{}", json!({ "known": loaded.is_some() }));
                continue;
            }
            ["attention", ty, numbers @ ..] => {
                let numbers: Vec<i64> = numbers.iter().map(|n| n.parse()).collect::<Result<_, _>>()?;
                let numbers = numbers.try_into().ok().context("six numbers")?;
                let graph = attention::graph(&backend, ty, numbers)?;
                Some(measure(|| backend.compute(&graph).map(|()| 1.0))?)
            }
            _ => match &mut loaded {
                None => None,
                Some(loaded) => loaded.job(&backend, &words, &mut turn)?,
            },
        };
        println!("{}", json!({ "seconds": seconds.map_or(Value::Null, Value::from) }));
    }
    Ok(())
}

/// `None` if ggml doesn't know the type, or lays it out in another way. `row_bytes` are of 2048 values.
fn load(path: &str, ty: u32, row_bytes: usize) -> Result<Option<Loaded>> {
    // SAFETY: any id below the count is a type.
    if ty >= sys::GGML_TYPE_COUNT || unsafe { sys::ggml_row_size(ty, 2048) } != row_bytes {
        return Ok(None);
    }
    // SAFETY: the parent keeps the file as it is while we have it.
    let file = unsafe { Mmap::map(&File::open(path).with_context(|| format!("opening {path}"))?)? };
    let mut huge = MmapMut::map_anon(file.len())?;
    huge.advise(Advice::HugePage)?;
    huge.copy_from_slice(&file);
    Ok(Some(Loaded { made: BTreeMap::new(), ty, row_bytes, file, huge }))
}

impl Loaded {
    fn bytes(&self, memory: &str) -> &[u8] {
        if memory == "huge" { &self.huge } else { &self.file }
    }

    fn job(&mut self, backend: &Backend, words: &[&str], turn: &mut usize) -> Result<Option<f64>> {
        let numbers: Vec<i64> = words.iter().filter_map(|word| word.parse().ok()).collect();
        match (words, numbers.as_slice()) {
            (["cache", ..], &[cols, rows]) => Ok(self.dots("huge", cols, Some(rows as usize))),
            (["dots", memory, ..], &[cols]) => Ok(self.dots(memory, cols, None)),
            (["mul", memory, ..], &[rows, cols, tokens, threads, slices]) => {
                let fit = self.bytes(memory).len() / (self.row_bytes * rows as usize * cols as usize / 2048);
                let slices = fit.min(slices as usize);
                let Some(weights) = self.prepare(backend, memory, ([cols, rows, 1], slices))? else {
                    return Ok(None);
                };
                backend.threads(threads as i32);
                let x = input((tokens * cols) as usize);
                // SAFETY: the graphs live in this block only, the weights in `self`.
                let graphs = weights
                    .tensors
                    .chunks(GROUP.min(slices.div_ceil(2)))
                    .map(|group| Ok((unsafe { Graph::mul_mat(group, &x, cols, tokens)? }, group.len())))
                    .collect::<Result<Vec<_>>>()?;
                measure(|| {
                    let (graph, count) = &graphs[*turn % graphs.len()];
                    *turn += 1;
                    backend.compute(graph)?;
                    Ok(*count as f64)
                })
                .map(Some)
            }
            (["experts", memory, ..], &[rows, cols, tokens, threads, experts, used, seed]) => {
                let Some(weights) = self.prepare(backend, memory, ([cols, rows, experts], 1))? else {
                    return Ok(None);
                };
                backend.threads(threads as i32);
                let x = input((tokens * cols) as usize);
                // SAFETY: the graph lives in this block only, the weights in `self`.
                let graph = unsafe { Graph::mul_mat_id(weights.tensors[0], &x, cols, tokens, used)? };
                let mut choice = Choice(seed as u64);
                let choices: Vec<_> = (0..CHOICES)
                    .map(|_| choice.ids(tokens as usize, used as usize, experts as usize))
                    .collect();
                measure(|| {
                    *turn += 1;
                    graph.set_ids(&choices[*turn % CHOICES])?;
                    backend.compute(&graph)?;
                    Ok(1.0)
                })
                .map(Some)
            }
            _ => bail!("unknown job {words:?}"),
        }
    }

    /// The tensors of a shape: those of the last job in this memory if it had the same. `None` if there is no such thing.
    fn prepare(&mut self, backend: &Backend, memory: &str, made: Made) -> Result<Option<&Weights>> {
        let (shape, slices) = made;
        let bytes = self.row_bytes as i64 * shape[0] / 2048 * shape[1] * shape[2];
        if slices == 0 || bytes * slices as i64 > self.file.len() as i64 {
            return Ok(None);
        }
        if self.made.get(memory).is_none_or(|(last, _)| *last != made) {
            self.made.remove(memory);
            let repack = memory == "repack";
            // SAFETY: the mappings are dropped after `made`, and nobody writes to them.
            let weights =
                unsafe { Weights::new(backend, self.bytes(memory), self.ty, shape, slices, repack)? };
            self.made.insert(memory.to_owned(), (made, weights));
        }
        Ok(self.made.get(memory).and_then(|(_, weights)| weights.as_ref()))
    }

    /// Seconds of a pass of `vec_dot` over rows.
    fn dots(&self, memory: &str, cols: i64, rows: Option<usize>) -> Option<f64> {
        let row_bytes = self.row_bytes * cols as usize / 2048;
        let rows = rows.unwrap_or(self.file.len() / row_bytes).min(self.file.len() / row_bytes);
        let x = input(cols as usize);
        // SAFETY: ggml's table lives for ever; `y` is as long as a row of the type that it is filled with (twice, to be
        // sure); rows lie within the weights.
        unsafe {
            let traits = &*sys::ggml_get_type_traits_cpu(self.ty);
            let dot = traits.vec_dot?;
            let mut y = vec![0u64; sys::ggml_row_size(traits.vec_dot_type, cols) / 4];
            let y = y.as_mut_ptr().cast::<c_void>();
            match (*sys::ggml_get_type_traits_cpu(traits.vec_dot_type)).from_float {
                _ if traits.vec_dot_type == sys::GGML_TYPE_F32 => {
                    y.copy_from_nonoverlapping(x.as_ptr().cast(), size_of_val(x.as_slice()));
                }
                Some(from_float) => from_float(x.as_ptr(), y, cols),
                None => return None,
            }
            let weights = self.bytes(memory).as_ptr();
            measure(|| {
                let mut sum = 0.0;
                for row in 0..rows {
                    let mut out = 0f32;
                    dot(cols as i32, &mut out, 0, weights.add(row * row_bytes).cast(), 0, y, 0, 1);
                    sum += out;
                }
                std::hint::black_box(sum);
                Ok(1.0)
            })
            .ok()
        }
    }
}

/// Median seconds of a unit of `work`, which returns how many it did; the first call only warms up, unless it took so
/// long that it must do.
fn measure(mut work: impl FnMut() -> Result<f64>) -> Result<f64> {
    let start = Instant::now();
    let units = work()?;
    if start.elapsed() > 4 * BUDGET {
        return Ok(start.elapsed().as_secs_f64() / units);
    }
    let mut seconds = Vec::new();
    let start = Instant::now();
    while seconds.is_empty() || start.elapsed() < BUDGET {
        let before = Instant::now();
        let units = work()?;
        seconds.push(before.elapsed().as_secs_f64() / units);
    }
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().context("no measurement")
}

/// Activations as ours has them.
fn input(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect()
}

/// Which experts tokens go to: distinct ones for each token, the same for both engines.
struct Choice(u64);

impl Choice {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % below as u64) as usize
    }

    fn ids(&mut self, tokens: usize, used: usize, experts: usize) -> Vec<i32> {
        let mut ids = Vec::with_capacity(tokens * used);
        let mut order: Vec<i32> = (0..experts as i32).collect();
        for _ in 0..tokens {
            for place in 0..used {
                let other = place + self.next(experts - place);
                order.swap(place, other);
            }
            ids.extend_from_slice(&order[..used]);
        }
        ids
    }
}
