//! What `cargo xtask bench kernels` measures, and the tables and rows that come of it.

use super::peers::better;
use crate::report::{self, Samples, cell, ratio};
use quant_kernels::GgmlType;
use serde_json::{Value, json};

/// Where weights lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// A mapped file in the page cache, as models are.
    File,
    /// Anonymous memory in huge pages.
    Huge,
}

impl Memory {
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Huge => "huge",
        }
    }
}

/// Rows and columns of a weight.
pub type Shape = [usize; 2];

/// The large matrices of Llama 3.2 1B: gate or up, and down.
pub const SHAPES: [Shape; 2] = [[8192, 2048], [2048, 8192]];
/// An expert of Qwen3-30B-A3B, how many there are and how many a token uses.
pub const EXPERT: Shape = [768, 2048];
pub const EXPERTS: usize = 128;
pub const USED: usize = 8;
/// Tokens of the expert matmul.
pub const EXPERT_TOKENS: [usize; 4] = [1, 4, 32, 512];

/// The medians and spreads of one measurement; what does not exist is empty.
#[derive(Debug, Default)]
pub struct Figures {
    pub quant: Samples,
    /// The machine's limit: for [`Job::Experts`] that of reading.
    pub limit: Samples,
    /// [`Job::Experts`]: the machine's limit of arithmetic.
    pub peak: Samples,
    /// ggml on the weights as they lie.
    pub plain: Samples,
    /// ggml on repacked weights.
    pub repack: Samples,
    /// ggml's `vec_dot` alone, one thread.
    pub vec_dot: Samples,
}

/// One measurement with its place in the tables.
pub struct Measured {
    pub ty: GgmlType,
    pub job: Job,
    pub threads: usize,
    pub figures: Figures,
}

/// What was measured; figures are in GB/s of weights for [`Cache`](Job::Cache) and [`Gemv`](Job::Gemv), in 10^9
/// operations per second for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// One token, weights in the L2 cache.
    Cache,
    /// One token, weights from memory.
    Gemv { memory: Memory, shape: Shape },
    /// Some tokens, weights from a mapped file.
    Gemm { shape: Shape, tokens: usize },
    /// Experts, weights from a mapped file.
    Experts { tokens: usize },
}

/// The tables, in the order in which they are printed.
const TABLES: [&str; 4] = [
    "one token, weights in the L2 cache, one thread",
    "one token, weights from memory, GB/s of weights",
    "several tokens, weights from a mapped file, 10^9 operations per second",
    "128 experts, 8 of them for each token, 10^9 operations per second",
];

impl Job {
    fn table(self) -> usize {
        match self {
            Self::Cache => 0,
            Self::Gemv { .. } => 1,
            Self::Gemm { .. } => 2,
            Self::Experts { .. } => 3,
        }
    }
}

const HEADS: [&[&str]; 4] = [
    &["type", "quant GB/s", "Gelem/s", "vec_dot GB/s", "Gelem/s", "ratio"],
    &[
        "type",
        "memory",
        "shape",
        "threads",
        "quant",
        "read",
        "percent",
        "vec_dot (1t)",
        "mul_mat",
        "repack",
        "ratio",
    ],
    &["type", "shape", "tokens", "threads", "quant", "peak", "percent", "mul_mat", "repack", "ratio", "cost"],
    &[
        "type",
        "tokens",
        "threads",
        "quant",
        "GB/s",
        "read",
        "percent",
        "peak",
        "percent",
        "mul_mat_id",
        "repack",
        "ratio",
        "at most",
    ],
];

/// Bytes of the experts that so many tokens choose, each once: the mean over random choices.
pub fn expert_bytes(ty: GgmlType, tokens: usize) -> f64 {
    let [rows, cols] = EXPERT;
    let nobodys = (1.0 - USED as f64 / EXPERTS as f64).powi(tokens as i32);
    EXPERTS as f64 * (1.0 - nobodys) * (rows * ty.row_bytes(cols)) as f64
}

/// Operations of so many tokens with the experts that they choose.
pub fn expert_operations(tokens: usize) -> f64 {
    let [rows, cols] = EXPERT;
    2.0 * (rows * cols * tokens * USED) as f64
}

fn shape_name([rows, cols]: Shape) -> String {
    format!("{rows}x{cols}")
}

impl Measured {
    /// Names of the row, for programs.
    fn what(&self) -> Value {
        let ty = self.ty.name();
        match self.job {
            Job::Cache => json!({ "type": ty, "job": "cache", "threads": self.threads }),
            Job::Gemv { memory, shape } => json!({
                "type": ty, "job": "gemv", "memory": memory.name(), "shape": shape_name(shape), "threads": self.threads,
            }),
            Job::Gemm { shape, tokens } => json!({
                "type": ty, "job": "gemm", "shape": shape_name(shape), "tokens": tokens, "threads": self.threads,
            }),
            Job::Experts { tokens } => {
                json!({ "type": ty, "job": "experts", "tokens": tokens, "threads": self.threads })
            }
        }
    }

    /// The row for programs.
    pub fn row(&self) -> Value {
        let f = &self.figures;
        let names = match self.job {
            Job::Cache | Job::Gemv { .. } => [
                "quant_gb_per_s",
                "limit_gb_per_s",
                "",
                "plain_gb_per_s",
                "repack_gb_per_s",
                "vec_dot_gb_per_s",
            ],
            Job::Gemm { .. } => ["quant_gops", "limit_gops", "", "plain_gops", "repack_gops", "vec_dot_gops"],
            Job::Experts { .. } => {
                ["quant_gops", "read_gb_per_s", "peak_gops", "plain_gops", "repack_gops", "vec_dot_gops"]
            }
        };
        let all = [&f.quant, &f.limit, &f.peak, &f.plain, &f.repack, &f.vec_dot];
        let named: Vec<(&str, &Samples)> =
            names.into_iter().zip(all).filter(|(name, _)| !name.is_empty()).collect();
        report::row(self.what(), &named)
    }

    /// The row for people. `cost` is how many single tokens the time of this one would have been enough for.
    fn cells(&self, cost: Option<f64>) -> Vec<String> {
        let f = &self.figures;
        let quant = f.quant.median();
        let percent = |of, limit| cell(ratio(of, limit).map(|part| 100.0 * part), 0);
        let of_limit = percent(quant, f.limit.median());
        let (plain, repack) = (cell(f.plain.median(), 1), cell(f.repack.median(), 1));
        let faster = cell(ratio(quant, better(&f.plain, &f.repack)), 2);
        let (ty, threads) = (self.ty.name().to_owned(), self.threads.to_string());
        let limit = cell(f.limit.median(), 1);
        match self.job {
            Job::Cache => {
                let elements = |samples: &Samples| {
                    cell(samples.median().map(|rate| rate * 8.0 / self.ty.bits_per_value()), 1)
                };
                vec![
                    ty,
                    cell(quant, 1),
                    elements(&f.quant),
                    cell(f.vec_dot.median(), 1),
                    elements(&f.vec_dot),
                    cell(ratio(quant, f.vec_dot.median()), 2),
                ]
            }
            Job::Gemv { memory, shape } => vec![
                ty,
                memory.name().to_owned(),
                shape_name(shape),
                threads,
                cell(quant, 1),
                limit,
                of_limit,
                cell(f.vec_dot.median(), 1),
                plain,
                repack,
                faster,
            ],
            Job::Gemm { shape, tokens } => vec![
                ty,
                shape_name(shape),
                tokens.to_string(),
                threads,
                cell(quant, 0),
                cell(f.limit.median(), 0),
                of_limit,
                cell(f.plain.median(), 0),
                cell(f.repack.median(), 0),
                faster,
                cell(cost, 2),
            ],
            Job::Experts { tokens } => {
                // Operations to a byte: every chosen expert is read once.
                let intensity = expert_operations(tokens) / expert_bytes(self.ty, tokens);
                let (read, peak) = (f.limit.median(), f.peak.median());
                let bytes = quant.map(|quant| quant / intensity);
                let reachable = peak.zip(read).map(|(peak, read)| peak.min(read * intensity));
                vec![
                    ty,
                    tokens.to_string(),
                    threads,
                    cell(quant, 0),
                    cell(bytes, 1),
                    limit,
                    percent(bytes, read),
                    cell(peak, 0),
                    percent(quant, peak),
                    plain,
                    repack,
                    faster,
                    cell(ratio(reachable, better(&f.plain, &f.repack)), 2),
                ]
            }
        }
    }
}

/// Prints all that was measured.
pub fn tables(measured: &[Measured]) {
    for (number, (title, head)) in TABLES.iter().zip(HEADS).enumerate() {
        let mut rows = vec![report::head(head)];
        for one in measured.iter().filter(|one| one.job.table() == number) {
            rows.push(one.cells(cost(one, measured)));
        }
        if rows.len() > 1 {
            println!("\n{title}:\n");
            report::table(&rows);
        }
    }
}

/// Time of a batch in units of the time of one token, from the same kind of memory.
fn cost(batch: &Measured, all: &[Measured]) -> Option<f64> {
    let Job::Gemm { shape: [rows, cols], tokens } = batch.job else { return None };
    let single = Job::Gemv { memory: Memory::File, shape: [rows, cols] };
    let single =
        all.iter().find(|one| one.ty == batch.ty && one.threads == batch.threads && one.job == single)?;
    let bytes = batch.ty.row_bytes(cols) as f64 * rows as f64;
    let one_token = bytes / single.figures.quant.median()?;
    let operations = 2.0 * (rows * cols * tokens) as f64;
    Some(operations / batch.figures.quant.median()? / one_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fit_their_heads_and_cost_counts_tokens() {
        let figures = |quant: f64| Figures { quant: [quant].into_iter().collect(), ..Figures::default() };
        let shape = [8192, 2048];
        let jobs = [
            (Job::Cache, 100.0),
            // 36 GB/s of 4.5 bits are 64e9 values, 128e9 operations.
            (Job::Gemv { memory: Memory::File, shape }, 36.0),
            (Job::Gemm { shape, tokens: 4 }, 256.0),
            (Job::Experts { tokens: 1 }, 3.0),
        ];
        let all: Vec<Measured> = jobs
            .into_iter()
            .map(|(job, quant)| Measured { ty: GgmlType::Q4_K, job, threads: 1, figures: figures(quant) })
            .collect();
        for one in &all {
            assert_eq!(one.cells(None).len(), HEADS[one.job.table()].len());
            assert_eq!(one.row()["figures"].as_object().map(serde_json::Map::len), Some(1));
        }
        assert!((cost(&all[2], &all).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(cost(&all[0], &all), None);
    }

    #[test]
    fn experts_are_shown_beside_what_reading_and_arithmetic_allow() {
        let one = |figure: f64| [figure].into_iter().collect::<Samples>();
        let row = |tokens: usize, quant: f64| {
            let figures = Figures {
                quant: one(quant),
                limit: one(45.0),
                peak: one(1000.0),
                plain: one(80.0),
                repack: one(100.0),
                ..Figures::default()
            };
            let job = Job::Experts { tokens };
            Measured { ty: GgmlType::Q4_K, job, threads: 1, figures }.cells(None)
        };
        // One token reads its 8 experts: 4.5 bits and two operations to a weight. 45 GB/s are 160e9 operations.
        let cells = row(1, 80.0);
        assert_eq!(cells[3..9], ["80", "22.5", "45.0", "50", "1000", "8"]);
        assert_eq!(cells[11..], ["0.80", "1.60"]);
        // 512 tokens read all experts: the arithmetic bounds them.
        assert_eq!(row(512, 500.0)[11..], ["5.00", "10.00"]);
        let all = (EXPERTS * EXPERT[0] * GgmlType::Q4_K.row_bytes(EXPERT[1])) as f64;
        assert!((expert_bytes(GgmlType::Q4_K, 1) / all - 8.0 / 128.0).abs() < 1e-9);
        assert!((expert_bytes(GgmlType::Q4_K, 512) / all - 1.0).abs() < 1e-9);
    }
}
