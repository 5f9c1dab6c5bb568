//! Takes a model file apart. Whatever nobody asks for makes [`Loader::finish`] fail: a model that was understood
//! only in part would run and speak garbage.

use crate::Error;
use crate::matrix::{Linear, Matrix};
use quant_gguf::{Array, GgmlType, Gguf, Tensor, Value};
use quant_kernels::{Isa, Kernels};
use std::collections::BTreeSet;

/// Keys under the architecture's name that say nothing about how to compute.
///
/// `vocab_size` repeats the rows of `token_embd`; `tensor_data_layout` names the checkpoint's origin;
/// `rope.scaling.finetuned` says how the model was trained.
const WITHOUT_EFFECT: [&str; 3] = ["vocab_size", "tensor_data_layout", "rope.scaling.finetuned"];

/// Hands out tensors by name and shape and hyper-parameters by key, and remembers what was handed out.
///
/// Keys are given without the architecture's name: `block_count` for `llama.block_count`.
#[derive(Debug)]
pub struct Loader<'a> {
    gguf: &'a Gguf,
    arch: String,
    kernels: Kernels,
    keys: BTreeSet<String>,
    tensors: BTreeSet<String>,
}

impl<'a> Loader<'a> {
    /// Begins with a file.
    ///
    /// # Errors
    /// [`Error::Gguf`] if it names no architecture.
    pub fn new(gguf: &'a Gguf) -> Result<Self, Error> {
        let arch = gguf.require_str("general.architecture")?.to_owned();
        let kernels = Kernels::new(Isa::Scalar);
        Ok(Self { gguf, arch, kernels, keys: BTreeSet::new(), tensors: BTreeSet::new() })
    }

    /// `general.architecture`.
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// The file.
    pub fn gguf(&self) -> &'a Gguf {
        self.gguf
    }

    fn claim(&mut self, key: &str) -> String {
        let full = format!("{}.{key}", self.arch);
        self.keys.insert(full.clone());
        full
    }

    /// An unsigned integer; `None` if the file does not have it.
    ///
    /// # Errors
    /// [`Error::Gguf`] for a value of another type.
    pub fn optional_u32(&mut self, key: &str) -> Result<Option<u32>, Error> {
        Ok(self.gguf.u32(&self.claim(key))?)
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// [`Error::Gguf`] if it is absent or of another type.
    pub fn u32(&mut self, key: &str) -> Result<u32, Error> {
        Ok(self.gguf.require_u32(&self.claim(key))?)
    }

    /// A size that must not be zero.
    ///
    /// # Errors
    /// [`Error::Gguf`] if it is absent or of another type, [`Error::Hyperparameter`] if it is zero.
    pub fn size(&mut self, key: &str) -> Result<usize, Error> {
        match self.u32(key)? {
            0 => Err(self.wrong(key, 0, "it must be positive")),
            size => Ok(size as usize),
        }
    }

    /// A number; `None` if the file does not have it.
    ///
    /// # Errors
    /// [`Error::Gguf`] for a value of another type, [`Error::Hyperparameter`] if it is not finite.
    pub fn optional_f32(&mut self, key: &str) -> Result<Option<f32>, Error> {
        let value = self.gguf.f32(&self.claim(key))?;
        match value {
            Some(value) if !value.is_finite() => Err(self.wrong(key, value, "it must be finite")),
            value => Ok(value),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// [`Error::Gguf`] if it is absent or of another type, [`Error::Hyperparameter`] if it is not finite.
    pub fn f32(&mut self, key: &str) -> Result<f32, Error> {
        match self.optional_f32(key)? {
            Some(value) => Ok(value),
            None => Err(quant_gguf::Error::MissingKey { key: self.full(key) }.into()),
        }
    }

    /// A boolean; `None` if the file does not have it.
    ///
    /// # Errors
    /// [`Error::Gguf`] for a value of another type.
    pub fn optional_bool(&mut self, key: &str) -> Result<Option<bool>, Error> {
        Ok(self.gguf.bool(&self.claim(key))?)
    }

    /// A string; `None` if the file does not have it.
    ///
    /// # Errors
    /// [`Error::Gguf`] for a value of another type.
    pub fn optional_str(&mut self, key: &str) -> Result<Option<&'a str>, Error> {
        let key = self.claim(key);
        Ok(self.gguf.str(&key)?)
    }

    /// An array; `None` if the file does not have it.
    ///
    /// # Errors
    /// [`Error::Gguf`] for a value of another type.
    pub fn optional_array(&mut self, key: &str) -> Result<Option<Array<'a>>, Error> {
        let key = self.claim(key);
        Ok(self.gguf.array(&key)?)
    }

    /// One positive size for each layer: a single value stands for all of them. `default` where the key is absent.
    ///
    /// # Errors
    /// [`Error::Gguf`] if it is absent without a default or of another type, [`Error::Hyperparameter`] if there are
    /// not as many as layers or one is zero.
    pub fn size_per_layer(
        &mut self,
        key: &str,
        layers: usize,
        default: Option<&[usize]>,
    ) -> Result<Vec<usize>, Error> {
        let full = self.claim(key);
        let sizes: Vec<usize> = match (self.gguf.get(&full), default) {
            (None, Some(default)) => default.to_vec(),
            (Some(Value::Array(array)), _) => array.u32s()?.map(|size| size as usize).collect(),
            _ => vec![self.gguf.require_u32(&full)? as usize; layers],
        };
        if sizes.len() != layers {
            let reason = format!("{layers} layers need as many values");
            return Err(self.wrong(key, format_args!("an array of {}", sizes.len()), &reason));
        }
        if sizes.contains(&0) {
            return Err(self.wrong(key, 0, "it must be positive"));
        }
        Ok(sizes)
    }

    /// How many layers there are: `block_count`, checked against what the file can hold.
    ///
    /// # Errors
    /// As [`Loader::size`].
    pub fn block_count(&mut self) -> Result<usize, Error> {
        let layers = self.size("block_count")?;
        if layers > self.gguf.tensor_count() {
            return Err(self.wrong("block_count", layers, "the file has fewer tensors than layers"));
        }
        Ok(layers)
    }

    /// An error about a hyper-parameter.
    pub fn wrong(&self, key: &str, value: impl ToString, reason: &str) -> Error {
        Error::Hyperparameter { key: self.full(key), value: value.to_string(), reason: reason.to_owned() }
    }

    /// An error about a variant of the architecture.
    pub fn unsupported(&self, what: impl Into<String>) -> Error {
        Error::Unsupported { arch: self.arch.clone(), what: what.into() }
    }

    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    /// Whether the file has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.gguf.tensor_info(name).is_some()
    }

    fn tensor(&mut self, name: &str, dims: &[usize]) -> Result<Tensor, Error> {
        let tensor = self.gguf.tensor(name)?;
        self.tensors.insert(name.to_owned());
        let expected: Vec<u64> = dims.iter().map(|&dim| dim as u64).collect();
        // Trailing dimensions of one mean nothing.
        let (found, ones) = tensor.dims.split_at(expected.len().min(tensor.dims.len()));
        if found != expected || ones.iter().any(|&dim| dim != 1) {
            return Err(Error::Shape { tensor: name.to_owned(), expected, found: tensor.dims });
        }
        Ok(tensor)
    }

    /// A matrix of `rows` output features and `cols` input features.
    ///
    /// # Errors
    /// [`Error::Gguf`] if it is absent or its type unknown, [`Error::Shape`], [`Error::TensorType`] if there is no
    /// arithmetic for its type.
    pub fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix, Error> {
        let tensor = self.tensor(name, &[cols, rows])?;
        if self.kernels.of(tensor.ty).is_none() {
            return Err(Error::TensorType {
                tensor: name.to_owned(),
                ty: tensor.ty,
                place: "a weight matrix",
            });
        }
        Matrix::new(tensor.ty, rows, cols, tensor.bytes)
    }

    /// Rows of the matrix `name`, if the file has it: the size of a vocabulary.
    ///
    /// # Errors
    /// [`Error::Gguf`] if it is absent.
    pub fn rows_of(&self, name: &str) -> Result<usize, Error> {
        let missing = || quant_gguf::Error::MissingTensor { name: name.to_owned() };
        let info = self.gguf.tensor_info(name).ok_or_else(missing)?;
        let rows: u64 = info.dims.iter().skip(1).product();
        usize::try_from(rows).map_err(|_| Error::Shape {
            tensor: name.to_owned(),
            expected: Vec::new(),
            found: info.dims.to_vec(),
        })
    }

    /// A vector of `len` values, stored as F32, F16 or BF16.
    ///
    /// # Errors
    /// [`Error::Gguf`] if it is absent, [`Error::Shape`], [`Error::TensorType`] for any other type.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let tensor = self.tensor(name, &[len])?;
        let plain = matches!(tensor.ty, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16);
        let Some(kernels) = self.kernels.of(tensor.ty).filter(|_| plain) else {
            return Err(Error::TensorType { tensor: name.to_owned(), ty: tensor.ty, place: "a vector" });
        };
        let mut values = vec![0.0; len];
        (kernels.dequantize)(&tensor.bytes, &mut values);
        Ok(values)
    }

    /// [`Loader::vector`], or `None` if the file does not have it.
    ///
    /// # Errors
    /// As [`Loader::vector`].
    pub fn optional_vector(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>, Error> {
        if self.has(name) { self.vector(name, len).map(Some) } else { Ok(None) }
    }

    /// `{name}.weight` with `{name}.bias` if the file has it.
    ///
    /// # Errors
    /// As [`Loader::matrix`] and [`Loader::vector`].
    pub fn linear(&mut self, name: &str, rows: usize, cols: usize) -> Result<Linear, Error> {
        let matrix = self.matrix(&format!("{name}.weight"), rows, cols)?;
        let bias = self.optional_vector(&format!("{name}.bias"), rows)?;
        Linear::new(matrix, bias)
    }

    /// Several linears with one input: from the fused tensor `fused` (rows one part after the other) if the file has
    /// it, else from tensors of their own.
    ///
    /// # Errors
    /// As [`Loader::linear`].
    pub fn linears<const N: usize>(
        &mut self,
        fused: &str,
        parts: [(&str, usize); N],
        cols: usize,
    ) -> Result<[Linear; N], Error> {
        let mut linears = Vec::with_capacity(N);
        if self.has(&format!("{fused}.weight")) {
            let rows = parts.iter().fold(0usize, |sum, &(_, rows)| sum.saturating_add(rows));
            let whole = self.linear(fused, rows, cols)?;
            let mut first = 0;
            for (_, rows) in parts {
                linears.extend(whole.slice_rows(first, rows));
                first += rows;
            }
        } else {
            for (name, rows) in parts {
                linears.push(self.linear(name, rows, cols)?);
            }
        }
        linears.try_into().map_err(|_| Error::Parts { layer: 0, what: "parts of a fused tensor" })
    }

    /// Values of all tensors handed out so far.
    pub fn parameters(&self) -> u64 {
        self.claimed().map(|info| info.values()).fold(0, u64::saturating_add)
    }

    /// Bytes of all tensors handed out so far.
    pub fn bytes(&self) -> u64 {
        self.claimed().filter_map(|info| info.bytes).fold(0, u64::saturating_add)
    }

    fn claimed(&self) -> impl Iterator<Item = quant_gguf::TensorInfo<'a>> + use<'a, '_> {
        self.gguf.tensors().filter(|info| self.tensors.contains(info.name))
    }

    /// Ends loading.
    ///
    /// # Errors
    /// [`Error::Unclaimed`] if the file has a tensor, or a key under the architecture's name, that nobody asked for.
    pub fn finish(self) -> Result<(), Error> {
        let prefix = format!("{}.", self.arch);
        let keys: Vec<String> = self
            .gguf
            .metadata()
            .map(|(key, _)| key)
            .filter(|key| key.strip_prefix(&prefix).is_some_and(|rest| !WITHOUT_EFFECT.contains(&rest)))
            .filter(|key| !self.keys.contains(*key))
            .map(str::to_owned)
            .collect();
        let tensors: Vec<String> = self
            .gguf
            .tensors()
            .map(|info| info.name)
            .filter(|name| !self.tensors.contains(*name))
            .map(str::to_owned)
            .collect();
        if keys.is_empty() && tensors.is_empty() { Ok(()) } else { Err(Error::Unclaimed { tensors, keys }) }
    }
}
