//! Dense random matrices: the papers' rotation (QR of a Gaussian matrix) and sketch (Gaussian entries).

use super::random::SplitMix;
use crate::Isa;
use crate::simd::{self, Kernel, LANES, Simd};
use crate::types::f32::tree;

/// `[rows][cols]`; `cols` is a multiple of 16.
#[derive(Debug, Clone)]
pub(super) struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<f32>,
}

impl Matrix {
    /// Independent standard normal entries.
    pub fn gaussian(rows: usize, cols: usize, seed: u64) -> Self {
        let mut random = SplitMix::new(seed);
        Self { rows, cols, data: (0..rows * cols).map(|_| random.normal() as f32).collect() }
    }

    /// The orthogonal factor of a square Gaussian matrix (with a positive diagonal of R: uniform over all rotations
    /// and reflections), by the Gram-Schmidt process run twice in f64.
    pub fn orthogonal(dim: usize, seed: u64) -> Self {
        let mut random = SplitMix::new(seed);
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(dim);
        while rows.len() < dim {
            let mut row: Vec<f64> = (0..dim).map(|_| random.normal()).collect();
            for _ in 0..2 {
                for other in &rows {
                    let dot: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
                    row.iter_mut().zip(other).for_each(|(a, b)| *a -= dot * b);
                }
            }
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.iter_mut().for_each(|x| *x /= norm);
            rows.push(row);
        }
        Self { rows: dim, cols: dim, data: rows.iter().flatten().map(|x| *x as f32).collect() }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// `out = A x`: every row by lanes (index mod 16, multiply then add), then the tree.
    pub fn apply(&self, isa: Isa, x: &[f32], out: &mut [f32]) {
        assert!(x.len() == self.cols && out.len() == self.rows, "matrix: wrong lengths");
        simd::dispatch(isa, Apply { matrix: self, x, out });
    }

    /// `out = out + A^T y`, row after row.
    pub fn add_transposed(&self, isa: Isa, y: &[f32], out: &mut [f32]) {
        assert!(y.len() == self.rows && out.len() == self.cols, "matrix: wrong lengths");
        for (y, row) in y.iter().zip(self.data.chunks_exact(self.cols)) {
            simd::dispatch(isa, simd::Zip { x: &mut *out, y: row, f: |out, a| out + y * a });
        }
    }
}

struct Apply<'a> {
    matrix: &'a Matrix,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (out, row) in self.out.iter_mut().zip(self.matrix.data.chunks_exact(self.matrix.cols)) {
            *out = dot(s, row, self.x);
        }
    }
}

/// A dot product by lanes (index mod 16, multiply then add) and the tree; lengths are equal multiples of 16.
#[inline(always)]
pub(super) fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        sum = s.add(sum, s.mul(s.load(a), s.load(b)));
    }
    tree(s.lanes(sum))
}
