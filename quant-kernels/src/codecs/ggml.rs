//! ggml's blocks of 32 values as KV codecs, in ggml's own layout: for comparison with engines that store them so.
//!
//! A record is a row of blocks as `types` defines them. Decoding equals ggml bit for bit, encoding ggml's reference
//! quantizer; scores are f32 dots with the decoded record (ggml itself quantizes the query first).

use super::CodecParams;
use super::records::{Domain, RecordCodec, ScaleOverflow};
use crate::types::{DequantizeFn, iq4_nl, q4_0, q4_1, q5_0, q5_1, q8_0};
use crate::{Error, GgmlType, Isa};

/// Values to blocks.
type QuantizeFn = fn(&[f32], &mut [u8]);

/// The codec of one head size and type.
#[derive(Debug, Clone)]
pub struct Ggml {
    domain: Domain,
    ty: GgmlType,
    dim: usize,
    quantize: QuantizeFn,
    dequantize: DequantizeFn,
}

impl Ggml {
    /// Rows of a type: Q8_0, Q5_1, Q5_0, Q4_1, Q4_0 or IQ4_NL.
    ///
    /// # Errors
    /// [`Error::NoKernel`] for other types, [`Error::RowLength`] if `dim` is no multiple of 32.
    pub fn new(params: &CodecParams<'_>, ty: GgmlType) -> Result<Self, Error> {
        let (quantize, dequantize): (QuantizeFn, DequantizeFn) = match ty {
            GgmlType::Q8_0 => (q8_0::quantize, q8_0::dequantize),
            GgmlType::Q5_1 => (q5_1::quantize, q5_1::dequantize),
            GgmlType::Q5_0 => (q5_0::quantize, q5_0::dequantize),
            GgmlType::Q4_1 => (q4_1::quantize, q4_1::dequantize),
            GgmlType::Q4_0 => (q4_0::quantize, q4_0::dequantize),
            GgmlType::IQ4_NL => (iq4_nl::quantize, iq4_nl::dequantize),
            _ => return Err(Error::NoKernel { ty }),
        };
        let (dim, block) = (params.dim, ty.block_len());
        if dim == 0 || !dim.is_multiple_of(block) {
            return Err(Error::RowLength { ty, cols: dim, block });
        }
        Ok(Self { domain: Domain::Plain(dim), ty, dim, quantize, dequantize })
    }
}

impl RecordCodec for Ggml {
    fn name(&self) -> &'static str {
        self.ty.name()
    }

    fn domain(&self) -> &Domain {
        &self.domain
    }

    fn record_bytes(&self) -> usize {
        self.ty.row_bytes(self.dim)
    }

    fn encode_record(
        &self,
        _isa: Isa,
        x: &[f32],
        buffer: &mut Vec<f32>,
        record: &mut [u8],
    ) -> Result<(), ScaleOverflow> {
        (self.quantize)(x, record);
        let decoded = super::take(buffer, self.dim);
        (self.dequantize)(record, decoded);
        if decoded.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(ScaleOverflow) }
    }

    fn expand(&self, record: &[u8], z: &mut [f32]) {
        (self.dequantize)(record, z);
    }
}
