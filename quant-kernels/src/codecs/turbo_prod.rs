//! TurboQuant for inner products, 1 to 4 bits (arXiv 2504.19874, algorithm 2).
//!
//! [`TurboMse`](super::turbo_mse::TurboMse) with one bit less, then a QJL sketch of what that left over: the estimate
//! of q.k has no bias. The sketch is taken in the rotated coordinates, which is the same in distribution and saves a
//! rotation.
//!
//! ```text
//! record: | norm f16 | norm of the rest f16 | codes, dim x (bits - 1) | signs, dim x 1 |   bits + 32/dim bits per value
//! value:  R^T (codebook[code] * norm / sqrt(dim) + sqrt(pi/2)/dim * rest * S^T sign)
//! ```
//!
//! Variance of q.k for unit vectors, times dim: 1.57, .57, .18, .054 at 1 to 4 bits.

use super::qjl::{put_signs, signs};
use super::records::{Domain, RecordCodec, ScaleOverflow, Sketch, norm, put_half};
use super::turbo_mse::Codebook;
use super::{CodecParams, Rotation, packing, take};
use crate::types::f16_at;
use crate::{Error, Isa};

/// Makes the sketch's seed another one than the rotation's.
const SKETCH: u64 = 0x5151_4A4C;

/// The codec of one head size, bit width and rotation.
#[derive(Debug, Clone)]
pub struct TurboProd {
    domain: Domain,
    codebook: Codebook,
    factor: f32,
}

impl TurboProd {
    /// `bits` bits in all (1 to 4), one of them the sketch's.
    ///
    /// # Errors
    /// [`Error::Dim`] for a head size without a codebook, [`Error::Parameter`] for other bits.
    pub fn new(params: &CodecParams<'_>, bits: usize) -> Result<Self, Error> {
        if !(1..=4).contains(&bits) {
            return Err(Error::Parameter { codec: "TurboQuant", takes: "1 to 4 bits", got: bits });
        }
        let codebook = Codebook::new(params.dim, bits - 1)?;
        let sketch = Sketch::new(params.dim, params.dim, params.seed ^ SKETCH);
        let factor = sketch.factor();
        let rotation = Rotation::new(params.rotation, params.dim, params.seed)?;
        Ok(Self { domain: Domain::RotatedAndSketched(rotation, sketch), codebook, factor })
    }

    /// Bytes of a token's record.
    pub const fn record_bytes(dim: usize, bits: usize) -> usize {
        4 + packing::packed_bytes(dim, bits - 1) + packing::packed_bytes(dim, 1)
    }

    fn code_bytes(&self) -> usize {
        packing::packed_bytes(self.codebook.dim, self.codebook.bits)
    }
}

impl RecordCodec for TurboProd {
    fn name(&self) -> &'static str {
        "TurboQuant"
    }

    fn domain(&self) -> &Domain {
        &self.domain
    }

    fn record_bytes(&self) -> usize {
        Self::record_bytes(self.codebook.dim, self.codebook.bits + 1)
    }

    fn encode_record(
        &self,
        isa: Isa,
        x: &[f32],
        buffer: &mut Vec<f32>,
        record: &mut [u8],
    ) -> Result<(), ScaleOverflow> {
        let dim = x.len();
        let (rest, more) = take(buffer, 3 * dim).split_at_mut(dim);
        let (decoded, sketched) = more.split_at_mut(dim);
        let length = norm(isa, x);
        let stored = put_half(length, record)?;
        if let Domain::RotatedAndSketched(rotation, sketch) = &self.domain {
            rotation.apply(isa, x, rest);
            let (codes, sign_bits) = record[4..].split_at_mut(self.code_bytes());
            self.codebook.encode(rest, length, codes);
            self.codebook.decode(codes, stored, decoded);
            for (rest, decoded) in rest.iter_mut().zip(&*decoded) {
                *rest -= decoded;
            }
            sketch.apply(isa, rest, sketched);
            put_signs(sketched, sign_bits);
        }
        put_half(norm(isa, rest), &mut record[2..]).map(|_| ())
    }

    fn expand(&self, record: &[u8], z: &mut [f32]) {
        let (rotated, sketched) = z.split_at_mut(self.codebook.dim);
        let (codes, sign_bits) = record[4..].split_at(self.code_bytes());
        self.codebook.decode(codes, f16_at(record, 0), rotated);
        signs(sign_bits, self.factor * f16_at(record, 2), sketched);
    }
}
