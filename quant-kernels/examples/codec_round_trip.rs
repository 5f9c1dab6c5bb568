//! One codec round trip: a page of keys and one of values in a few codecs, their size, their error, and attention on
//! the encoded pages without decoding them.
//!
//!     cargo run --release -p quant-kernels --example codec_round_trip
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use quant_kernels::codecs::{CodecParams, CodecScratch, PAGE, entry};
use quant_kernels::{Error, Isa, softmax};

const DIM: usize = 128;

/// 128 tokens of one head: some channels are biased, as those of real keys are.
fn page(seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..PAGE * DIM).map(|i| next() + next() + if (i % DIM).is_multiple_of(16) { 4.0 } else { 0.0 }).collect()
}

fn main() -> Result<(), Error> {
    let isa = Isa::detect();
    let (keys, values) = (page(1), page(2));
    let query = &page(3)[..DIM];
    let mut scratch = CodecScratch::default();
    println!("{:12} {:>10} {:>10} {:>10}", "codec", "bits/value", "key error", "output error");
    let mut exact = Vec::new();
    for name in ["q8_0", "planes-8", "planes-4", "turbo-mse-4", "q4_0", "planes-3", "planes-2", "qjl-1"] {
        // The seed fixes the random rotation; queries and keys share it because one codec makes both.
        let params = CodecParams::new(DIM, 42);
        let Some(entry) = entry(name) else { continue };
        let (k, v) = ((entry.key)(&params)?, (entry.value)(&params)?);

        let (mut key_page, mut value_page) = (vec![0; k.page_bytes()], vec![0; v.page_bytes()]);
        k.encode(isa, &keys, &mut scratch, &mut key_page)?;
        v.encode(isa, &values, &mut scratch, &mut value_page)?;

        let mut decoded = vec![0.0; PAGE * DIM];
        k.decode(isa, &key_page, &mut scratch, &mut decoded);

        // Attention: prepare the query once, score the page, weigh, sum, turn the sum back once.
        let mut prepared = vec![0.0; k.query_len()];
        k.prepare(isa, query, &mut scratch, &mut prepared);
        let mut weights = vec![0.0; PAGE];
        k.score(isa, &key_page, &prepared, &mut scratch, &mut weights, PAGE);
        weights.iter_mut().for_each(|score| *score /= (DIM as f32).sqrt());
        softmax::softmax(isa, &mut weights);
        let mut sum = vec![0.0; v.sum_len()];
        v.accumulate(isa, &value_page, &weights, PAGE, &mut scratch, &mut sum);
        let mut output = vec![0.0; DIM];
        v.finish(isa, &sum, &mut scratch, &mut output);

        if exact.is_empty() {
            exact = attention(query, &keys, &values);
        }
        println!(
            "{name:12} {:10.3} {:10.5} {:10.5}",
            key_page.len() as f64 * 8.0 / (PAGE * DIM) as f64,
            relative_error(&decoded, &keys),
            relative_error(&output, &exact)
        );
    }
    Ok(())
}

/// Attention on the numbers themselves.
fn attention(query: &[f32], keys: &[f32], values: &[f32]) -> Vec<f32> {
    let dot = |key: &[f32]| key.iter().zip(query).map(|(k, q)| k * q).sum::<f32>();
    let mut weights: Vec<f32> = keys.chunks_exact(DIM).map(|key| dot(key) / (DIM as f32).sqrt()).collect();
    softmax::softmax(Isa::Scalar, &mut weights);
    let mut out = vec![0.0; DIM];
    for (weight, value) in weights.iter().zip(values.chunks_exact(DIM)) {
        out.iter_mut().zip(value).for_each(|(out, v)| *out += weight * v);
    }
    out
}

/// Root of the squared error over the squared size.
fn relative_error(got: &[f32], exact: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = got.iter().zip(exact).map(|(a, b)| square(a - b)).sum();
    (error / exact.iter().map(|x| square(*x)).sum::<f64>()).sqrt()
}
