//! How much each channel of keys matters: how large it is in queries, told by the weights.
//!
//! A codec that rotates keys spreads its error evenly over the channels of what it stores. Keys that are stored times the
//! size of the query's channel, and queries divided by it, put the error where queries look least. Rows of a norm have a
//! mean square of 1, and their channels count as independent; a sample of the columns is enough. Rotary pairs share a
//! weight, since positions turn one channel into the other.

use crate::Error;
use crate::attention::Attention;
use crate::layer::RmsNorm;
use quant_kernels::Kernels;
use quant_kernels::rope::{Rope, RopePairs};
use std::sync::Arc;

/// Columns that are looked at, in runs.
const RUNS: usize = 2;
const RUN: usize = 256;
/// Weights lie between this and its inverse.
const LARGEST: f32 = 16.0;

/// The weights of an attention layer's channels of keys, `[kv_head][key_dim]`: the root mean square of the queries that
/// meet them, 1 on average.
///
/// # Errors
/// [`Error::Kernels`] if the type of the query weights has no arithmetic.
pub(crate) fn of(
    attention: &Attention,
    norm: &RmsNorm,
    ropes: &[Rope],
    kernels: &Kernels,
) -> Result<Arc<[f32]>, Error> {
    let &Attention { n_heads, n_kv_heads, key_dim, .. } = attention;
    let energies = energies(attention, norm, kernels)?;
    let rope = attention.rope.and_then(|rope| ropes.get(rope));
    let mut weights = Vec::with_capacity(n_kv_heads * key_dim);
    for group in energies.chunks_exact(n_heads / n_kv_heads * key_dim) {
        let mut sums = vec![0f64; key_dim];
        for head in group.chunks_exact(key_dim) {
            sums.iter_mut().zip(head).for_each(|(sum, energy)| *sum += energy);
        }
        share(&mut sums, rope);
        let mean = sums.iter().sum::<f64>() / key_dim as f64;
        // Weights of zeros, or that are no numbers, tell nothing.
        let weight = |energy: &f64| (energy / mean).sqrt();
        let told = sums.iter().map(weight).all(f64::is_finite);
        weights.extend(
            sums.iter().map(
                |energy| {
                    if told { (weight(energy) as f32).clamp(1.0 / LARGEST, LARGEST) } else { 1.0 }
                },
            ),
        );
    }
    Ok(weights.into())
}

/// The two channels of a rotary pair get their mean.
fn share(energies: &mut [f64], rope: Option<&Rope>) {
    let Some(rope) = rope else { return };
    let pairs = rope.inv_freq.len();
    for i in 0..pairs {
        let (a, b) = match rope.pairs {
            RopePairs::Interleaved => (2 * i, 2 * i + 1),
            RopePairs::Halves => (i, i + pairs),
        };
        let mean = (energies[a] + energies[b]) / 2.0;
        energies[a] = mean;
        energies[b] = mean;
    }
}

/// The mean square of each channel of queries, up to a factor.
fn energies(attention: &Attention, norm: &RmsNorm, kernels: &Kernels) -> Result<Vec<f64>, Error> {
    let (matrix, bias) = (attention.q.matrix(), attention.q.bias());
    let (ty, cols) = (matrix.ty(), matrix.cols());
    let of = kernels.of(ty).ok_or(quant_kernels::Error::NoKernel { ty })?;
    let weight = matrix.weight()?;
    // Runs of whole blocks, evenly from the beginning; all of a narrow matrix.
    let run = RUN.next_multiple_of(ty.block_len());
    let (run, runs) = if run * RUNS < cols { (run, RUNS) } else { (cols, 1) };
    let mut values = vec![0f32; run];
    let mut energies = Vec::with_capacity(matrix.rows());
    for row in 0..matrix.rows() {
        let mut sum = 0f64;
        for i in 0..runs {
            let start = i * cols / runs / ty.block_len() * ty.block_len();
            let bytes = ty.row_bytes(start)..ty.row_bytes(start + run);
            (of.dequantize)(&weight.row(row)[bytes], &mut values);
            let gains = &norm.weight[start..start + run];
            sum += values.iter().zip(gains).map(|(w, g)| f64::from(w * g).powi(2)).sum::<f64>();
        }
        let constant = bias.map_or(0.0, |bias| f64::from(bias[row]));
        energies.push(sum * cols as f64 / (run * runs) as f64 + constant * constant);
    }
    Ok(energies)
}

#[cfg(test)]
mod tests {
    use super::share;
    use quant_kernels::rope::{Rope, RopePairs, RopeScaling};

    #[test]
    fn rotary_pairs_share_a_weight() {
        for (pairs, expected) in [
            (RopePairs::Interleaved, [2.0, 2.0, 6.0, 6.0, 9.0, 11.0]),
            (RopePairs::Halves, [3.0, 5.0, 3.0, 5.0, 9.0, 11.0]),
        ] {
            let rope = Rope::new(pairs, 4, 10_000.0, None, RopeScaling::None);
            let mut energies = [1.0, 3.0, 5.0, 7.0, 9.0, 11.0];
            share(&mut energies, Some(&rope));
            assert_eq!(energies, expected);
        }
    }
}
