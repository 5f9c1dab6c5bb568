//! Attention over half-precision pages: one token at a long context, and a prefill chunk. Elements are
//! multiply-adds (scores and values), so that elements per second times two is FLOP/s.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use quant_kernels::Isa;
use quant_kernels::attention::{
    AttentionScratch, AttentionTask, KeyPage, PAGE, QueryVariants, ValueDomains, ValuePage, attend,
};

fn bench(c: &mut Criterion) {
    for (name, tokens, depth, group, dim) in [
        ("decode", 1usize, 4095usize, 4usize, 128usize),
        ("decode", 1, 4095, 1, 128),
        ("decode", 1, 4095, 8, 64),
        ("decode", 1, 32767, 4, 128),
        ("prefill", 128, 0, 4, 128),
        ("prefill", 128, 2048, 4, 128),
        ("prefill", 128, 2048, 4, 64),
    ] {
        let positions = depth + tokens;
        let q: Vec<f32> = (0..tokens * group * dim).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let kv: Vec<f16> = (0..positions.next_multiple_of(PAGE) * dim)
            .map(|i| f16::from_f32((i * 13 % 97) as f32 / 48.0 - 1.0))
            .collect();
        let v = kv.clone();
        let k_pages: Vec<_> = kv.chunks(PAGE * dim).map(KeyPage::F16).collect();
        let v_pages: Vec<_> = v.chunks(PAGE * dim).map(ValuePage::F16).collect();
        let task = AttentionTask {
            q: &q,
            q_stride: group * dim,
            q_offset: 0,
            group,
            dk: dim,
            dv: dim,
            tokens,
            first_position: depth,
            window: None,
            k: &k_pages,
            v: &v_pages,
            domains: ValueDomains::none(),
            variants: QueryVariants::default(),
            scale: 1.0 / (dim as f32).sqrt(),
        };
        let mut out = vec![0.0; task.out_len()];
        let mut scratch = AttentionScratch::default();
        let pairs: usize = (0..tokens).map(|t| depth + t + 1).sum();
        let mut bench = c.benchmark_group(format!("{name}/{tokens}x{group}x{dim}@{depth}"));
        bench.throughput(Throughput::Elements((pairs * group * dim * 2) as u64)).sample_size(10);
        for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Scalar) {
            bench.bench_function(BenchmarkId::from_parameter(isa), |b| {
                b.iter(|| attend(isa, &task, &mut scratch, &mut out));
            });
        }
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
