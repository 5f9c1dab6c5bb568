//! Uniform codes: the range of each token's values cut into 2^bits equal cells, decoded to their centres.
//!
//! ```text
//! record: | minimum f16 | step f16 | codes, dim x bits, lowest bit first |      bits + 32/dim bits per value
//! value:  minimum + step * (code + 0.5)
//! ```
//!
//! The plain baseline, as per-token KIVI (arXiv 2402.02750) has it, with cells instead of end points. No rotation: one
//! large channel coarsens all others.

use super::records::{Domain, RecordCodec, ScaleOverflow, put_half};
use super::{CodecParams, packing};
use crate::hadamard::Hadamard;
use crate::types::f16_at;
use crate::{Error, Isa};

/// The codec of one head size and bit width.
#[derive(Debug, Clone)]
pub struct Uniform {
    domain: Domain,
    dim: usize,
    bits: usize,
}

impl Uniform {
    /// Codes of `bits` bits (2 to 8).
    ///
    /// # Errors
    /// [`Error::Dim`] for a head size that [`Hadamard::new`] refuses, [`Error::Parameter`] for other bits.
    pub fn new(params: &CodecParams<'_>, bits: usize) -> Result<Self, Error> {
        if !(2..=8).contains(&bits) {
            return Err(Error::Parameter { codec: "uniform", takes: "2 to 8 bits", got: bits });
        }
        let dim = Hadamard::new(params.dim)?.dim();
        Ok(Self { domain: Domain::Plain(dim), dim, bits })
    }

    /// Bytes of a token's record.
    pub const fn record_bytes(dim: usize, bits: usize) -> usize {
        4 + packing::packed_bytes(dim, bits)
    }
}

impl RecordCodec for Uniform {
    fn name(&self) -> &'static str {
        "uniform"
    }

    fn domain(&self) -> &Domain {
        &self.domain
    }

    fn record_bytes(&self) -> usize {
        Self::record_bytes(self.dim, self.bits)
    }

    fn encode_record(
        &self,
        _isa: Isa,
        x: &[f32],
        _buffer: &mut Vec<f32>,
        record: &mut [u8],
    ) -> Result<(), ScaleOverflow> {
        let (low, high) =
            x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), x| (l.min(*x), h.max(*x)));
        let low = put_half(low, record)?;
        let cells = (1u32 << self.bits) as f32;
        let step = put_half((high - low).max(0.0) / cells, &mut record[2..])?;
        let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
        let code = |x: &f32| (((x - low) * inverse).clamp(0.0, cells - 1.0)) as u8;
        packing::pack(x.iter().map(code), self.bits, &mut record[4..]);
        Ok(())
    }

    fn expand(&self, record: &[u8], z: &mut [f32]) {
        let (low, step) = (f16_at(record, 0), f16_at(record, 2));
        for (z, code) in z.iter_mut().zip(packing::unpack(&record[4..], self.bits)) {
            *z = low + step * (f32::from(code) + 0.5);
        }
    }
}
