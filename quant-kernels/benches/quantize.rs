//! Quantization of every type with importances: values per second on one thread.
//!
//! `cargo bench -p quant-kernels --bench quantize -- q4_K` picks by name.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quant_kernels::{Isa, Kernels, Serial, types};
use std::time::Duration;

const COLS: usize = 1024;
const ROWS: usize = 8;

fn bench(c: &mut Criterion) {
    let kernels = Kernels::new(Isa::Scalar);
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    // Nearly normal: the sum of twelve uniforms.
    let x: Vec<f32> =
        (0..ROWS * COLS).map(|_| 0.05 * ((0..12).map(|_| uniform()).sum::<f32>() - 6.0)).collect();
    let importance: Vec<f32> = (0..COLS).map(|_| uniform() / (uniform() + 0.02)).collect();
    let mut group = c.benchmark_group("quantize");
    group
        .sample_size(10)
        .measurement_time(Duration::from_millis(300))
        .warm_up_time(Duration::from_millis(100));
    group.throughput(Throughput::Elements(x.len() as u64));
    for ty in types::table(Isa::Scalar).into_iter().map(|kernels| kernels.ty) {
        let mut out = vec![0; ROWS * ty.row_bytes(COLS)];
        group.bench_function(BenchmarkId::from_parameter(ty), |b| {
            b.iter(|| {
                kernels.quantize(&Serial, ty, COLS, &x, Some(&importance), &mut out).expect("valid input")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
