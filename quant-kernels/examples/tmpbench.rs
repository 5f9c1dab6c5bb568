use quant_kernels::matmul::MatmulScratch;
use quant_kernels::*;
use std::time::Instant;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let cols = 2048;
    for isa in Isa::available().into_iter().skip(1) {
        let k = Kernels::new(isa);
        for ty in [GgmlType::F32, GgmlType::F16, GgmlType::BF16] {
            for (rows, tokens) in [(65536usize, 1usize), (1024, 1), (64,1), (1024, 4), (1024, 8), (1024, 16), (1024, 64), (1024, 512)] {
                if args.len() > 1 && args[1].parse::<usize>().unwrap() != tokens { continue; }
                let bytes = vec![0u8; ty.row_bytes(cols) * rows];
                let mut bytes = bytes; for (i, b) in bytes.iter_mut().enumerate() { *b = (i % 61) as u8; }
                let x = vec![0.5f32; cols * tokens];
                let mut out = vec![0f32; rows * tokens];
                let mut s = MatmulScratch::default();
                let mut best = f64::MAX;
                for _ in 0..(if rows>10000 {6} else {12}) {
                    let reps = if rows < 100 {100} else {1};
                    let t = Instant::now();
                    for _ in 0..reps {
                    k.matmul(&Serial, &mut s, Activations::Auto, &x, tokens, &mut [Projection { weight: Weight::new(ty, rows, cols, &bytes).unwrap(), bias: None, out: &mut out }]).unwrap();}
                    best = best.min(t.elapsed().as_secs_f64()/reps as f64);
                }
                println!("{isa} {ty} rows {rows} tokens {tokens}: {:.1} GFLOP/s {:.1} GB/s", 2.0 * (rows * cols * tokens) as f64 / best / 1e9, bytes.len() as f64 / best / 1e9);
            }
        }
    }
    // peak
    #[target_feature(enable = "avx512f")]
    unsafe fn peak() -> f32 {
        use std::arch::x86_64::*;
        let mut a = [_mm512_set1_ps(0.0); 12];
        let x = _mm512_set1_ps(std::hint::black_box(1.0)); let y = _mm512_set1_ps(std::hint::black_box(0.5));
        for _ in 0..10_000_000 { for a in &mut a { *a = _mm512_fmadd_ps(x, y, *a); } 
          std::hint::black_box(()); }
        let mut s = a[0]; for a in &a[1..] { s = _mm512_add_ps(s, *a); }
        _mm512_reduce_add_ps(s)
    }
    let mut best = f64::MAX;
    for _ in 0..5 { let t = Instant::now(); std::hint::black_box(unsafe { peak() }); best = best.min(t.elapsed().as_secs_f64()); }
    println!("peak avx512 {:.1}", 10e6 * 12.0 * 32.0 / best / 1e9);
}
