//! Where in a page each layer's and head's keys and values lie.

use crate::{Error, PAGE};
use std::ops::Range;

/// What one layer remembers per position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerShape {
    /// KV heads.
    pub kv_heads: usize,
    /// Values of a head's key.
    pub key_dim: usize,
    /// Values of a head's value.
    pub value_dim: usize,
}

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum KvType {
    /// Half precision, rounded to nearest even.
    #[default]
    F16,
    /// Single precision: the reference.
    F32,
}

impl KvType {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// `f16` or `f32`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }
}

/// One layer's place in a page: `[kv_head][PAGE][key_dim]` at `keys`, `[kv_head][PAGE][value_dim]` at `values`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerPlace {
    pub shape: LayerShape,
    keys: usize,
    values: usize,
}

impl LayerPlace {
    /// Elements of one head's keys.
    pub fn keys(&self, kv_head: usize) -> Range<usize> {
        let len = PAGE * self.shape.key_dim;
        let start = self.keys + kv_head * len;
        start..start + len
    }

    /// Elements of one head's values.
    pub fn values(&self, kv_head: usize) -> Range<usize> {
        let len = PAGE * self.shape.value_dim;
        let start = self.values + kv_head * len;
        start..start + len
    }
}

/// The whole page.
#[derive(Debug)]
pub(crate) struct Layout {
    pub layers: Vec<LayerPlace>,
    /// Elements of a page.
    pub elements: usize,
}

impl Layout {
    pub fn new(shapes: &[LayerShape]) -> Result<Self, Error> {
        let too_large = || Error::LayoutTooLarge { layers: shapes.len() };
        let mut elements = 0usize;
        let mut layers = Vec::with_capacity(shapes.len());
        let mut place = |heads: usize, dim: usize| {
            let start = elements;
            let len = heads.checked_mul(dim)?.checked_mul(PAGE)?;
            elements = elements.checked_add(len).filter(|&n| n <= isize::MAX as usize / 4)?;
            Some(start)
        };
        for &shape in shapes {
            let keys = place(shape.kv_heads, shape.key_dim).ok_or_else(too_large)?;
            let values = place(shape.kv_heads, shape.value_dim).ok_or_else(too_large)?;
            layers.push(LayerPlace { shape, keys, values });
        }
        Ok(Self { layers, elements })
    }
}
