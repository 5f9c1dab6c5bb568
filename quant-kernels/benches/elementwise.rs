//! Functions on rows in cache: exp, SiLU, GELU, softmax, RMS norm, RoPE, stores to f16.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use quant_kernels::Isa;
use quant_kernels::rope::{Rope, RopePairs, RopeScaling};
use quant_kernels::{exp, gelu, rms_norm, silu, softmax, store_f16};

const LEN: usize = 4096;

fn bench(c: &mut Criterion) {
    let y: Vec<f32> = (0..LEN).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let mut x = y.clone();
    let mut halves = vec![f16::ZERO; LEN];
    let (mut cos, mut sin) = (vec![0.0; 64], vec![0.0; 64]);
    let ropes = [RopePairs::Interleaved, RopePairs::Halves]
        .map(|pairs| Rope::new(pairs, 128, 10000.0, None, RopeScaling::None));
    ropes[0].angles(77, &mut cos, &mut sin);
    let mut group = c.benchmark_group("rows");
    group.throughput(Throughput::Elements(LEN as u64)).sample_size(10);
    for isa in Isa::available() {
        let mut run = |name: &str, f: &mut dyn FnMut(&mut [f32])| {
            group.bench_function(BenchmarkId::new(name, isa), |b| {
                b.iter(|| {
                    x.copy_from_slice(&y);
                    f(&mut x);
                });
            });
        };
        run("copy", &mut |_| {});
        run("exp", &mut |x| exp::exp_slice(isa, x));
        run("tanh", &mut |x| exp::tanh_slice(isa, x));
        run("silu_mul", &mut |x| silu::silu_mul(isa, x, &y));
        run("gelu_tanh_mul", &mut |x| gelu::gelu_mul(isa, gelu::Gelu::Tanh, x, &y));
        run("gelu_erf_mul", &mut |x| gelu::gelu_mul(isa, gelu::Gelu::Erf, x, &y));
        run("softmax", &mut |x| softmax::softmax(isa, x));
        run("rms_norm", &mut |x| rms_norm::rms_norm_in_place(isa, x, &y, 1e-5));
        run("rope_interleaved", &mut |x| ropes[0].apply(isa, x, 128, &cos, &sin));
        run("rope_halves", &mut |x| ropes[1].apply(isa, x, 128, &cos, &sin));
        run("store_f16", &mut |x| assert!(store_f16::store_f16(isa, x, &mut halves).is_ok()));
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
