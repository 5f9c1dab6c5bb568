//! The integer heart of the plane codecs: codes times int8, summed exactly.
//!
//! `sums[r][o] = sum over i of code[o][i] * x[r][i]`, for keys with tokens as `o` and channels as `i`, for values the
//! other way round. Written once over [`PlaneOps`].
#![allow(clippy::needless_range_loop, reason = "register tiles: one index walks several arrays")]

use super::layout::Unpack;
use super::ops::PlaneOps;
use crate::simd::LANES;

/// Memory that will be read soon.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    start: usize,
    /// The first address behind it.
    end: usize,
}

impl From<&[u8]> for Memory {
    fn from(bytes: &[u8]) -> Self {
        let start = bytes.as_ptr().addr();
        Self { start, end: start + bytes.len() }
    }
}

impl Memory {
    /// The first bytes, and the others.
    pub fn split(self, bytes: usize) -> [Self; 2] {
        let at = (self.start + bytes).min(self.end);
        [Self { end: at, ..self }, Self { start: at, ..self }]
    }

    /// Asks for all of it.
    #[inline(always)]
    fn fetch<P: PlaneOps>(self, p: P) {
        for address in (self.start..self.end).step_by(64) {
            p.prefetch(address);
        }
    }

    /// Asks for the next lines.
    #[inline(always)]
    fn fetch_next<P: PlaneOps>(&mut self, p: P, lines: usize) {
        for i in 0..lines {
            p.prefetch(self.start.wrapping_add(64 * i));
        }
        // behind the end the same again: cheaper than a branch
        self.start = self.start.wrapping_add(64 * lines).min(self.end);
    }
}

/// What to fetch while a page is read.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Ahead {
    /// At once: scales.
    pub scales: Option<Memory>,
    /// Bit by bit: planes.
    pub planes: Option<Memory>,
}

/// What a row of integers means.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Quantized {
    /// Value of one step.
    pub step: f32,
    /// Sum of the integers.
    pub sum: i32,
    /// Sum of the numbers themselves, weighted.
    pub side: f32,
}

/// Takes the sums of a row with sixteen outputs.
pub(super) trait Fold: Copy {
    /// Rows of integers that make a row of it.
    const PARTS: usize;
    /// The bits of the planes that it is for.
    const MIN_BITS: usize;
    const MAX_BITS: usize;
    /// What belongs to sixteen outputs, whatever the row.
    type Scales<P: PlaneOps>: Copy;

    /// The scales of outputs `16 group` and on.
    fn scales<P: PlaneOps>(self, p: P, group: usize) -> Self::Scales<P>;
    /// `sums` are those of the row's parts with the outputs; must be `inline(always)`.
    fn fold<P: PlaneOps>(
        self,
        p: P,
        row: &Quantized,
        scales: Self::Scales<P>,
        sums: &[[i32; LANES]],
        out: &mut [f32; LANES],
    );
}

/// The planes of a page times rows of integers: codes as they lie.
pub(super) struct Dots<'a, F> {
    /// All planes, one after the other.
    pub planes: &'a [u8],
    /// Outputs, a multiple of 16.
    pub outs: usize,
    /// Inputs, a multiple of 16.
    pub ins: usize,
    /// Bits kept.
    pub bits: usize,
    /// `[row][part][ins]`.
    pub x: &'a [i8],
    /// What the integers of a row mean.
    pub rows: &'a [Quantized],
    /// Fetched meanwhile.
    pub ahead: Ahead,
    pub fold: F,
    /// `[row]`, `stride` apart, of `outs` each.
    pub out: &'a mut [f32],
    pub stride: usize,
}

impl<F: Fold> Dots<'_, F> {
    #[inline(always)]
    pub fn run<P: PlaneOps>(self, p: P) {
        macro_rules! of {
            ($($bits:literal)*) => {
                match self.bits {
                    $($bits if F::MIN_BITS <= $bits && $bits <= F::MAX_BITS => self.blocks::<P, $bits>(p),)*
                    bits => unreachable!("planes of {bits} bits"),
                }
            };
        }
        of!(2 3 4 5 6 7 8);
    }

    /// Rows in blocks of 8, 4, 2, 1 of integers: codes are unpacked once per block. Few rows take several groups of
    /// outputs at once, where registers suffice, so that integers are loaded once for them and sums wait less for each
    /// other.
    #[inline(always)]
    fn blocks<P: PlaneOps, const BITS: usize>(mut self, p: P) {
        if let Some(scales) = self.ahead.scales {
            scales.fetch(p);
        }
        let mut first = 0;
        macro_rules! blocks {
            ($($rows:literal: $groups:literal,)*) => {$(
                while $rows % F::PARTS == 0 && (self.rows.len() - first) * F::PARTS >= $rows {
                    if !P::WIDE || P::PARTS > 1 || $groups == 1 {
                        self.block::<P, BITS, $rows, 1>(p, first);
                    } else if BITS.is_multiple_of(2) {
                        self.block::<P, BITS, $rows, $groups>(p, first);
                    } else {
                        // unpacking takes more registers
                        self.block::<P, BITS, $rows, 2>(p, first);
                    }
                    self.ahead = Ahead::default();
                    first += $rows / F::PARTS;
                }
            )*};
        }
        blocks!(8: 1, 4: 1, 2: 2, 1: 4,);
    }

    /// A block with all outputs, `G` groups of 16 at once.
    #[inline(always)]
    fn block<P: PlaneOps, const BITS: usize, const R: usize, const G: usize>(&mut self, p: P, first: usize) {
        let (vectors, groups) = (self.ins / 16, self.outs / 16);
        let x = &self.x.as_chunks::<16>().0[first * F::PARTS * vectors..];
        let mut parts = [&x[..0]; R];
        for (r, part) in parts.iter_mut().enumerate() {
            *part = &x[r * vectors..][..vectors];
        }
        let planes = Unpack::<BITS>::new(self.planes, self.outs * self.ins);
        let mut group = 0;
        while group + G <= groups {
            self.groups::<P, BITS, R, G>(p, first, &parts, &planes, group);
            group += G;
        }
        while G > 1 && group < groups {
            self.groups::<P, BITS, R, 1>(p, first, &parts, &planes, group);
            group += 1;
        }
    }

    #[inline(always)]
    fn groups<P: PlaneOps, const BITS: usize, const R: usize, const G: usize>(
        &mut self,
        p: P,
        first: usize,
        parts: &[&[[i8; 16]]; R],
        planes: &Unpack<'_, BITS>,
        group: usize,
    ) {
        let (vectors, lanes, count) = (self.ins / 16, 16 / P::PARTS, R / F::PARTS);
        // not by a closure, which the compiler may leave a call
        let mut planes = [*planes; G];
        for (g, planes) in planes.iter_mut().enumerate() {
            *planes = planes.of((group + g) * vectors, vectors);
        }
        let mut sums = [[[0; LANES]; R]; G];
        for part in 0..P::PARTS {
            let mut acc = [[p.zero(); R]; G];
            for j in 0..vectors {
                for g in 0..G {
                    let codes = planes[g].unpack(p, j, part);
                    for r in 0..R {
                        acc[g][r] = p.dot::<BITS>(acc[g][r], codes, &parts[r][j]);
                    }
                    if let (Some(ahead), 0) = (&mut self.ahead.planes, part) {
                        ahead.fetch_next(p, BITS.div_ceil(2));
                    }
                }
            }
            for g in 0..G {
                for r in 0..R {
                    p.put::<BITS>(acc[g][r], &mut sums[g][r][part * lanes..][..lanes]);
                }
            }
        }
        let rows = &self.rows[first..first + count];
        for g in 0..G {
            let scales = self.fold.scales(p, group + g);
            for r in 0..count {
                let sums = &sums[g][r * F::PARTS..][..F::PARTS];
                let out = &mut self.out[(first + r) * self.stride + (group + g) * LANES..];
                self.fold.fold(p, &rows[r], scales, sums, &mut out.as_chunks_mut().0[0]);
            }
        }
    }
}
