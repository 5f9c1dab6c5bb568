//! PolarQuant (arXiv 2502.02617): blocks of 16 rotated values as one radius and 15 angles.
//!
//! Level 1 turns neighbouring pairs into radius and angle (all directions), levels 2 to 4 pairs of radii into radius
//! and angle (between 0 and pi/2). The angles of a rotated vector are independent and of known density: uniform at
//! level 1 (16 equal sectors, 4 bits), more and more peaked at pi/4 above (Lloyd-Max codebooks, 2 bits each).
//!
//! ```text
//! record: | radii f16, dim/16 | level 1, dim/2 x 4 bits | level 2, dim/4 x 2 | level 3, dim/8 x 2 | level 4, dim/16 x 2 |
//!         3.875 bits per value; every field begins on a byte
//! ```
//!
//! Sectors are found by comparing products, with no arc tangent. Squared error on unit vectors of 128 values: .032.

use super::records::{Domain, RecordCodec, ScaleOverflow, put_half};
use super::{CodecParams, Rotation, codebooks, take};
use crate::types::f16_at;
use crate::{Error, Isa};

/// Values of a block.
const BLOCK: usize = 16;

/// The codec of one head size and rotation.
#[derive(Debug, Clone)]
pub struct Polar {
    domain: Domain,
    dim: usize,
    /// Middle of each sector of level 1: cosine and sine.
    sectors: [[f32; 2]; 16],
    /// Borders of the sectors within the first quarter turn: cosine and sine.
    sector_borders: [[f32; 2]; 3],
    /// Levels 2, 3, 4.
    angles: [Angles; 3],
}

/// The codebook of one level: cosine and sine of its angles and of the borders between them.
#[derive(Debug, Clone)]
struct Angles {
    levels: [[f32; 2]; 4],
    borders: [[f32; 2]; 3],
}

impl Polar {
    /// The codec with the paper's 4, 2, 2, 2 bits.
    ///
    /// # Errors
    /// [`Error::Dim`] for a head size without a rotation.
    pub fn new(params: &CodecParams<'_>) -> Result<Self, Error> {
        let eighth = std::f64::consts::PI / 8.0;
        Ok(Self {
            domain: Domain::Rotated(Rotation::new(params.rotation, params.dim, params.seed)?),
            dim: params.dim,
            sectors: std::array::from_fn(|i| direction((i as f64 + 0.5) * eighth)),
            sector_borders: std::array::from_fn(|i| direction((i + 1) as f64 * eighth)),
            angles: codebooks::ANGLES.map(|angles| Angles {
                levels: angles.map(|angle| direction(f64::from(angle))),
                borders: std::array::from_fn(|i| {
                    direction((f64::from(angles[i]) + f64::from(angles[i + 1])) / 2.0)
                }),
            }),
        })
    }

    /// Bytes of a token's record.
    pub const fn record_bytes(dim: usize) -> usize {
        let [one, two, three, four] = fields(dim);
        2 * (dim / BLOCK) + one + two + three + four
    }

    /// The sector of a direction of the plane.
    fn sector(&self, x: f32, y: f32) -> u8 {
        // turned by whole quarters until it lies in the first
        let (quarter, x, y) = match (x < 0.0, y < 0.0) {
            (false, false) => (0, x, y),
            (true, false) => (1, y, -x),
            (true, true) => (2, -x, -y),
            (false, true) => (3, -y, x),
        };
        4 * quarter + beyond(&self.sector_borders, x, y)
    }
}

/// Bytes of the four levels' codes.
const fn fields(dim: usize) -> [usize; 4] {
    [dim / 4, dim / 16, (dim / 8 * 2).div_ceil(8), (dim / 16 * 2).div_ceil(8)]
}

/// Cosine and sine of an angle.
fn direction(angle: f64) -> [f32; 2] {
    [libm::cos(angle) as f32, libm::sin(angle) as f32]
}

/// How many of the borders a direction of the first quarter lies beyond.
fn beyond(borders: &[[f32; 2]; 3], x: f32, y: f32) -> u8 {
    borders.iter().map(|[cos, sin]| u8::from(y * cos > x * sin)).sum()
}

impl RecordCodec for Polar {
    fn name(&self) -> &'static str {
        "PolarQuant"
    }

    fn domain(&self) -> &Domain {
        &self.domain
    }

    fn record_bytes(&self) -> usize {
        Self::record_bytes(self.dim)
    }

    fn encode_record(
        &self,
        isa: Isa,
        x: &[f32],
        buffer: &mut Vec<f32>,
        record: &mut [u8],
    ) -> Result<(), ScaleOverflow> {
        let y = take(buffer, self.dim);
        if let Domain::Rotated(rotation) = &self.domain {
            rotation.apply(isa, x, y);
        }
        let (radii, codes) = record.split_at_mut(2 * (self.dim / BLOCK));
        codes.fill(0);
        let [one, two, three, _] = fields(self.dim);
        let (level1, codes) = codes.split_at_mut(one);
        let (level2, codes) = codes.split_at_mut(two);
        let (level3, level4) = codes.split_at_mut(three);
        let blocks = y.as_chunks::<BLOCK>().0;
        for (b, (block, radius)) in blocks.iter().zip(radii.as_chunks_mut::<2>().0).enumerate() {
            let pair = |i: usize| (block[2 * i], block[2 * i + 1]);
            let mut r = [0f32; 8];
            for (i, r) in r.iter_mut().enumerate() {
                let (x, y) = pair(i);
                level1[4 * b + i / 2] |= self.sector(x, y) << (4 * (i % 2));
                *r = (x * x + y * y).sqrt();
            }
            let mut count = 4;
            for (angles, codes) in self.angles.iter().zip([&mut *level2, &mut *level3, &mut *level4]) {
                for i in 0..count {
                    let (x, y) = (r[2 * i], r[2 * i + 1]);
                    let at = b * count + i;
                    codes[at / 4] |= beyond(&angles.borders, x, y) << (2 * (at % 4));
                    r[i] = (x * x + y * y).sqrt();
                }
                count /= 2;
            }
            put_half(r[0], radius)?;
        }
        Ok(())
    }

    fn expand(&self, record: &[u8], z: &mut [f32]) {
        let (radii, codes) = record.split_at(2 * (self.dim / BLOCK));
        let [one, two, three, _] = fields(self.dim);
        let (level1, codes) = codes.split_at(one);
        let (level2, codes) = codes.split_at(two);
        let (level3, level4) = codes.split_at(three);
        for (b, block) in z.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let mut r = [0f32; 8];
            r[0] = f16_at(radii, 2 * b);
            let mut count = 1;
            for (angles, codes) in self.angles.iter().zip([level2, level3, level4]).rev() {
                for i in (0..count).rev() {
                    let at = b * count + i;
                    let [cos, sin] = angles.levels[usize::from(codes[at / 4] >> (2 * (at % 4)) & 3)];
                    (r[2 * i], r[2 * i + 1]) = (r[i] * cos, r[i] * sin);
                }
                count *= 2;
            }
            for (i, r) in r.iter().enumerate() {
                let code = level1[4 * b + i / 2] >> (4 * (i % 2)) & 15;
                let [cos, sin] = self.sectors[usize::from(code)];
                (block[2 * i], block[2 * i + 1]) = (r * cos, r * sin);
            }
        }
    }
}
