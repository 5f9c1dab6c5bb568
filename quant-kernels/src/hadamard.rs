//! The Hadamard transform of every head size: y = H x / sqrt(d), orthogonal.
//!
//! A size is a power of two, or a core of 12, 20 or 28 times a power of two (so 64, 80, 96, 112, 128, 192, 256, 512 and
//! others; always a multiple of 16). With `d = core * w`, value `c * w + j` is row `c` of the core and column `j`:
//! H = H_core (x) H_w.
//!
//! The arithmetic: butterflies `(a + b, a - b)` at strides 1, 2, 4, ... below `w`; then the core, each output the sum of
//! its `core` signed inputs in index order; then one multiply by f32(1 / sqrt(d)). The transposed transform does the
//! same with the core transposed; powers of two are symmetric.
//!
//! The cores of 12 and 20 are Paley's first construction (q = 11, 19), that of 28 his second (q = 13): R. E. A. C.
//! Paley, On orthogonal matrices, 1933.

use crate::simd::{self, Kernel, LANES, Simd};
use crate::{Error, Isa};

/// The largest size.
pub const MAX_DIM: usize = 1024;

/// Which of the two orthogonal maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// H x.
    Forward,
    /// The inverse, H^T x.
    Inverse,
}

/// A size that has a Hadamard matrix here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hadamard {
    dim: usize,
    core: usize,
}

impl Hadamard {
    /// The transform of vectors of `dim` values.
    ///
    /// # Errors
    /// [`Error::Dim`] if `dim` is no multiple of 16, exceeds [`MAX_DIM`], or is not 1, 3, 5 or 7 times a power of two.
    pub fn new(dim: usize) -> Result<Self, Error> {
        let error = Error::Dim {
            what: "the Hadamard transform",
            dim,
            takes: "multiples of 16 up to 1024 that are 1, 3, 5 or 7 times a power of two",
        };
        if dim == 0 || dim > MAX_DIM || !dim.is_multiple_of(LANES) {
            return Err(error);
        }
        let core = match dim >> dim.trailing_zeros() {
            1 => 1,
            3 => 12,
            5 => 20,
            7 => 28,
            _ => return Err(error),
        };
        Ok(Self { dim, core })
    }

    /// Values of a vector.
    pub const fn dim(self) -> usize {
        self.dim
    }

    /// Transforms each of the vectors that `x` holds one after the other.
    ///
    /// # Panics
    /// If `x` is not a whole number of vectors.
    pub fn apply(self, isa: Isa, direction: Direction, x: &mut [f32]) {
        assert!(x.len().is_multiple_of(self.dim), "hadamard: not a whole number of vectors");
        simd::dispatch(isa, Transform { hadamard: self, direction, x });
    }
}

struct Transform<'a> {
    hadamard: Hadamard,
    direction: Direction,
    x: &'a mut [f32],
}

impl Kernel for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Hadamard { dim, core } = self.hadamard;
        let scale = s.splat(1.0 / (dim as f32).sqrt());
        for x in self.x.chunks_exact_mut(dim) {
            match (core, dim / LANES) {
                (1, 4) => in_registers::<S, 4>(s, scale, x),
                (1, 8) => in_registers::<S, 8>(s, scale, x),
                (1, 16) => in_registers::<S, 16>(s, scale, x),
                _ => in_memory(s, core, self.direction, scale, x),
            }
        }
    }
}

/// A power of two whose `N` lines fit in registers.
#[inline(always)]
fn in_registers<S: Simd, const N: usize>(s: S, scale: S::V, x: &mut [f32]) {
    let lines = x.as_chunks_mut::<LANES>().0;
    let mut v = [scale; N];
    for (v, line) in v.iter_mut().zip(&*lines) {
        *v = s.butterflies(s.load(line), LANES);
    }
    let mut stride = 1;
    while stride < N {
        for i in (0..N).filter(|i| i & stride == 0) {
            (v[i], v[i + stride]) = (s.add(v[i], v[i + stride]), s.sub(v[i], v[i + stride]));
        }
        stride *= 2;
    }
    for (v, line) in v.iter().zip(lines) {
        s.store(s.mul(*v, scale), line);
    }
}

/// Any size.
#[inline(always)]
fn in_memory<S: Simd>(s: S, core: usize, direction: Direction, scale: S::V, x: &mut [f32]) {
    let width = x.len() / core;
    let lines = x.as_chunks_mut::<LANES>().0;
    for line in lines.iter_mut() {
        s.store(s.butterflies(s.load(line), width), line);
    }
    let mut stride = 1;
    while stride * LANES < width {
        for pair in lines.chunks_exact_mut(2 * stride) {
            let (low, high) = pair.split_at_mut(stride);
            for (a, b) in low.iter_mut().zip(high) {
                let (x, y) = (s.load(a), s.load(b));
                s.store(s.add(x, y), a);
                s.store(s.sub(x, y), b);
            }
        }
        stride *= 2;
    }
    match core {
        12 => by_core(&H12, direction, x),
        20 => by_core(&H20, direction, x),
        28 => by_core(&H28, direction, x),
        _ => {}
    }
    for line in x.as_chunks_mut::<LANES>().0 {
        s.store(s.mul(s.load(line), scale), line);
    }
}

/// The core on every column of `x`, `[N][width]`.
#[inline(always)]
fn by_core<const N: usize>(core: &[[f32; N]; N], direction: Direction, x: &mut [f32]) {
    match x.len() / N {
        4 => columns::<N, 4>(core, direction, x, 4),
        8 => columns::<N, 8>(core, direction, x, 8),
        width => columns::<N, LANES>(core, direction, x, width),
    }
}

/// `W` columns at a time.
#[inline(always)]
fn columns<const N: usize, const W: usize>(
    core: &[[f32; N]; N],
    direction: Direction,
    x: &mut [f32],
    width: usize,
) {
    for first in (0..width).step_by(W) {
        let mut input = [[0f32; W]; N];
        for (c, input) in input.iter_mut().enumerate() {
            input.copy_from_slice(&x[c * width + first..][..W]);
        }
        for r in 0..N {
            let sign = |c: usize| match direction {
                Direction::Forward => core[r][c],
                Direction::Inverse => core[c][r],
            };
            let mut sum = input[0].map(|x| x * sign(0));
            for (c, input) in input.iter().enumerate().skip(1) {
                let sign = sign(c);
                for (sum, x) in sum.iter_mut().zip(input) {
                    *sum += x * sign; // times 1 or -1: exact
                }
            }
            x[r * width + first..][..W].copy_from_slice(&sum);
        }
    }
}

static H12: [[f32; 12]; 12] = paley_first::<12>();
static H20: [[f32; 20]; 20] = paley_first::<20>();
static H28: [[f32; 28]; 28] = paley_second::<28>();

/// Legendre's symbol of `i` modulo the prime `q`: 0, 1 or -1.
const fn legendre(i: usize, q: usize) -> f32 {
    if i.is_multiple_of(q) {
        return 0.0;
    }
    let mut j = 1;
    while j < q {
        if j * j % q == i % q {
            return 1.0;
        }
        j += 1;
    }
    -1.0
}

/// Paley I for the prime q = N - 1 = 3 mod 4: first row 1, below it first column -1, the rest Q + I with
/// Q[i][j] = legendre(i - j).
const fn paley_first<const N: usize>() -> [[f32; N]; N] {
    let mut h = [[1.0; N]; N];
    let mut i = 1;
    while i < N {
        h[i][0] = -1.0;
        let mut j = 1;
        while j < N {
            h[i][j] = if i == j { 1.0 } else { legendre(i + N - 1 - j, N - 1) };
            j += 1;
        }
        i += 1;
    }
    h
}

/// Paley II for the prime q = N / 2 - 1 = 1 mod 4: the symmetric conference matrix C (0 on the diagonal, first row and
/// column 1, the rest legendre(i - j)) with every 0 replaced by [[1, -1], [-1, -1]] and every other entry by itself
/// times [[1, 1], [1, -1]].
const fn paley_second<const N: usize>() -> [[f32; N]; N] {
    let (size, q) = (N / 2, N / 2 - 1);
    let mut h = [[0.0; N]; N];
    let mut i = 0;
    while i < size {
        let mut j = 0;
        while j < size {
            let c = if i == j {
                0.0
            } else if i == 0 || j == 0 {
                1.0
            } else {
                legendre(i + q - j, q)
            };
            let block = if i == j { [1.0, -1.0, -1.0, -1.0] } else { [c, c, c, -c] };
            let mut k = 0;
            while k < 4 {
                h[2 * i + k / 2][2 * j + k % 2] = block[k];
                k += 1;
            }
            j += 1;
        }
        i += 1;
    }
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gram<const N: usize>(h: &[[f32; N]; N]) {
        for i in 0..N {
            for j in 0..N {
                let dot: f32 = (0..N).map(|k| h[i][k] * h[j][k]).sum();
                assert_eq!(dot, if i == j { N as f32 } else { 0.0 }, "H{N}: rows {i} and {j}");
            }
            assert!(h[i].iter().all(|x| x.abs() == 1.0));
        }
    }

    #[test]
    fn cores_are_hadamard_matrices() {
        gram(&H12);
        gram(&H20);
        gram(&H28);
    }
}
