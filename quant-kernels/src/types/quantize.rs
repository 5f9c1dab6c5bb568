//! Quantization: rows of values to blocks of any type, each type by the least weighted squared error that its
//! search finds.
//!
//! The error of a row is `sum over columns of importance * (value - quantized value)^2`. With an importance of
//! `E[x^2]` of the layer's input per column (what llama.cpp calls an importance matrix) that is the expected squared
//! error of the output, if inputs are uncorrelated; without one every column counts the same. Nothing else enters: a
//! block's bytes depend on its own values and importances alone, not on threads, nor on other blocks.

use crate::{Error, GgmlType, Kernels, Parallel};
use half::f16;
use std::sync::{Mutex, PoisonError};

/// Quantizes one row: `x.len()` values with as many importances (none: all equal) into whole blocks.
///
/// Values are finite and within [`limit`] of the type, importances finite and not negative: [`Kernels::quantize`]
/// checks that.
pub type QuantizeFn = fn(x: &[f32], importance: Option<&[f32]>, blocks: &mut [u8]);

/// Tasks wanted per thread, so that a slow core delays nobody.
const TASKS_PER_THREAD: usize = 8;

impl Kernels {
    /// Quantizes `values`, rows of `cols` values, to blocks of type `ty`; `importance` has a weight for each column.
    ///
    /// Every type can do without importances, also those for which llama.cpp demands them (IQ1 and IQ2): the search is
    /// the same, with equal weights. Whether such a model is any good is for its maker to say, not for a codec. A
    /// block whose importances are all zero is quantized as if they were equal.
    ///
    /// The bytes do not depend on `parallel`, on the tier, or on the platform.
    ///
    /// ```
    /// use quant_kernels::{GgmlType, Isa, Kernels, Serial};
    /// let kernels = Kernels::new(Isa::detect());
    /// let values: Vec<f32> = (0..512).map(|i| (i as f32 * 0.7).sin()).collect();
    /// let mut blocks = vec![0; 2 * GgmlType::Q4_K.row_bytes(256)];
    /// kernels.quantize(&Serial, GgmlType::Q4_K, 256, &values, None, &mut blocks)?;
    /// # Ok::<(), quant_kernels::Error>(())
    /// ```
    ///
    /// # Errors
    /// Lengths that do not fit, a type without arithmetic, a value that is not finite or larger than the type can
    /// hold ([`limit`]), an importance that is negative or not finite.
    pub fn quantize(
        &self,
        parallel: &dyn Parallel,
        ty: GgmlType,
        cols: usize,
        values: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), Error> {
        let kernels = self.of(ty).ok_or(Error::NoKernel { ty })?;
        if cols == 0 || !cols.is_multiple_of(ty.block_len()) {
            return Err(Error::RowLength { ty, cols, block: ty.block_len() });
        }
        let length = |what, expected, got| {
            if expected == got { Ok(()) } else { Err(Error::Length { what, expected, got }) }
        };
        let rows = values.len() / cols;
        length("values to quantize", rows * cols, values.len())?;
        length("quantized bytes", rows.saturating_mul(ty.row_bytes(cols)), out.len())?;
        if let Some(importance) = importance {
            length("importances", cols, importance.len())?;
            if let Some(col) = importance.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
                return Err(Error::Importance { col });
            }
        }
        let task_rows = (rows / (parallel.threads() * TASKS_PER_THREAD)).max(1);
        let refused = Mutex::new(None::<usize>);
        let tasks: Vec<_> = values
            .chunks(task_rows * cols)
            .zip(out.chunks_mut(task_rows * ty.row_bytes(cols)))
            .map(Mutex::new)
            .collect();
        parallel.run(tasks.len(), &|_, index| {
            let Some(task) = tasks.get(index) else { return };
            let mut task = task.lock().unwrap_or_else(PoisonError::into_inner);
            let (values, out) = &mut *task;
            if let Some(at) = values.iter().position(|v| v.is_nan() || v.abs() > limit(ty)) {
                let at = index * task_rows * cols + at;
                let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
                *refused = Some(refused.map_or(at, |first| first.min(at)));
                return;
            }
            for (row, out) in values.chunks(cols).zip(out.chunks_mut(ty.row_bytes(cols))) {
                (kernels.quantize)(row, importance, out);
            }
        });
        match refused.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(at) => Err(Error::ValueRange { ty, row: at / cols, col: at % cols }),
        }
    }
}

/// The largest magnitude that [`Kernels::quantize`] takes: what the type holds without any scale overflowing. Types
/// with an f16 scale could hold somewhat more; 65504 for all of them is simpler and far from any weight.
pub fn limit(ty: GgmlType) -> f32 {
    match ty {
        GgmlType::F32 | GgmlType::MXFP4 => f32::MAX,
        // All ones below the sign but for the last bit of the exponent.
        GgmlType::BF16 => f32::from_bits(0x7F7F_0000),
        // The largest scale times the largest level.
        GgmlType::NVFP4 => 448.0 * 6.0,
        _ => 65504.0,
    }
}

/// The values of a block and their weights, made comparable: the largest of each lies in `[1, 2)`, whatever it was.
/// Divisors are powers of two, so that nothing is rounded.
pub(super) struct Sample<const LEN: usize> {
    /// Values over `unit`.
    pub x: [f32; LEN],
    /// Weights: positive.
    pub w: [f32; LEN],
    /// What the values were divided by.
    unit: f32,
}

/// The smallest weight, relative to the largest: a column that never matters still gets the best code that costs
/// the others nothing.
const LEAST_WEIGHT: f32 = 1.0 / (1 << 24) as f32;

impl<const LEN: usize> Sample<LEN> {
    fn new(x: &[f32; LEN], importance: Option<&[f32; LEN]>) -> Self {
        let unit = power_of_two(x);
        let w = match importance {
            Some(w) if w.iter().any(|&w| w > 0.0) => {
                let unit = power_of_two(w);
                w.map(|w| (w / unit).max(LEAST_WEIGHT))
            }
            _ => [1.0; LEN],
        };
        Self { x: x.map(|x| x / unit), w, unit }
    }

    /// Rounds a scale, times `factor`, to the f16 that a block stores: its bytes, and the value they give the scale.
    pub fn f16(&self, scale: f32, factor: f32) -> ([u8; 2], f32) {
        let max = f16::MAX.to_f32();
        let stored = f16::from_f32((scale * factor * self.unit).clamp(-max, max));
        // A stored zero ends here: over a subnormal unit it could be 0 / 0.
        let value = stored.to_f32();
        (stored.to_le_bytes(), if value == 0.0 { 0.0 } else { value / self.unit / factor })
    }

    /// What the values were divided by.
    pub fn unit(&self) -> f32 {
        self.unit
    }

    /// Sub-block `j` of `len` values: values and weights.
    pub fn part(&self, j: usize, len: usize) -> (&[f32], &[f32]) {
        (&self.x[j * len..][..len], &self.w[j * len..][..len])
    }
}

/// The power of two at or below the largest magnitude; 1 if all are zero.
fn power_of_two(x: &[f32]) -> f32 {
    let bits = super::blocks32::amax(x).to_bits();
    match bits >> 23 {
        0 if bits == 0 => 1.0,
        // Subnormal: the highest bit alone.
        0 => f32::from_bits(1 << bits.ilog2()),
        _ => f32::from_bits(bits & 0x7F80_0000),
    }
}

/// Calls `fit` for every block of a row.
pub(super) fn each_block<const LEN: usize, const BYTES: usize>(
    x: &[f32],
    importance: Option<&[f32]>,
    blocks: &mut [u8],
    fit: impl Fn(&Sample<LEN>, &mut [u8; BYTES]),
) {
    let mut importance = importance.map(|w| w.as_chunks::<LEN>().0.iter());
    for (x, block) in x.as_chunks::<LEN>().0.iter().zip(blocks.as_chunks_mut::<BYTES>().0) {
        fit(&Sample::new(x, importance.as_mut().and_then(Iterator::next)), block);
    }
}
