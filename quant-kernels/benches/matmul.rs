//! Matmul of every type: one token from the second-level cache and from memory (GB/s of weights), small batches and
//! prefill (operations per second, two for a multiply and add), at one and two threads; rows of 576 values, for the
//! types that allow them, from the cache as well.
//!
//! `QUANT_ISA` pins a tier. `cargo bench -p quant-kernels --bench matmul -- gemv/q4_K` picks by name.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quant_kernels::matmul::MatmulScratch;
use quant_kernels::{Activations, GgmlType, Isa, Kernels, Projection, Team, Weight};
use std::cell::LazyCell;
use std::time::Duration;

/// A matrix and the batches it meets.
struct Case {
    name: &'static str,
    cols: usize,
    size: Size,
    batches: &'static [usize],
}

enum Size {
    Rows(usize),
    Bytes(usize),
}

/// Weights that stay in a second-level cache, with the activations.
const CACHE: usize = 512 << 10;
/// Weights well beyond any cache.
const MEMORY: usize = 256 << 20;

const CASES: [Case; 5] = [
    Case { name: "cache", cols: 4096, size: Size::Bytes(CACHE), batches: &[1] },
    Case { name: "ragged", cols: 576, size: Size::Bytes(CACHE), batches: &[1] },
    Case { name: "gemv", cols: 2048, size: Size::Bytes(MEMORY), batches: &[1] },
    Case { name: "batch", cols: 2048, size: Size::Rows(8192), batches: &[2, 4, 8, 16] },
    Case { name: "gemm", cols: 2048, size: Size::Rows(8192), batches: &[512] },
];

/// Random codes under small scales: bytes whose every second one is below 0x30 are small as f16 and as f32.
fn weights(ty: GgmlType, bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut bytes = vec![0u8; bytes];
    for word in bytes.chunks_mut(8) {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let random = (state ^ state >> 29).to_le_bytes();
        word.copy_from_slice(&random[..word.len()]);
        for byte in word.iter_mut().skip(1).step_by(2) {
            *byte = *byte & 0x8f | 0x20;
        }
    }
    if ty == GgmlType::MXFP4 {
        // Powers of two from 2^-8 on.
        bytes.iter_mut().step_by(ty.block_bytes()).for_each(|e| *e = *e % 8 + 120);
    }
    bytes
}

fn bench(c: &mut Criterion) {
    let isa =
        std::env::var("QUANT_ISA").map_or_else(|_| Isa::detect(), |n| Isa::from_name(&n).expect("a tier"));
    let kernels = Kernels::new(isa);
    let teams = [Team::new(1).expect("threads"), Team::new(2).expect("threads")];
    for Case { name, cols, size, batches } in CASES {
        let mut group = c.benchmark_group(name);
        let types = GgmlType::ALL.iter().copied().filter(|&ty| {
            let unit = kernels.of(ty).map(|kernels| kernels.acts.block_len().max(ty.block_len()));
            unit.is_some_and(|unit| cols.is_multiple_of(unit))
        });
        for ty in types {
            let rows = match size {
                Size::Rows(rows) => rows,
                Size::Bytes(bytes) => bytes / ty.row_bytes(cols) / 64 * 64,
            };
            let length = ty.row_bytes(cols) * rows;
            // Only for benchmarks that the command line picks.
            let bytes = LazyCell::new(|| weights(ty, length));
            for &tokens in batches {
                let x: Vec<f32> = (0..tokens * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
                let mut out = vec![0.0; tokens * rows];
                group.throughput(if tokens == 1 {
                    Throughput::Bytes(length as u64)
                } else {
                    Throughput::Elements(2 * (rows * cols * tokens) as u64)
                });
                for team in &teams {
                    let threads = quant_kernels::Parallel::threads(team);
                    let mut scratch = MatmulScratch::default();
                    let id = BenchmarkId::new(ty.name(), format!("{tokens}x{threads}t"));
                    group.bench_function(id, |b| {
                        let weight = Weight::new(ty, rows, cols, &bytes).expect("a valid shape");
                        b.iter(|| {
                            let projection = Projection { weight, bias: None, out: &mut out };
                            kernels
                                .matmul(team, &mut scratch, Activations::Auto, &x, tokens, &mut [projection])
                                .expect("shapes fit");
                        });
                    });
                }
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1));
    targets = bench
}
criterion_main!(benches);
