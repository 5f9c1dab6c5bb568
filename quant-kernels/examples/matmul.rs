//! One matmul: Q4_0 weights times a batch of tokens, on two threads. The bits of a token do not depend on the batch,
//! the threads or the tier.
//!
//!     cargo run --release -p quant-kernels --example matmul
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use quant_kernels::matmul::MatmulScratch;
use quant_kernels::types::q4_0;
use quant_kernels::{Activations, Error, GgmlType, Isa, Kernels, Parallel, Projection, Serial, Team, Weight};

const ROWS: usize = 512;
const COLS: usize = 1024;
const TOKENS: usize = 8;

/// `[TOKENS][ROWS]` from `[tokens][COLS]`.
fn multiply(isa: Isa, threads: &dyn Parallel, bytes: &[u8], x: &[f32]) -> Result<Vec<f32>, Error> {
    let tokens = x.len() / COLS;
    let mut out = vec![0.0; tokens * ROWS];
    let weight = Weight::new(GgmlType::Q4_0, ROWS, COLS, bytes)?;
    // Several projections of one input (q, k and v, say) go in one call: the input is then quantized once.
    let projection = Projection { weight, bias: None, out: &mut out };
    let scratch = &mut MatmulScratch::default(); // kept between calls, it saves their allocations
    Kernels::new(isa).matmul(threads, scratch, Activations::Auto, x, tokens, &mut [projection])?;
    Ok(out)
}

fn main() -> Result<(), Error> {
    let values: Vec<f32> = (0..ROWS * COLS).map(|i| ((i * 37 % 1009) as f32 / 504.0) - 1.0).collect();
    let mut bytes = vec![0; ROWS * GgmlType::Q4_0.row_bytes(COLS)];
    q4_0::quantize(&values, &mut bytes);
    let x: Vec<f32> = (0..TOKENS * COLS).map(|i| ((i * 53 % 997) as f32 / 498.0) - 1.0).collect();

    let batch = multiply(Isa::detect(), &Team::new(2)?, &bytes, &x)?;
    let alone = multiply(Isa::Scalar, &Serial, &bytes, &x[..COLS])?;
    assert_eq!(batch[..ROWS], alone[..], "the first token, alone and in scalar code: the same bits");
    println!("{TOKENS} tokens times {ROWS} x {COLS} weights; first outputs {:?}", &batch[..4]);
    Ok(())
}
