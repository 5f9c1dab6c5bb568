//! Our kernels behind the benchmark protocol (the hidden task `engine-kernels`): the jobs of `xtask/peers`, and the
//! machine's limits, which only we measure:
//!
//! - `weights PATH TYPE_ID ROW_BYTES`: maps the file and copies it into huge pages; a row is 2048 values long;
//! - `cache COLS ROWS`: one token times the first rows, which fit the L2 cache; seconds;
//! - `mul MEM ROWS COLS TOKENS THREADS SLICES`: a matmul; seconds; `MEM` is `file` or `huge`; consecutive calls use
//!   consecutive slices of the weights, at most `SLICES` of them;
//! - `experts MEM ROWS COLS TOKENS THREADS EXPERTS USED SEED`: each token times some of the experts; seconds;
//! - `attention KEYS VALUES DIM GROUP HEADS CONTEXT TOKENS THREADS`: seconds of attention over a KV cache
//!   ([`super::attention`]); needs no weights;
//! - `encode KEYS VALUES DIM`: seconds of encoding a page of keys and one of values; codecs only;
//! - `read MEM THREADS`: GB/s of reading all weights; `peak THREADS`: 10^9 operations per second of the arithmetic that
//!   the type's matmul is made of.

use anyhow::{Context as _, Result, bail};
use memmap2::MmapMut;
use quant_gguf::Bytes;
use quant_kernels::activations::ActKind;
use quant_kernels::matmul::{ExpertProjection, MatmulScratch, Routes};
use quant_kernels::{Activations, GgmlType, Isa, Kernels, Projection, Team, Weight};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::time::{Duration, Instant};

use super::attention;
use crate::limits;

/// How long one measurement goes on, warm-up aside.
const BUDGET: Duration = Duration::from_millis(50);
/// Matmuls between two readings of the clock, as in the peer's graphs.
const GROUP: usize = 4;
/// Choices of experts that calls take turns with.
const CHOICES: usize = 64;

/// The weights of the jobs that follow.
struct Loaded {
    ty: GgmlType,
    file: Bytes,
    huge: MmapMut,
}

struct Ours {
    kernels: Kernels,
    teams: BTreeMap<usize, Team>,
    scratch: MatmulScratch,
    loaded: Option<Loaded>,
    turn: usize,
}

/// Answers jobs until standard input ends.
pub fn run() -> Result<()> {
    let isa = super::isa()?;
    let mut ours = Ours {
        kernels: Kernels::new(isa),
        teams: BTreeMap::new(),
        scratch: MatmulScratch::default(),
        loaded: None,
        turn: 0,
    };
    println!("{}", json!({ "ready": true, "isa": isa.name() }));
    for line in std::io::stdin().lock().lines() {
        println!("{}", ours.answer(&line?)?);
    }
    Ok(())
}

/// Seconds of encoding a page of keys and one of values, as sealing does.
fn encode(isa: Isa, keys: &str, values: &str, dim: usize) -> Result<f64> {
    let mut pages = attention::Encoder::new(keys, values, dim)?;
    measure(|| {
        pages.encode(isa)?;
        Ok(1.0)
    })
}

impl Ours {
    fn answer(&mut self, line: &str) -> Result<Value> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["weights", path, ty, _] = words.as_slice() {
            self.loaded = None;
            self.loaded = Some(load(path, ty.parse()?)?);
            return Ok(json!({ "known": true }));
        }
        let numbers: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
        if let (["attention", keys, values, ..], &[dim, group, heads, context, tokens, threads]) =
            (words.as_slice(), numbers.as_slice())
        {
            let job = attention::Job { keys, values, dim, group, heads, context, tokens };
            return Ok(json!({ "seconds": self.attend(&job, threads)? }));
        }
        if let (["encode", keys, values, ..], &[dim]) = (words.as_slice(), numbers.as_slice()) {
            return Ok(json!({ "seconds": encode(self.kernels.isa(), keys, values, dim)? }));
        }
        let loaded = self.loaded.as_ref().context("weights come first")?;
        let memory = words.get(1).copied().unwrap_or_default();
        Ok(match (words.as_slice(), numbers.as_slice()) {
            (["cache", ..], &[cols, rows]) => {
                let seconds = self.multiply("huge", [rows, cols], 1, 1, 1)?;
                json!({ "seconds": seconds })
            }
            (["mul", ..], &[rows, cols, tokens, threads, slices]) => {
                let seconds = self.multiply(memory, [rows, cols], tokens, threads, slices)?;
                json!({ "seconds": seconds })
            }
            (["experts", ..], &[rows, cols, tokens, threads, experts, used, seed]) => {
                let seconds =
                    self.experts(memory, [rows, cols], tokens, threads, [experts, used], seed as u64)?;
                json!({ "seconds": seconds })
            }
            (["read", ..], &[threads]) => {
                let bytes = loaded.bytes(memory);
                let team = team(&mut self.teams, threads)?;
                json!({ "gb_per_s": limits::read_bandwidth(team, bytes) })
            }
            (["peak", ..], &[threads]) => {
                let isa: Isa = self.kernels.isa();
                let float = self.kernels.of(loaded.ty).is_some_and(|kernels| kernels.acts == ActKind::F32);
                let team = team(&mut self.teams, threads)?;
                let peak = if float { limits::f32_peak(isa, team) } else { limits::int8_peak(isa, team) };
                peak.map_or(json!({}), |peak| json!({ "gops": peak.gops, "instruction": peak.instruction }))
            }
            _ => bail!("unknown job {line}"),
        })
    }

    /// Seconds of attention.
    fn attend(&mut self, job: &attention::Job<'_>, threads: usize) -> Result<f64> {
        let isa = self.kernels.isa();
        let cache = attention::Cache::new(isa, job)?;
        let team = team(&mut self.teams, threads)?;
        let (pages, mut workers) = (cache.pages(), Vec::new());
        measure(|| {
            cache.attend(isa, team, &pages, &mut workers);
            Ok(1.0)
        })
    }

    /// Seconds of a matmul of this shape.
    fn multiply(
        &mut self,
        memory: &str,
        [rows, cols]: [usize; 2],
        tokens: usize,
        threads: usize,
        slices: usize,
    ) -> Result<f64> {
        let loaded = self.loaded.as_ref().context("weights come first")?;
        let bytes = loaded.bytes(memory);
        let slice = loaded.ty.row_bytes(cols) * rows;
        let slices = slices.min(bytes.len() / slice);
        let weights = bytes
            .chunks_exact(slice)
            .take(slices)
            .map(|bytes| Ok(Weight::new(loaded.ty, rows, cols, bytes)?))
            .collect::<Result<Vec<_>>>()?;
        let x = activations(tokens * cols);
        let mut out = vec![0.0; tokens * rows];
        let team = team(&mut self.teams, threads)?;
        let group = GROUP.min(slices.div_ceil(2));
        measure(|| {
            for _ in 0..group {
                let weight = weights[self.turn % weights.len()];
                self.turn += 1;
                let mut projections = [Projection { weight, bias: None, out: &mut out }];
                self.kernels.matmul(
                    team,
                    &mut self.scratch,
                    Activations::Auto,
                    &x,
                    tokens,
                    &mut projections,
                )?;
            }
            Ok(group as f64)
        })
    }

    /// Seconds of a matmul of so many tokens with some of the experts each.
    fn experts(
        &mut self,
        memory: &str,
        [rows, cols]: [usize; 2],
        tokens: usize,
        threads: usize,
        [experts, used]: [usize; 2],
        seed: u64,
    ) -> Result<f64> {
        let loaded = self.loaded.as_ref().context("weights come first")?;
        let bytes = &loaded.bytes(memory)[..loaded.ty.row_bytes(cols) * rows * experts];
        let weight = Weight::new(loaded.ty, rows * experts, cols, bytes)?;
        let x = activations(tokens * cols);
        let mut out = vec![0.0; tokens * used * rows];
        let mut choice = Choice(seed);
        let choices: Vec<Vec<u32>> = (0..CHOICES).map(|_| choice.ids(tokens, used, experts)).collect();
        let team = team(&mut self.teams, threads)?;
        measure(|| {
            self.turn += 1;
            let routes = Routes::new(experts, used, &choices[self.turn % CHOICES])?;
            let mut projections = [ExpertProjection { weight, bias: None, out: &mut out }];
            self.kernels.matmul_experts(
                team,
                &mut self.scratch,
                Activations::Auto,
                &x,
                routes,
                &mut projections,
            )?;
            Ok(1.0)
        })
    }
}

/// Random activations of a normal distribution, nearly: as a model's are, and unlike evenly spread ones, whose sums of
/// products come near the bounds that kernels have quicker ways below.
fn activations(len: usize) -> Vec<f32> {
    let mut random = Choice(1);
    (0..len).map(|_| (0..6).map(|_| random.next(1 << 12) as f32).sum::<f32>() / 4096.0 - 3.0).collect()
}

/// Which experts tokens go to: distinct ones for each token, the same for both engines (the peer has the same rule).
struct Choice(u64);

impl Choice {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % below as u64) as usize
    }

    fn ids(&mut self, tokens: usize, used: usize, experts: usize) -> Vec<u32> {
        let mut ids = Vec::with_capacity(tokens * used);
        let mut order: Vec<u32> = (0..experts as u32).collect();
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

impl Loaded {
    fn bytes(&self, memory: &str) -> &[u8] {
        if memory == "huge" { &self.huge } else { &self.file }
    }
}

fn load(path: &str, ty: u32) -> Result<Loaded> {
    let ty = GgmlType::from_id(ty).context("a type's id")?;
    let file = Bytes::open(path)?;
    let mut huge = MmapMut::map_anon(file.len())?;
    #[cfg(target_os = "linux")]
    huge.advise(memmap2::Advice::HugePage)?;
    huge.copy_from_slice(&file);
    Ok(Loaded { ty, file, huge })
}

/// The team of so many threads, made on first use.
fn team(teams: &mut BTreeMap<usize, Team>, threads: usize) -> Result<&Team> {
    use std::collections::btree_map::Entry;
    Ok(match teams.entry(threads) {
        Entry::Occupied(team) => team.into_mut(),
        Entry::Vacant(place) => place.insert(Team::new(threads)?),
    })
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
    Ok(crate::report::median(&mut seconds))
}
