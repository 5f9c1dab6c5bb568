//! KV codecs in cache: encode, decode, score and accumulate a page of 128 tokens; score and accumulate for a group of
//! 4 query heads. Elements are tokens: the inverse of the rate is the time per token and KV head.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quant_kernels::Isa;
use quant_kernels::codecs::{CodecParams, CodecScratch, PAGE, registry};
use quant_kernels::hadamard::{Direction, Hadamard};
use std::hint::black_box;
use std::time::Duration;

const GROUP: usize = 4;

fn numbers(len: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next() + next() + next()).collect()
}

fn codecs(c: &mut Criterion) {
    for dim in [128, 64] {
        let x = numbers(PAGE * dim);
        let params = CodecParams::new(dim, 1);
        for entry in registry() {
            let (Ok(key), Ok(value)) = ((entry.key)(&params), (entry.value)(&params)) else { continue };
            let mut group = c.benchmark_group(format!("codecs/{}/{dim}", entry.name));
            group.throughput(Throughput::Elements(PAGE as u64)).sample_size(10);
            group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(200));
            let mut scratch = CodecScratch::default();
            for isa in Isa::available() {
                let (mut keys, mut values) = (vec![0; key.page_bytes()], vec![0; value.page_bytes()]);
                key.encode(isa, &x, &mut scratch, &mut keys).expect("finite numbers");
                value.encode(isa, &x, &mut scratch, &mut values).expect("finite numbers");
                group.bench_function(BenchmarkId::new("encode", isa), |b| {
                    b.iter(|| key.encode(isa, black_box(&x), &mut scratch, &mut keys));
                });
                let mut decoded = vec![0.0; PAGE * dim];
                group.bench_function(BenchmarkId::new("decode", isa), |b| {
                    b.iter(|| key.decode(isa, black_box(&keys), &mut scratch, &mut decoded));
                });
                let mut queries = vec![0.0; GROUP * key.query_len()];
                for (q, out) in x.chunks_exact(dim).zip(queries.chunks_exact_mut(key.query_len())) {
                    key.prepare(isa, q, &mut scratch, out);
                }
                let mut scores = vec![0.0; GROUP * PAGE];
                group.bench_function(BenchmarkId::new("score", isa), |b| {
                    b.iter(|| key.score(isa, black_box(&keys), &queries, &mut scratch, &mut scores, PAGE));
                });
                let weights: Vec<f32> = numbers(GROUP * PAGE).iter().map(|x| x.abs()).collect();
                let mut sums = vec![0.0; GROUP * value.sum_len()];
                group.bench_function(BenchmarkId::new("accumulate", isa), |b| {
                    b.iter(|| {
                        value.accumulate(isa, black_box(&values), &weights, PAGE, &mut scratch, &mut sums);
                    });
                });
            }
        }
    }
}

fn hadamard(c: &mut Criterion) {
    let mut group = c.benchmark_group("hadamard");
    group.sample_size(10).warm_up_time(Duration::from_millis(100));
    group.measurement_time(Duration::from_millis(300));
    for dim in [64, 80, 96, 112, 128, 192, 256, 512] {
        let transform = Hadamard::new(dim).expect("a head size");
        let mut x = numbers(dim);
        for isa in Isa::available() {
            group.bench_function(BenchmarkId::new(dim.to_string(), isa), |b| {
                b.iter(|| transform.apply(isa, Direction::Forward, black_box(&mut x)));
            });
        }
    }
}

criterion_group!(benches, codecs, hadamard);
criterion_main!(benches);
