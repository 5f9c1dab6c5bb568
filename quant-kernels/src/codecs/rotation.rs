//! Random rotations: they spread a vector's energy evenly over its coordinates, whatever the vector.

use super::Space;
use super::matrix::Matrix;
use super::random::SplitMix;
use crate::hadamard::{Direction, Hadamard};
use crate::simd::{self, Zip};
use crate::{Error, Isa};

/// How a rotation is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RotationKind {
    /// Random signs, then the Hadamard transform: d log d operations, nothing to store but the signs. Spreads outliers
    /// and smooth vectors evenly, but the sum of a few large channels takes only a few values.
    Hadamard,
    /// The same twice, with new signs: coordinates are normally distributed for every input, as the papers assume.
    #[default]
    HadamardTwice,
    /// The orthogonal factor of a Gaussian matrix, as the papers have it: d^2 operations and numbers.
    Qr,
}

/// An orthogonal map of vectors of `dim` values, from a seed.
#[derive(Debug, Clone)]
pub struct Rotation {
    form: Form,
    space: Space,
}

#[derive(Debug, Clone)]
enum Form {
    /// One vector of signs per round.
    Hadamard {
        transform: Hadamard,
        signs: Vec<f32>,
    },
    Dense(Matrix),
}

impl Rotation {
    /// The rotation of a seed. Any two seeds differ, also small ones.
    ///
    /// # Errors
    /// [`Error::Dim`] if there is no Hadamard matrix of this size (see [`Hadamard::new`]); QR takes the same sizes.
    pub fn new(kind: RotationKind, dim: usize, seed: u64) -> Result<Self, Error> {
        let transform = Hadamard::new(dim)?;
        let hadamard = |rounds: usize| {
            let mut random = SplitMix::new(seed);
            Form::Hadamard { transform, signs: (0..rounds * dim).map(|_| random.sign()).collect() }
        };
        let (number, form) = match kind {
            RotationKind::Hadamard => (1, hadamard(1)),
            RotationKind::HadamardTwice => (2, hadamard(2)),
            RotationKind::Qr => (3, Form::Dense(Matrix::orthogonal(dim, seed))),
        };
        Ok(Self { form, space: Space::plain(dim).then([number, seed]) })
    }

    /// The rotated coordinates.
    pub fn space(&self) -> Space {
        self.space
    }

    /// Values of a vector.
    pub fn dim(&self) -> usize {
        match &self.form {
            Form::Hadamard { transform, .. } => transform.dim(),
            Form::Dense(matrix) => matrix.rows(),
        }
    }

    /// `out = R x` for one vector.
    ///
    /// # Panics
    /// If a length is not the dimension.
    pub fn apply(&self, isa: Isa, x: &[f32], out: &mut [f32]) {
        match &self.form {
            Form::Hadamard { transform, signs } => {
                out.copy_from_slice(x);
                for signs in signs.chunks_exact(transform.dim()) {
                    simd::dispatch(isa, Zip { x: &mut *out, y: signs, f: |x, sign| x * sign });
                    transform.apply(isa, Direction::Forward, out);
                }
            }
            Form::Dense(matrix) => matrix.apply(isa, x, out),
        }
    }

    /// `x = R^T x`, the inverse, in place: `buffer` has `dim` values and is overwritten.
    ///
    /// # Panics
    /// If a length is not the dimension.
    pub fn invert(&self, isa: Isa, x: &mut [f32], buffer: &mut [f32]) {
        match &self.form {
            Form::Hadamard { transform, signs } => {
                assert!(x.len() == transform.dim(), "rotation: wrong lengths");
                for signs in signs.chunks_exact(transform.dim()).rev() {
                    transform.apply(isa, Direction::Inverse, x);
                    simd::dispatch(isa, Zip { x: &mut *x, y: signs, f: |x, sign| x * sign });
                }
            }
            Form::Dense(matrix) => {
                buffer.copy_from_slice(x);
                x.fill(0.0);
                matrix.add_transposed(isa, buffer, x);
            }
        }
    }
}
