//! Weights as a model owns them: shared bytes of the file with a checked shape.

use crate::Error;
use quant_gguf::{Bytes, GgmlType};
use quant_kernels::{Kernels, Projection, Weight};

/// A weight matrix, `rows` output features times `cols` input features. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct Matrix {
    ty: GgmlType,
    rows: usize,
    cols: usize,
    bytes: Bytes,
}

impl Matrix {
    /// Checks that the bytes hold exactly this shape.
    ///
    /// # Errors
    /// [`Error::Kernels`] if not.
    pub fn new(ty: GgmlType, rows: usize, cols: usize, bytes: Bytes) -> Result<Self, Error> {
        Weight::new(ty, rows, cols, &bytes)?;
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

    /// Bytes of the weights.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The weights as they lie in the file.
    pub(crate) fn weights(&self) -> &Bytes {
        &self.bytes
    }

    /// As the kernels take it.
    ///
    /// # Errors
    /// None in practice: the shape was checked when the matrix was made.
    pub fn weight(&self) -> Result<Weight<'_>, Error> {
        Ok(Weight::new(self.ty, self.rows, self.cols, &self.bytes)?)
    }

    /// Consecutive rows as a matrix of their own: a part of a fused tensor. `None` if it has no such rows.
    pub fn slice_rows(&self, first: usize, rows: usize) -> Option<Self> {
        let end = first.checked_add(rows).filter(|&end| end <= self.rows)?;
        let row_bytes = self.ty.row_bytes(self.cols);
        let bytes = self.bytes.slice(first * row_bytes..end * row_bytes)?;
        Some(Self { rows, bytes, ..*self })
    }

    /// Writes one row as values: an embedding.
    ///
    /// # Errors
    /// [`Error::Kernels`] if the type has no arithmetic.
    pub(crate) fn dequantize_row(&self, kernels: &Kernels, row: usize, out: &mut [f32]) -> Result<(), Error> {
        let of = kernels.of(self.ty).ok_or(quant_kernels::Error::NoKernel { ty: self.ty })?;
        (of.dequantize)(self.weight()?.row(row), out);
        Ok(())
    }
}

/// A matrix with an optional bias.
#[derive(Debug, Clone)]
pub struct Linear {
    matrix: Matrix,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// A matrix and what is added to its output.
    ///
    /// # Errors
    /// [`Error::Kernels`] if the bias has not one value for each row.
    pub fn new(matrix: Matrix, bias: Option<Vec<f32>>) -> Result<Self, Error> {
        if let Some(bias) = &bias
            && bias.len() != matrix.rows()
        {
            let (expected, got) = (matrix.rows(), bias.len());
            return Err(quant_kernels::Error::Length { what: "bias", expected, got }.into());
        }
        Ok(Self { matrix, bias })
    }

    /// The matrix.
    pub fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.matrix.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.matrix.cols
    }

    /// What is added to the output.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// Consecutive rows with their bias. `None` if there are no such rows.
    pub fn slice_rows(&self, first: usize, rows: usize) -> Option<Self> {
        let matrix = self.matrix.slice_rows(first, rows)?;
        let bias = match &self.bias {
            Some(bias) => Some(bias.get(first..first + rows)?.to_vec()),
            None => None,
        };
        Some(Self { matrix, bias })
    }

    /// One output of a matmul call.
    pub(crate) fn projection<'a>(&'a self, out: &'a mut [f32]) -> Result<Projection<'a>, Error> {
        Ok(Projection { weight: self.matrix.weight()?, bias: self.bias.as_deref(), out })
    }
}
