//! The weighted search for scales that all types share.
//!
//! A scale `s` gives every value the level `q` nearest to `x / s`; what is sought is the least
//! `sum of w * (x - s * q)^2`. As a function of `s` that is a parabola as long as no level changes, and there are as
//! many parabolas as there are ways to round. The search measures a list of candidates and moves each to the bottom of
//! its parabola (least squares with its levels kept):
//!
//! ```text
//! r = x - s q     rr = sum w r^2     rq = sum w r q     qq = sum w q^2
//! bottom: s + rq / qq                error there: rr - rq^2 / qq
//! ```
//!
//! Residuals instead of products of values keep the differences between candidates above the rounding of f32. The best
//! is then refined by a second, closer list around it. Candidates are the lanes of vectors.
//!
//! Types with scales of scales ([`fit_scales`]) run the same search twice: over the values of each sub-block, then over
//! the sub-blocks' scales, weighted by their `qq`. With the block's scale rounded as it is stored, every sub-block
//! takes the integer scale of least true error near its own; the sums of the chosen ones give the least-squares
//! scale of the block, and if that rounds to another f16, the integers are chosen anew, as long as the error falls.

use super::blocks32::{extreme, inverse};
use super::quantize::Sample;

/// Levels of a code: any set of numbers.
pub(super) trait Levels {
    /// The level nearest to `v`.
    fn nearest(&self, v: f32) -> f32;
}

/// The integers from `LOW` to `HIGH`.
pub(super) struct Integers<const LOW: i32, const HIGH: i32>;

impl<const LOW: i32, const HIGH: i32> Levels for Integers<LOW, HIGH> {
    #[inline]
    fn nearest(&self, v: f32) -> f32 {
        round(clamp(v, LOW as f32, HIGH as f32))
    }
}

/// `low, low + step, ...` up to `high`: integer scales.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    /// The lowest.
    pub low: i32,
    /// The highest.
    pub high: i32,
    /// From one to the next.
    pub step: i32,
}

impl Levels for Steps {
    #[inline]
    fn nearest(&self, v: f32) -> f32 {
        let (low, high, step) = (self.low as f32, self.high as f32, self.step as f32);
        round((clamp(v, low, high) - low) / step) * step + low
    }
}

/// Unevenly spaced levels: the first, and for each further one what it adds and from where on it is the nearest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uneven<const ABOVE: usize> {
    first: f32,
    from: [f32; ABOVE],
    adds: [f32; ABOVE],
}

impl<const ABOVE: usize> Uneven<ABOVE> {
    /// From `ABOVE + 1` ascending levels.
    pub const fn new(levels: &[i8]) -> Self {
        let mut this = Self { first: levels[0] as f32, from: [0.0; ABOVE], adds: [0.0; ABOVE] };
        let mut i = 0;
        while i < ABOVE {
            let (low, high) = (levels[i] as f32, levels[i + 1] as f32);
            this.from[i] = (low + high) / 2.0;
            this.adds[i] = high - low;
            i += 1;
        }
        this
    }
}

impl<const ABOVE: usize> Uneven<ABOVE> {
    /// The position of the level nearest to `v`.
    #[inline]
    pub fn index(&self, v: f32) -> u8 {
        self.from.iter().fold(0, |index, &from| index + u8::from(v > from))
    }
}

impl<const ABOVE: usize> Levels for Uneven<ABOVE> {
    #[inline]
    fn nearest(&self, v: f32) -> f32 {
        let mut level = self.first;
        for (&from, &adds) in self.from.iter().zip(&self.adds) {
            level += if v > from { adds } else { 0.0 };
        }
        level
    }
}

/// `v` within `low..=high`; comparisons in the order that compiles to two vector instructions.
#[inline]
pub(super) fn clamp(v: f32, low: f32, high: f32) -> f32 {
    let v = if v > low { v } else { low };
    if v < high { v } else { high }
}

/// Nearest integer, ties to even, of a magnitude below 2^22: adding 1.5 * 2^23 leaves no room for a fraction.
#[inline]
pub(super) fn round(v: f32) -> f32 {
    const NO_FRACTION: f32 = 12_582_912.0;
    (v + NO_FRACTION) - NO_FRACTION
}

/// Sums over the values of a group with the codes that one scale gives them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    /// Weighted squares of the residuals: the error.
    pub rr: f32,
    /// Residuals times levels.
    pub rq: f32,
    /// Squares of the levels.
    pub qq: f32,
}

impl Sums {
    /// Takes one value on.
    #[inline]
    pub fn add(&mut self, x: f32, w: f32, scale: f32, q: f32) {
        let r = x - scale * q;
        self.rr += w * r * r;
        self.rq += w * r * q;
        self.qq += w * q * q;
    }
}

/// What a group of values can be coded as.
pub(super) trait Codebook {
    /// For each scale: codes the group as well as it can be and hands over the sums.
    fn measure(&self, x: &[f32], w: &[f32], scales: &[f32], each: impl FnMut(f32, Sums));
}

/// Scales measured at a time.
pub(super) const LANES: usize = 32;

/// Values that a lane takes on while its sums are at hand.
pub(super) const GROUP: usize = 4;

/// Scales and their sums, side by side.
#[derive(Default)]
struct Lanes {
    scale: [f32; LANES],
    over: [f32; LANES],
    rr: [f32; LANES],
    rq: [f32; LANES],
    qq: [f32; LANES],
}

impl<L: Levels> Codebook for L {
    fn measure(&self, x: &[f32], w: &[f32], scales: &[f32], mut each: impl FnMut(f32, Sums)) {
        for scales in scales.chunks(LANES) {
            let mut lanes = Lanes::default();
            for (lane, &scale) in scales.iter().enumerate() {
                (lanes.scale[lane], lanes.over[lane]) = (scale, inverse(scale));
            }
            sweep(self, x, w, &mut lanes, scales.len());
            for (lane, &scale) in scales.iter().enumerate() {
                each(scale, Sums { rr: lanes.rr[lane], rq: lanes.rq[lane], qq: lanes.qq[lane] });
            }
        }
    }
}

/// Adds all values to the sums of the first `count` lanes. A function of its own over one struct of arrays, so that
/// the compiler sees a loop over lanes that nothing keeps it from turning into vectors.
#[inline(never)]
fn sweep<L: Levels>(levels: &L, x: &[f32], w: &[f32], lanes: &mut Lanes, count: usize) {
    for (x, w) in x.as_chunks::<GROUP>().0.iter().zip(w.as_chunks::<GROUP>().0) {
        for lane in 0..count.min(LANES) {
            let (scale, over) = (lanes.scale[lane], lanes.over[lane]);
            let (mut rr, mut rq, mut qq) = (lanes.rr[lane], lanes.rq[lane], lanes.qq[lane]);
            for i in 0..GROUP {
                let q = levels.nearest(x[i] * over);
                let r = x[i] - scale * q;
                let (wr, wq) = (w[i] * r, w[i] * q);
                rr += wr * r;
                rq += wr * q;
                qq += wq * q;
            }
            (lanes.rr[lane], lanes.rq[lane], lanes.qq[lane]) = (rr, rq, qq);
        }
    }
}

/// A scale found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    /// The scale.
    pub scale: f32,
    /// Its error.
    pub error: f32,
    /// The curvature there: moving the scale by t costs `weight * t^2`.
    pub weight: f32,
}

/// The scale of least error among `candidates` and then among `closer` times the best, each moved to the bottom of
/// its parabola.
pub(super) fn scale_search(
    book: &impl Codebook,
    x: &[f32],
    w: &[f32],
    candidates: &[f32],
    closer: &[f32],
) -> Fit {
    let mut best = Fit { scale: 0.0, error: f32::INFINITY, weight: 0.0 };
    let take = |scale: f32, sums: Sums, best: &mut Fit| {
        let (scale, error) = if sums.qq > 0.0 {
            (scale + sums.rq / sums.qq, sums.rr - sums.rq * sums.rq / sums.qq)
        } else {
            (scale, sums.rr)
        };
        if error < best.error {
            *best = Fit { scale, error, weight: sums.qq };
        }
    };
    book.measure(x, w, candidates, |scale, sums| take(scale, sums, &mut best));
    let mut refined = [0.0; 16];
    for (refined, factor) in refined.iter_mut().zip(closer) {
        *refined = best.scale * factor;
    }
    book.measure(x, w, &refined[..closer.len().min(16)], |scale, sums| take(scale, sums, &mut best));
    best
}

/// The position of the scale of least error, each taken as it is.
pub(super) fn least_error(book: &impl Codebook, x: &[f32], w: &[f32], scales: &[f32]) -> usize {
    let (mut best, mut error, mut index) = (0, f32::INFINITY, 0);
    book.measure(x, w, scales, |_, sums| {
        if sums.rr < error {
            (best, error) = (index, sums.rr);
        }
        index += 1;
    });
    best
}

/// Factors of a closer look: the scale itself and seven others up to `reach` away.
pub(super) const fn closer(reach: f32) -> [f32; 8] {
    let mut factors = [1.0; 8];
    let mut i = 0;
    while i < 8 {
        factors[i] = 1.0 + reach * (i as f32 - 4.0) / 4.0;
        i += 1;
    }
    factors
}

/// Candidates that map the extreme value to levels from `from` to `to`, half of them with either sign.
pub(super) fn two_sided<const N: usize>(x: &[f32], from: f32, to: f32) -> [f32; N] {
    let extreme = extreme(x);
    let half = (N / 2).max(2);
    std::array::from_fn(|i| {
        let level = from + (to - from) * (i / 2) as f32 / (half - 1) as f32;
        if i % 2 == 0 { -extreme / level } else { extreme / level }
    })
}

/// Positive candidates that map the largest magnitude to levels from `from` to `to`.
pub(super) fn one_sided<const N: usize>(x: &[f32], from: f32, to: f32) -> [f32; N] {
    let amax = extreme(x).abs();
    std::array::from_fn(|i| amax / (from + (to - from) * i as f32 / (N - 1) as f32))
}

/// A block's scale and the integer scales of its sub-blocks.
pub(super) struct Scaled<const SUBS: usize> {
    /// The f16 that is stored.
    pub bytes: [u8; 2],
    /// Its value in the units of the sample, over the factor.
    pub d: f32,
    /// The integer scales.
    pub scales: [i32; SUBS],
}

/// How [`fit_scales`] goes about it.
pub(super) struct Plan<'a> {
    /// The integer scales there are.
    pub steps: Steps,
    /// The stored scale is this times the scale of the levels.
    pub factor: f32,
    /// Integer scales to try around each sub-block's own, in steps.
    pub around: &'a [i32],
    /// The closer look at each sub-block's scale.
    pub closer: &'a [f32],
}

/// Integer scales to try where measuring is cheap: a vector of them.
pub(super) const NEIGHBOURS: [i32; 8] = [-4, -3, -2, -1, 0, 1, 2, 3];

/// Scales for a block of `SUBS` equal sub-blocks; `candidates` gives the scales to try for a sub-block's values.
pub(super) fn fit_scales<const SUBS: usize, const N: usize>(
    sample: &Sample<256>,
    book: &impl Codebook,
    plan: &Plan<'_>,
    candidates: impl Fn(&[f32], &[f32]) -> [f32; N],
) -> Scaled<SUBS> {
    let len = 256 / SUBS;
    let fits: [Fit; SUBS] = std::array::from_fn(|j| {
        let (x, w) = sample.part(j, len);
        scale_search(book, x, w, &candidates(x, w), plan.closer)
    });
    let (scales, weights) = (fits.map(|fit| fit.scale), fits.map(|fit| fit.weight));
    let high = plan.steps.high as f32;
    let outer = if plan.steps.low < 0 {
        two_sided::<32>(&scales, high * 0.75, high * 1.06)
    } else {
        one_sided::<32>(&scales, high * 0.6, high * 1.06)
    };
    let start = scale_search(&plan.steps, &scales, &weights, &outer, &closer(0.01)).scale;
    let mut best = Scaled { bytes: [0; 2], d: 0.0, scales: [plan.steps.low.max(0); SUBS] };
    let (mut error, mut d) = (f32::INFINITY, start);
    for _ in 0..ATTEMPTS {
        let (bytes, value) = sample.f16(d, plan.factor);
        if bytes == best.bytes && error.is_finite() {
            break;
        }
        let chosen = choose(sample, book, plan, value, &scales);
        if chosen.error >= error {
            break;
        }
        error = chosen.error;
        best = Scaled { bytes, d: value, scales: chosen.scales };
        d = chosen.d;
    }
    best
}

/// Scales of the block that are tried at most: that of the sub-blocks' scales, then least-squares scales.
const ATTEMPTS: usize = 3;

/// The integer scales of least error for one scale of the block.
struct Chosen<const SUBS: usize> {
    scales: [i32; SUBS],
    error: f32,
    /// The least-squares scale of the block with these integers and their codes.
    d: f32,
}

fn choose<const SUBS: usize>(
    sample: &Sample<256>,
    book: &impl Codebook,
    plan: &Plan<'_>,
    d: f32,
    ideal: &[f32; SUBS],
) -> Chosen<SUBS> {
    let Steps { low, high, step } = plan.steps;
    let (mut error, mut dot, mut square) = (0.0, 0.0, 0.0);
    let scales = std::array::from_fn(|j| {
        let (x, w) = sample.part(j, 256 / SUBS);
        let middle = plan.steps.nearest(ideal[j] * inverse(d)) as i32;
        let mut tried = [0.0; 16];
        let count = plan.around.len().min(16);
        for (tried, offset) in tried.iter_mut().zip(plan.around) {
            *tried = d * (middle + offset * step).clamp(low, high) as f32;
        }
        let mut best = (f32::INFINITY, 0, Sums::default(), 0.0);
        let mut index = 0;
        book.measure(x, w, &tried[..count], |scale, sums| {
            if sums.rr < best.0 {
                best = (sums.rr, index, sums, scale);
            }
            index += 1;
        });
        let (rr, index, sums, scale) = best;
        let integer = (middle + plan.around[index] * step).clamp(low, high);
        error += rr;
        dot += integer as f32 * (sums.rq + scale * sums.qq);
        square += (integer * integer) as f32 * sums.qq;
        integer
    });
    Chosen { scales, error, d: if square > 0.0 { dot / square } else { d } }
}
