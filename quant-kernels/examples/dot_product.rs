//! One dot product: a quantized weight row with a float vector, on the best tier of this CPU.
//!
//!     cargo run --release -p quant-kernels --example dot_product
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use quant_kernels::matmul::MatmulScratch;
use quant_kernels::types::q8_0;
use quant_kernels::{Activations, Error, GgmlType, Isa, Kernels, Projection, Serial, Weight};

fn main() -> Result<(), Error> {
    // A row of 256 weights, as Q8_0: blocks of 32 codes of a byte and one half-precision scale.
    let values: Vec<f32> = (0..256).map(|i| (i as f32 * 0.1).sin()).collect();
    let x: Vec<f32> = (0..256).map(|i| (i as f32 * 0.1).sin() + 0.5).collect();
    let mut row = vec![0; GgmlType::Q8_0.row_bytes(values.len())];
    q8_0::quantize(&values, &mut row);

    // A dot product is a matmul of one row with one token. x is quantized to int8 blocks on the way.
    let kernels = Kernels::new(Isa::detect());
    let weight = Weight::new(GgmlType::Q8_0, 1, values.len(), &row)?;
    let mut dot = [0.0];
    let projection = Projection { weight, bias: None, out: &mut dot };
    kernels.matmul(&Serial, &mut MatmulScratch::default(), Activations::Auto, &x, 1, &mut [projection])?;

    let exact: f64 = values.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
    println!("Q8_0 on {}: {:.5}; exact: {exact:.5}", kernels.isa(), dot[0]);
    Ok(())
}
