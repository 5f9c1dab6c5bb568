//! Matmul of every type with SIMD kernels: one token in cache and from memory (GB/s of weights), small batches and
//! prefill (operations per second, two for a multiply and add), at one and two threads.
//!
//! `QUANT_ISA` pins a tier. `cargo bench -p quant-kernels --bench matmul -- gemv/q4_K` picks by name.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quant_kernels::matmul::MatmulScratch;
use quant_kernels::{Activations, GgmlType, Isa, Kernels, Projection, Team, Weight};
use std::time::Duration;

const TYPES: [GgmlType; 8] = [
    GgmlType::Q4_K,
    GgmlType::Q6_K,
    GgmlType::Q8_0,
    GgmlType::Q5_K,
    GgmlType::Q4_0,
    GgmlType::F16,
    GgmlType::BF16,
    GgmlType::F32,
];

const COLS: usize = 2048;
/// Rows of the matrix from memory: well beyond any cache.
const LONG: usize = 128 * 1024;
const ROWS: usize = 8192;
/// Rows that stay in the L2 cache.
const SHORT: usize = 256;

/// Random codes under small scales: bytes whose every second one is below 0x30 are small as f16 and as f32.
fn weights(ty: GgmlType, rows: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut bytes = vec![0u8; ty.row_bytes(COLS) * rows];
    for word in bytes.chunks_mut(8) {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let random = (state ^ state >> 29).to_le_bytes();
        word.copy_from_slice(&random[..word.len()]);
        for byte in word.iter_mut().skip(1).step_by(2) {
            *byte = *byte & 0x8f | 0x20;
        }
    }
    bytes
}

fn bench(c: &mut Criterion) {
    let isa =
        std::env::var("QUANT_ISA").map_or_else(|_| Isa::detect(), |n| Isa::from_name(&n).expect("a tier"));
    let kernels = Kernels::new(isa);
    let teams = [Team::new(1).expect("threads"), Team::new(2).expect("threads")];
    for (name, rows, batches) in [
        ("cache", SHORT, &[1][..]),
        ("gemv", LONG, &[1][..]),
        ("batch", ROWS, &[2, 4, 8, 16][..]),
        ("gemm", ROWS, &[512][..]),
    ] {
        let mut group = c.benchmark_group(name);
        group.sample_size(10).measurement_time(Duration::from_secs(2));
        for ty in TYPES.into_iter().filter(|&ty| kernels.of(ty).is_some()) {
            let bytes = weights(ty, rows);
            let weight = Weight::new(ty, rows, COLS, &bytes).expect("a valid shape");
            for &tokens in batches {
                let x: Vec<f32> = (0..tokens * COLS).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
                let mut out = vec![0.0; tokens * rows];
                group.throughput(if tokens == 1 {
                    Throughput::Bytes(bytes.len() as u64)
                } else {
                    Throughput::Elements(2 * (rows * COLS * tokens) as u64)
                });
                for team in &teams {
                    let threads = quant_kernels::Parallel::threads(team);
                    let mut scratch = MatmulScratch::default();
                    let id = BenchmarkId::new(ty.name(), format!("{tokens}x{threads}t"));
                    group.bench_function(id, |b| {
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

criterion_group!(benches, bench);
criterion_main!(benches);
