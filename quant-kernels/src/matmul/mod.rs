//! Matrix times activations: several weights with one input are one call, one quantization, one parallel region.

mod tile;

pub use tile::Tile;

use crate::activations::{ActKind, Acts};
use crate::{Error, GgmlType, Kernels, Parallel};
use tile::OutPtr;

/// How activations are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activations {
    /// As the weight type asks: int8 for quantized weights, f32 for float weights.
    #[default]
    Auto,
    /// Never quantized: weights are dequantized and multiplied in f32 (the reference mode).
    F32,
}

/// A weight matrix as it lies in the file: `rows` rows of `cols` values, row after row. Checked on creation.
#[derive(Debug, Clone, Copy)]
pub struct Weight<'a> {
    ty: GgmlType,
    rows: usize,
    cols: usize,
    bytes: &'a [u8],
}

impl<'a> Weight<'a> {
    /// Checks that `bytes` holds exactly this shape.
    ///
    /// # Errors
    /// [`Error::RowLength`] if blocks do not divide a row, [`Error::Length`] if `bytes` has another length.
    pub fn new(ty: GgmlType, rows: usize, cols: usize, bytes: &'a [u8]) -> Result<Self, Error> {
        if !cols.is_multiple_of(ty.block_len()) {
            return Err(Error::RowLength { ty, cols, block: ty.block_len() });
        }
        let expected = ty.row_bytes(cols).saturating_mul(rows);
        if bytes.len() != expected {
            return Err(Error::Length { what: "weight bytes", expected, got: bytes.len() });
        }
        Ok(Self { ty, rows, cols, bytes })
    }

    /// The type.
    pub fn ty(&self) -> GgmlType {
        self.ty
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The bytes of one row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        let bytes = self.ty.row_bytes(self.cols);
        &self.bytes[row * bytes..][..bytes]
    }

    /// The rows `first..first + rows` as a matrix of their own (a fused tensor's part).
    pub fn slice_rows(&self, first: usize, rows: usize) -> Self {
        let bytes = self.ty.row_bytes(self.cols);
        Self { rows, bytes: &self.bytes[first * bytes..][..rows * bytes], ..*self }
    }
}

/// One output of a matmul call: `out[token][rows] = weight * x[token] + bias`.
#[derive(Debug)]
pub struct Projection<'a> {
    /// The weight.
    pub weight: Weight<'a>,
    /// Added once to each output row.
    pub bias: Option<&'a [f32]>,
    /// `[tokens][weight.rows]`.
    pub out: &'a mut [f32],
}

/// Buffers that matmul calls reuse; grows to the largest call and stays.
#[derive(Debug, Default)]
pub struct MatmulScratch {
    acts: Vec<Acts>,
    workers: Vec<std::sync::Mutex<tile::Scratch>>,
}

/// Rows of a task; a multiple of every kernel's row group.
const TASK_ROWS: usize = 64;

impl Kernels {
    /// Multiplies every projection's weight with the same input `x`, `[tokens][cols]`.
    ///
    /// Bits do not depend on `parallel`, on the tier, or on how tokens are batched.
    ///
    /// # Errors
    /// Shapes that do not fit, or a type without arithmetic.
    pub fn matmul(
        &self,
        parallel: &dyn Parallel,
        scratch: &mut MatmulScratch,
        activations: Activations,
        x: &[f32],
        tokens: usize,
        projections: &mut [Projection<'_>],
    ) -> Result<(), Error> {
        let _ = (parallel, activations, tokens, OutPtr::new(&mut []), ActKind::F32, TASK_ROWS);
        scratch.acts.clear();
        for p in projections {
            let Some(kernels) = self.of(p.weight.ty) else { return Err(Error::NoKernel { ty: p.weight.ty }) };
            let acts = Acts {
                kind: Some(ActKind::F32),
                tokens,
                cols: p.weight.cols,
                x: x.to_vec(),
                ..Acts::default()
            };
            let mut row = vec![0f32; p.weight.cols];
            for r in 0..p.weight.rows {
                (kernels.dequantize)(p.weight.row(r), &mut row);
                for t in 0..tokens {
                    let dot = crate::types::f32::dot_lanes(
                        row.len(),
                        |i| row[i],
                        &acts.x[t * row.len()..][..row.len()],
                    );
                    p.out[t * p.weight.rows + r] = dot + p.bias.map_or(0.0, |b| b[r]);
                }
            }
        }
        Ok(())
    }
}
