//! Functions on rows in cache: exp, SiLU, GELU, softmax, RMS norm, RoPE, stores to f16; top-k of a vocabulary; DeltaNet.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use quant_kernels::delta_net::{DeltaNet, DeltaNetInput, KeyHeads};
use quant_kernels::rope::{Rope, RopePairs, RopeScaling};
use quant_kernels::{Isa, Serial, exp, gelu, rms_norm, silu, softmax, store_f16, top_k};

const LEN: usize = 4096;
const VOCABULARY: usize = 250_000;

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

/// The best 40 of a vocabulary, beside sorting it.
fn selection(c: &mut Criterion) {
    let logits: Vec<f32> = (0..VOCABULARY).map(|i| (i * 7919 % 1_000_003) as f32 / 1e5).collect();
    let mut group = c.benchmark_group("vocabulary");
    group.throughput(Throughput::Elements(VOCABULARY as u64)).sample_size(10);
    let mut kept = Vec::new();
    for isa in Isa::available() {
        group.bench_function(BenchmarkId::new("top_40", isa), |b| {
            b.iter(|| top_k::top_k(isa, &logits, 40, &mut kept).expect("finite"));
        });
        group.bench_function(BenchmarkId::new("argmax", isa), |b| {
            b.iter(|| top_k::argmax(isa, &logits).expect("finite"));
        });
    }
    group.bench_function("sort", |b| {
        b.iter(|| {
            let mut all: Vec<top_k::Candidate> =
                (0u32..).zip(&logits).map(|(id, &logit)| top_k::Candidate::new(id, logit)).collect();
            all.sort_unstable();
            all
        });
    });
}

/// One layer of 16 heads of 128 by 128, one token and a chunk of them.
fn delta_net(c: &mut Criterion) {
    let net = DeltaNet { heads: 16, key_heads: 16, key_dim: 128, value_dim: 128, sharing: KeyHeads::Tiled };
    let mut group = c.benchmark_group("delta_net");
    group.sample_size(10);
    for tokens in [1, 64] {
        let row = vec![0.08; tokens * 16 * 128];
        let (g, beta) = (vec![-0.1; tokens * 16], vec![0.5; tokens * 16]);
        let input = DeltaNetInput { q: &row, k: &row, v: &row, g: &g, beta: &beta };
        let (mut state, mut out) = (vec![0.0; net.state_len()], vec![0.0; row.len()]);
        group.throughput(Throughput::Elements(tokens as u64));
        for isa in Isa::available() {
            group.bench_function(BenchmarkId::new(format!("{tokens} tokens"), isa), |b| {
                b.iter(|| net.forward(isa, &Serial, input, &mut state, &mut out).expect("shapes"));
            });
        }
    }
}

criterion_group!(benches, bench, selection, delta_net);
criterion_main!(benches);
