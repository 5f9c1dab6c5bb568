//! Matmul of a mixture of experts from memory: 128 experts of 768 rows and 2048 columns, 8 for each token.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quant_kernels::matmul::{ExpertProjection, MatmulScratch, Routes};
use quant_kernels::{Activations, GgmlType, Isa, Kernels, Parallel, Serial, Team, Weight};

const EXPERTS: usize = 128;
const USED: usize = 8;
const ROWS: usize = 768;
const COLS: usize = 2048;

fn bench(c: &mut Criterion) {
    let kernels = Kernels::new(Isa::detect());
    let teams: [Box<dyn Parallel>; 2] = [Box::new(Serial), Box::new(Team::new(2).expect("threads"))];
    let mut group = c.benchmark_group("experts");
    group.sample_size(10);
    for ty in [GgmlType::Q4_K, GgmlType::Q8_0] {
        // Tame bytes: no scale is huge or not a number.
        let bytes: Vec<u8> = (0..EXPERTS * ROWS * ty.row_bytes(COLS))
            .map(|i| (i as u32).wrapping_mul(2_654_435_761) as u8 & 0x2f)
            .collect();
        let weight = Weight::new(ty, EXPERTS * ROWS, COLS, &bytes).expect("shape");
        for tokens in [1usize, 4, 32, 512] {
            let x: Vec<f32> = (0..tokens * COLS).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
            // Eight different experts for each token, spread by a multiplicative hash.
            let ids: Vec<u32> = (0..tokens * USED)
                .map(|i| ((i / USED) as u32).wrapping_mul(2_654_435_761) >> 20)
                .zip((0..).map(|i| i % USED as u32))
                .map(|(start, slot)| (start + 17 * slot) % EXPERTS as u32)
                .collect();
            let mut out = vec![0.0; tokens * USED * ROWS];
            group.throughput(Throughput::Elements((2 * tokens * USED * ROWS * COLS) as u64));
            for parallel in &teams {
                let mut scratch = MatmulScratch::default();
                let id = BenchmarkId::new(
                    format!("{ty}/{tokens} tokens"),
                    format!("{} threads", parallel.threads()),
                );
                group.bench_function(id, |b| {
                    b.iter(|| {
                        let routes = Routes::new(EXPERTS, USED, &ids).expect("routes");
                        let projection = ExpertProjection { weight, bias: None, out: &mut out };
                        kernels
                            .matmul_experts(
                                &**parallel,
                                &mut scratch,
                                Activations::Auto,
                                &x,
                                routes,
                                &mut [projection],
                            )
                            .expect("shapes");
                    });
                });
            }
        }
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
