//! TurboQuant for squared error, 1 to 4 bits (arXiv 2504.19874, algorithm 1).
//!
//! A vector is its norm times a unit vector; a random rotation makes every coordinate of that a draw from one known
//! density, for which the Lloyd-Max codebook of the head size is the best scalar quantizer.
//!
//! ```text
//! record: | norm f16 | codes, dim x bits, lowest bit first |        bits + 16/dim bits per value
//! value:  R^T (codebook[code] * norm / sqrt(dim))
//! ```
//!
//! Error on unit vectors of 128 values: .361, .116, .034, .0093 at 1 to 4 bits, whatever the vector.

use super::records::{Domain, RecordCodec, ScaleOverflow, norm, put_half};
use super::{CodecParams, Rotation, codebooks, packing, take};
use crate::types::f16_at;
use crate::{Error, Isa};

/// The codec of one head size, bit width and rotation.
#[derive(Debug, Clone)]
pub struct TurboMse {
    domain: Domain,
    codebook: Codebook,
}

impl TurboMse {
    /// Codes of `bits` bits (1 to 4).
    ///
    /// # Errors
    /// [`Error::Dim`] for a head size without a codebook, [`Error::Parameter`] for other bits.
    pub fn new(params: &CodecParams<'_>, bits: usize) -> Result<Self, Error> {
        if !(1..=4).contains(&bits) {
            return Err(Error::Parameter { codec: "TurboQuant", takes: "1 to 4 bits", got: bits });
        }
        let codebook = Codebook::new(params.dim, bits)?;
        Ok(Self {
            domain: Domain::Rotated(Rotation::new(params.rotation, params.dim, params.seed)?),
            codebook,
        })
    }

    /// Bytes of a token's record.
    pub const fn record_bytes(dim: usize, bits: usize) -> usize {
        2 + packing::packed_bytes(dim, bits)
    }
}

impl RecordCodec for TurboMse {
    fn name(&self) -> &'static str {
        "TurboQuant"
    }

    fn domain(&self) -> &Domain {
        &self.domain
    }

    fn record_bytes(&self) -> usize {
        Self::record_bytes(self.codebook.dim, self.codebook.bits)
    }

    fn encode_record(
        &self,
        isa: Isa,
        x: &[f32],
        buffer: &mut Vec<f32>,
        record: &mut [u8],
    ) -> Result<(), ScaleOverflow> {
        let y = take(buffer, x.len());
        let length = norm(isa, x);
        put_half(length, record)?;
        if let Domain::Rotated(rotation) = &self.domain {
            rotation.apply(isa, x, y);
        }
        self.codebook.encode(y, length, &mut record[2..]);
        Ok(())
    }

    fn expand(&self, record: &[u8], z: &mut [f32]) {
        self.codebook.decode(&record[2..], f16_at(record, 0), z);
    }
}

/// A Lloyd-Max codebook in units of the standard deviation 1 / sqrt(dim). With 0 bits every value is 0.
#[derive(Debug, Clone)]
pub(super) struct Codebook {
    pub dim: usize,
    pub bits: usize,
    levels: [f32; 16],
    /// Middles of neighbouring levels; infinite beyond the last.
    thresholds: [f32; 15],
    root: f32,
}

impl Codebook {
    pub fn new(dim: usize, bits: usize) -> Result<Self, Error> {
        let row = codebooks::DIMS.iter().position(|d| *d == dim).ok_or(Error::Dim {
            what: "TurboQuant",
            dim,
            takes: "64, 80, 96, 112, 128, 192, 256 and 512",
        })?;
        let (mut levels, mut thresholds) = ([0.0; 16], [f32::INFINITY; 15]);
        if bits > 0 {
            let half = 1 << (bits - 1);
            for (i, level) in codebooks::SPHERE[row][half - 1..2 * half - 1].iter().enumerate() {
                levels[half + i] = *level;
                levels[half - 1 - i] = -level;
            }
            for (i, threshold) in thresholds[..2 * half - 1].iter_mut().enumerate() {
                *threshold = (levels[i] + levels[i + 1]) * 0.5;
            }
        }
        Ok(Self { dim, bits, levels, thresholds, root: (dim as f32).sqrt() })
    }

    /// Codes of a rotated vector with this norm: the nearest level, the lower one in the middle.
    pub fn encode(&self, y: &[f32], norm: f32, codes: &mut [u8]) {
        if self.bits == 0 {
            return;
        }
        let factor = if norm > 0.0 { self.root / norm } else { 0.0 };
        let thresholds = &self.thresholds[..(1 << self.bits) - 1];
        let code = |y: &f32| {
            let u = y * factor;
            thresholds.iter().map(|threshold| u8::from(u > *threshold)).sum()
        };
        packing::pack(y.iter().map(code), self.bits, codes);
    }

    /// The levels of codes times the norm.
    pub fn decode(&self, codes: &[u8], norm: f32, z: &mut [f32]) {
        if self.bits == 0 {
            z.fill(0.0);
            return;
        }
        let factor = norm / self.root;
        let levels = self.levels.map(|level| level * factor);
        for (z, code) in z.iter_mut().zip(packing::unpack(codes, self.bits)) {
            *z = levels[usize::from(code & 15)];
        }
    }
}
