//! QJL: keys as signs of a Gaussian projection (arXiv 2406.03482).
//!
//! ```text
//! record: | norm f16 | signs, m x 1 |        m/dim + 16/dim bits per value; m = dim or 2 dim
//! q.k  ~  sqrt(pi/2)/m * norm * (S q).sign
//! ```
//!
//! The query is projected, not quantized; the estimate has no bias and the variance
//! (pi/2 |q|^2 |k|^2 - (q.k)^2) / m.

use super::records::{Domain, RecordCodec, ScaleOverflow, Sketch, norm, put_half};
use super::{CodecParams, packing, take};
use crate::hadamard::Hadamard;
use crate::types::f16_at;
use crate::{Error, Isa};

/// The codec of one head size and sketch length.
#[derive(Debug, Clone)]
pub struct Qjl {
    domain: Domain,
    len: usize,
    factor: f32,
}

impl Qjl {
    /// Sketches of `times * dim` signs (1 or 2).
    ///
    /// # Errors
    /// [`Error::Dim`] for a head size that [`Hadamard::new`] refuses, [`Error::Parameter`] for other `times`.
    pub fn new(params: &CodecParams<'_>, times: usize) -> Result<Self, Error> {
        if !(1..=2).contains(&times) {
            return Err(Error::Parameter { codec: "QJL", takes: "1 or 2 signs per value", got: times });
        }
        let dim = Hadamard::new(params.dim)?.dim();
        let len = times * dim;
        let sketch = Sketch::new(dim, len, params.seed);
        let factor = sketch.factor();
        Ok(Self { domain: Domain::Sketched(sketch), len, factor })
    }

    /// Bytes of a token's record.
    pub const fn record_bytes(len: usize) -> usize {
        2 + packing::packed_bytes(len, 1)
    }
}

impl RecordCodec for Qjl {
    fn name(&self) -> &'static str {
        "QJL"
    }

    fn domain(&self) -> &Domain {
        &self.domain
    }

    fn record_bytes(&self) -> usize {
        Self::record_bytes(self.len)
    }

    fn encode_record(
        &self,
        isa: Isa,
        x: &[f32],
        buffer: &mut Vec<f32>,
        record: &mut [u8],
    ) -> Result<(), ScaleOverflow> {
        put_half(norm(isa, x), record)?;
        if let Domain::Sketched(sketch) = &self.domain {
            let sketched = take(buffer, self.len);
            sketch.apply(isa, x, sketched);
            put_signs(sketched, &mut record[2..]);
        }
        Ok(())
    }

    fn expand(&self, record: &[u8], z: &mut [f32]) {
        signs(&record[2..], self.factor * f16_at(record, 0), z);
    }
}

/// Bit `i`: whether value `i` is negative.
pub(super) fn put_signs(x: &[f32], bits: &mut [u8]) {
    packing::pack(x.iter().map(|x| u8::from(*x < 0.0)), 1, bits);
}

/// `value` with the sign of each bit.
pub(super) fn signs(bits: &[u8], value: f32, out: &mut [f32]) {
    let both = [value, -value];
    for (out, byte) in out.chunks_exact_mut(8).zip(bits) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = both[usize::from(byte >> i & 1)];
        }
    }
}
