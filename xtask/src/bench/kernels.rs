//! `cargo xtask bench kernels`: every type's matmul from cache and memory, beside the machine's limits and ggml's own
//! `vec_dot`, `mul_mat` and `mul_mat_id`, in interleaved rounds.

use super::engine::Engine;
use super::plan::{
    EXPERT, EXPERT_TOKENS, EXPERTS, Figures, Job, Measured, Memory, SHAPES, Shape, USED, expert_operations,
    tables,
};
use super::{Options, build_ours, build_peer};
use crate::model::blocks;
use crate::tidy;
use anyhow::{Context as _, Result};
use quant_kernels::{GgmlType, Isa, Kernels};
use serde_json::Value;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Bytes of weights: far more than a last-level cache.
const WEIGHTS: usize = 256 << 20;
/// Bytes of the weights that are to stay in the L2 cache.
const CACHED: usize = 512 << 10;
/// Columns of those.
const CACHED_COLS: usize = 4096;
/// The other engine's threads spin for a few milliseconds after its job.
const SETTLE: Duration = Duration::from_millis(5);
/// Matmuls of this many tokens and more do not depend on where weights come from: one slice will do.
const MANY_TOKENS: usize = 64;

/// Measures the types asked for.
pub fn run(options: &Options) -> Result<Vec<Value>> {
    let kernels = Kernels::new(Isa::Scalar);
    let asked = |ty: &&GgmlType| options.types.is_empty() || options.types.contains(ty);
    let types: Vec<GgmlType> =
        GgmlType::ALL.iter().filter(asked).copied().filter(|&ty| kernels.of(ty).is_some()).collect();
    let mut bench = Bench {
        ours: Engine::start("quant", Command::new(build_ours()?).arg("engine-kernels"))?,
        peer: match options.peer {
            true => Some(Engine::start("ggml", Command::new(build_peer()?).arg("kernels"))?),
            false => None,
        },
        options,
        measured: Vec::new(),
    };
    for (number, &ty) in types.iter().enumerate() {
        eprintln!("{ty} ({} of {})", number + 1, types.len());
        let weights = WeightFile::write(ty)?;
        bench.measure(ty, &weights)?;
    }
    tables(&bench.measured);
    Ok(bench.measured.iter().map(Measured::row).collect())
}

/// Random weights on disk while a type is measured.
struct WeightFile {
    path: PathBuf,
    bytes: usize,
}

impl WeightFile {
    fn write(ty: GgmlType) -> Result<Self> {
        let folder = tidy::root().join("target/bench-models");
        std::fs::create_dir_all(&folder)?;
        let [rows, cols] = SHAPES[0];
        let slice = ty.row_bytes(cols) * rows;
        // At least as many as all experts together have, but for float types, of which nobody makes experts.
        let experts = EXPERTS * EXPERT[0] * ty.row_bytes(EXPERT[1]);
        let least = if ty.bits_per_value() > 10.0 { WEIGHTS } else { WEIGHTS.max(experts) };
        let slices = least.div_ceil(slice);
        let this =
            Self { path: folder.join(format!("kernels-{}", std::process::id())), bytes: slice * slices };
        let mut file =
            File::create(&this.path).with_context(|| format!("creating {}", this.path.display()))?;
        let random = blocks::random(ty, slice, 1);
        for _ in 0..slices {
            file.write_all(&random)?;
        }
        Ok(this)
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WeightFile {
    fn drop(&mut self) {
        // Left behind it would only cost space.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Both engines and what they measured.
struct Bench<'a> {
    ours: Engine,
    peer: Option<Engine>,
    options: &'a Options,
    measured: Vec<Measured>,
}

/// The jobs of one measurement, and what turns their seconds into a rate.
struct Round {
    quant: String,
    /// Answers with a rate by itself, under this name.
    limit: Option<(String, &'static str)>,
    /// The same, where arithmetic and reading both may be the limit.
    peak: Option<(String, &'static str)>,
    plain: Option<String>,
    repack: Option<String>,
    vec_dot: Option<String>,
    /// Bytes or operations of one call, in 10^9.
    work: f64,
    /// The same for `vec_dot`, which goes over all weights at once.
    vec_dot_work: f64,
}

impl Bench<'_> {
    fn measure(&mut self, ty: GgmlType, weights: &WeightFile) -> Result<()> {
        let job = format!("weights {} {} {}", weights.path().display(), ty.id(), ty.row_bytes(2048));
        self.ours.ask(&job)?;
        let known = match &mut self.peer {
            Some(peer) => peer.ask(&job)?["known"] == true,
            None => false,
        };
        let threads = self.options.threads.clone();
        self.cache(ty, known)?;
        for shape in SHAPES {
            for &threads in &threads {
                if self.options.tokens.contains(&1) {
                    for memory in [Memory::File, Memory::Huge] {
                        self.gemv(ty, known, weights.bytes, memory, shape, threads)?;
                    }
                }
            }
            for &tokens in self.options.tokens.iter().filter(|&&tokens| tokens > 1) {
                for &threads in &threads {
                    self.gemm(ty, known, shape, tokens, threads)?;
                }
            }
        }
        let [rows, cols] = EXPERT;
        if EXPERTS * rows * ty.row_bytes(cols) <= weights.bytes && ty.block_len() > 1 {
            for tokens in
                EXPERT_TOKENS.into_iter().filter(|tokens| self.options.tokens.iter().max() >= Some(tokens))
            {
                for &threads in &threads {
                    self.experts(ty, known, tokens, threads)?;
                }
            }
        }
        Ok(())
    }

    fn cache(&mut self, ty: GgmlType, known: bool) -> Result<()> {
        let rows = (CACHED / ty.row_bytes(CACHED_COLS)).next_multiple_of(64);
        let job = format!("cache {CACHED_COLS} {}", rows);
        let work = (rows * ty.row_bytes(CACHED_COLS)) as f64 / 1e9;
        let round = Round {
            quant: job.clone(),
            limit: None,
            peak: None,
            plain: None,
            repack: None,
            vec_dot: known.then_some(job),
            work,
            vec_dot_work: work,
        };
        self.rounds(ty, Job::Cache, 1, &round)
    }

    fn gemv(
        &mut self,
        ty: GgmlType,
        known: bool,
        bytes: usize,
        memory: Memory,
        shape: Shape,
        threads: usize,
    ) -> Result<()> {
        let [rows, cols] = shape;
        let place = memory.name();
        let mul = |place: &str| format!("mul {place} {rows} {cols} 1 {threads} {}", usize::MAX >> 1);
        let file = memory == Memory::File;
        let round = Round {
            quant: mul(place),
            limit: Some((format!("read {place} {threads}"), "gb_per_s")),
            peak: None,
            plain: known.then(|| mul(place)),
            // The repacked weights lie in a buffer of ggml's own, whatever ours lie in.
            repack: (known && file).then(|| mul("repack")),
            vec_dot: (known && threads == 1 && shape == SHAPES[0]).then(|| format!("dots {place} {cols}")),
            work: (rows * ty.row_bytes(cols)) as f64 / 1e9,
            vec_dot_work: bytes as f64 / 1e9,
        };
        self.rounds(ty, Job::Gemv { memory, shape }, threads, &round)
    }

    fn gemm(&mut self, ty: GgmlType, known: bool, shape: Shape, tokens: usize, threads: usize) -> Result<()> {
        let [rows, cols] = shape;
        let slices = if tokens >= MANY_TOKENS { 1 } else { usize::MAX >> 1 };
        let mul = |place: &str| format!("mul {place} {rows} {cols} {tokens} {threads} {slices}");
        let round = Round {
            quant: mul("file"),
            limit: Some((format!("peak {threads}"), "gops")),
            peak: None,
            plain: known.then(|| mul("file")),
            repack: known.then(|| mul("repack")),
            vec_dot: None,
            work: 2.0 * (rows * cols * tokens) as f64 / 1e9,
            vec_dot_work: 0.0,
        };
        self.rounds(ty, Job::Gemm { shape, tokens }, threads, &round)
    }

    fn experts(&mut self, ty: GgmlType, known: bool, tokens: usize, threads: usize) -> Result<()> {
        let [rows, cols] = EXPERT;
        let job = |place: &str| {
            format!("experts {place} {rows} {cols} {tokens} {threads} {EXPERTS} {USED} {}", tokens + 1)
        };
        let round = Round {
            quant: job("file"),
            limit: Some((format!("read file {threads}"), "gb_per_s")),
            peak: Some((format!("peak {threads}"), "gops")),
            plain: known.then(|| job("file")),
            repack: known.then(|| job("repack")),
            vec_dot: None,
            work: expert_operations(tokens) / 1e9,
            vec_dot_work: 0.0,
        };
        self.rounds(ty, Job::Experts { tokens }, threads, &round)
    }

    /// Every engine once per round.
    fn rounds(&mut self, ty: GgmlType, job: Job, threads: usize, round: &Round) -> Result<()> {
        let mut figures = Figures::default();
        for _ in 0..self.options.reps {
            for (limit, samples) in [(&round.limit, &mut figures.limit), (&round.peak, &mut figures.peak)] {
                if let Some((job, answer)) = limit {
                    std::thread::sleep(SETTLE);
                    samples.push(self.ours.ask(job)?[answer].as_f64().unwrap_or_default());
                }
            }
            figures.quant.push(round.work / self.ours.seconds(&round.quant)?.unwrap_or(f64::NAN));
            let Some(peer) = &mut self.peer else { continue };
            for (job, samples, work) in [
                (&round.plain, &mut figures.plain, round.work),
                (&round.repack, &mut figures.repack, round.work),
                (&round.vec_dot, &mut figures.vec_dot, round.vec_dot_work),
            ] {
                if let Some(job) = job {
                    std::thread::sleep(SETTLE);
                    samples.push(work / peer.seconds(job)?.unwrap_or(f64::NAN));
                }
            }
        }
        self.measured.push(Measured { ty, job, threads, figures });
        Ok(())
    }
}
