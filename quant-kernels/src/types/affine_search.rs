//! The search of [`scale_search`](super::scale_search) with an offset: values are `scale * code + offset`, codes
//! `0..=top`.
//!
//! A candidate is a range of values that the codes span evenly; each is moved to the least-squares scale and offset
//! with its codes kept (two equations in two unknowns). Types with integer scales and minima ([`fit_scales_and_minima`])
//! search each sub-block, then the block's two scales, then with those rounded as they are stored the pair of integers
//! of least true error for each sub-block, and at last both scales by least squares again.

use super::blocks32::inverse;
use super::quantize::Sample;
use super::scale_search::{GROUP, LANES, Steps, clamp, closer, one_sided, round, scale_search};

/// A line from codes to values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// Value of a step of the code.
    pub scale: f32,
    /// Value of code 0.
    pub offset: f32,
}

impl Line {
    /// The code of a value.
    #[inline]
    pub fn code(self, x: f32, top: u8) -> u8 {
        round(clamp((x - self.offset) * inverse(self.scale), 0.0, f32::from(top))) as u8
    }
}

/// Sums over the values of a group with the codes that one line gives them; `r` are residuals, `q` codes.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    rr: f32,
    rq: f32,
    r: f32,
    qq: f32,
    q: f32,
}

/// Lines and their sums, side by side.
#[derive(Default)]
struct Lanes {
    scale: [f32; LANES],
    offset: [f32; LANES],
    over: [f32; LANES],
    rr: [f32; LANES],
    rq: [f32; LANES],
    r: [f32; LANES],
    qq: [f32; LANES],
    q: [f32; LANES],
}

/// For each line: codes all values and hands over the sums.
fn measure(x: &[f32], w: &[f32], top: u8, lines: &[Line], mut each: impl FnMut(Line, Sums)) {
    for lines in lines.chunks(LANES) {
        let mut lanes = Lanes::default();
        for (lane, line) in lines.iter().enumerate() {
            (lanes.scale[lane], lanes.offset[lane]) = (line.scale, line.offset);
            lanes.over[lane] = inverse(line.scale);
        }
        sweep(x, w, f32::from(top), &mut lanes, lines.len());
        for (lane, &line) in lines.iter().enumerate() {
            let Lanes { rr, rq, r, qq, q, .. } = &lanes;
            each(line, Sums { rr: rr[lane], rq: rq[lane], r: r[lane], qq: qq[lane], q: q[lane] });
        }
    }
}

/// Adds all values to the sums of the first `count` lanes, in a form that compiles to vectors.
#[inline(never)]
fn sweep(x: &[f32], w: &[f32], top: f32, lanes: &mut Lanes, count: usize) {
    for (x, w) in x.as_chunks::<GROUP>().0.iter().zip(w.as_chunks::<GROUP>().0) {
        for lane in 0..count.min(LANES) {
            let (scale, offset, over) = (lanes.scale[lane], lanes.offset[lane], lanes.over[lane]);
            let (mut rr, mut rq, mut r) = (lanes.rr[lane], lanes.rq[lane], lanes.r[lane]);
            let (mut qq, mut q) = (lanes.qq[lane], lanes.q[lane]);
            for i in 0..GROUP {
                let above = x[i] - offset;
                let code = round(clamp(above * over, 0.0, top));
                let rest = above - scale * code;
                let (wr, wq) = (w[i] * rest, w[i] * code);
                rr += wr * rest;
                rq += wr * code;
                r += wr;
                qq += wq * code;
                q += wq;
            }
            (lanes.rr[lane], lanes.rq[lane], lanes.r[lane]) = (rr, rq, r);
            (lanes.qq[lane], lanes.q[lane]) = (qq, q);
        }
    }
}

/// A line found, with the sums that say what moving it costs.
#[derive(Debug, Clone, Copy)]
pub(super) struct LineFit {
    /// The line.
    pub line: Line,
    error: f32,
    /// Squares of the codes, codes, weights.
    qq: f32,
    q: f32,
    w: f32,
}

/// What the offset may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offset {
    /// Anything.
    Any,
    /// Zero or less: a minimum that is subtracted.
    NotPositive,
}

/// How far into its range, in steps of the codes, a candidate begins and how far before its end it ends.
const INSETS: [f32; 5] = [-0.3, 0.0, 0.35, 0.7, 1.1];

/// The same for ranges whose ends no value takes, so that values that lie on a line already find it again.
const OUTSETS: [(f32, f32); 7] =
    [(-1.0, 0.0), (0.0, -1.0), (-1.0, -1.0), (-2.0, 0.0), (0.0, -2.0), (-2.0, -1.0), (-1.0, -2.0)];

/// The line of least error found for the values.
pub(super) fn affine_search(x: &[f32], w: &[f32], top: u8, allowed: Offset) -> LineFit {
    let (mut low, mut high) =
        x.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
    if allowed == Offset::NotPositive {
        low = low.min(0.0);
    }
    high = high.max(low);
    let weight: f32 = w.iter().sum();
    let flat = Line { scale: 0.0, offset: low };
    let mut best = LineFit { line: flat, error: f32::INFINITY, qq: 0.0, q: 0.0, w: weight };
    let steps = f32::from(top);
    let step = (high - low) / steps;
    let lines: [Line; LANES] = std::array::from_fn(|i| {
        let (begin, end) = match i.checked_sub(INSETS.len() * INSETS.len()) {
            None => (INSETS[i % INSETS.len()], INSETS[i / INSETS.len()]),
            Some(i) => OUTSETS[i],
        };
        Line { scale: step * (steps - begin - end) / steps, offset: low + step * begin }
    });
    let take = |line: Line, sums: Sums, best: &mut LineFit| {
        let (line, error) = bottom(line, &sums, weight, allowed);
        if error < best.error && line.scale >= 0.0 {
            *best = LineFit { line, error, qq: sums.qq, q: sums.q, w: weight };
        }
    };
    measure(x, w, top, &lines, |line, sums| take(line, sums, &mut best));
    for reach in [0.5, 0.2] {
        // Both ends move by up to `reach` steps, together and apart; the line itself is among them.
        let Line { scale, offset } = best.line;
        let mut lines = [best.line; 8];
        for (line, (begin, end)) in lines.iter_mut().skip(1).zip([
            (1.0, 0.0),
            (-1.0, 0.0),
            (0.0, 1.0),
            (0.0, -1.0),
            (0.7, 0.7),
            (-0.7, -0.7),
            (0.7, -0.7),
        ]) {
            line.scale = scale * (1.0 + reach * (end - begin) / steps);
            line.offset = offset + scale * reach * begin;
        }
        measure(x, w, top, &lines, |line, sums| take(line, sums, &mut best));
    }
    best
}

/// The best line with the codes of this one, and its error.
fn bottom(line: Line, sums: &Sums, w: f32, allowed: Offset) -> (Line, f32) {
    let Sums { rr, rq, r, qq, q } = *sums;
    let determinant = w * qq - q * q;
    // Codes that are all equal determine no scale.
    let (mut scale, mut offset) = if determinant > 1e-6 * w * qq {
        ((w * rq - q * r) / determinant, (qq * r - q * rq) / determinant)
    } else {
        (0.0, r / w)
    };
    if allowed == Offset::NotPositive && line.offset + offset > 0.0 {
        offset = -line.offset;
        scale = if qq > 0.0 { (rq - offset * q) / qq } else { 0.0 };
    }
    let error = rr - 2.0 * (scale * rq + offset * r)
        + scale * scale * qq
        + 2.0 * scale * offset * q
        + offset * offset * w;
    (Line { scale: line.scale + scale, offset: line.offset + offset }, error)
}

/// Scale and offset of a block that has no integers to them: as stored, with the codes they give.
pub(super) fn fit_line(sample: &Sample<32>, top: u8) -> ([u8; 2], [u8; 2], [u8; 32]) {
    let fit = affine_search(&sample.x, &sample.w, top, Offset::Any);
    let ((d, scale), (m, offset)) = (sample.f16(fit.line.scale, 1.0), sample.f16(fit.line.offset, 1.0));
    (d, m, sample.x.map(|x| Line { scale, offset }.code(x, top)))
}

/// A block's two scales and the integers of its sub-blocks.
pub(super) struct ScaledMinima<const SUBS: usize> {
    /// The scale's f16.
    pub d: [u8; 2],
    /// The f16 of the minima's scale.
    pub dmin: [u8; 2],
    /// Integer scales.
    pub scales: [u8; SUBS],
    /// Integer minima.
    pub minima: [u8; SUBS],
    /// The line of each sub-block that they make.
    pub lines: [Line; SUBS],
}

/// Scales and minima for a block of `SUBS` sub-blocks with codes `0..=top` and integers `0..=highest`.
pub(super) fn fit_scales_and_minima<const SUBS: usize>(
    sample: &Sample<256>,
    top: u8,
    highest: u8,
) -> ScaledMinima<SUBS> {
    let fits: [LineFit; SUBS] = std::array::from_fn(|j| {
        let (x, w) = sample.part(j, 256 / SUBS);
        affine_search(x, w, top, Offset::NotPositive)
    });
    let steps = Steps { low: 0, high: i32::from(highest), step: 1 };
    let outer = |x: &[f32; SUBS], w: &[f32; SUBS]| {
        let high = f32::from(highest);
        scale_search(&steps, x, w, &one_sided::<32>(x, high * 0.7, high * 1.06), &closer(0.01)).scale
    };
    // A scale that moves takes its minimum along: what remains of its curvature then.
    let stiffness = fits.map(|fit| (fit.qq - fit.q * fit.q / fit.w).max(0.0));
    let mut d = outer(&fits.map(|fit| fit.line.scale), &stiffness);
    let mut dmin = outer(&fits.map(|fit| -fit.line.offset), &fits.map(|fit| fit.w));
    let flat = Line { scale: 0.0, offset: 0.0 };
    let mut best =
        ScaledMinima { d: [0; 2], dmin: [0; 2], scales: [0; SUBS], minima: [0; SUBS], lines: [flat; SUBS] };
    let mut error = f32::INFINITY;
    for _ in 0..3 {
        let (stored, stored_min) = (sample.f16(d, 1.0), sample.f16(dmin, 1.0));
        let chosen = choose(sample, &fits, top, highest, stored.1, stored_min.1);
        if chosen.error < error {
            error = chosen.error;
            let lines = std::array::from_fn(|j| line(stored.1, stored_min.1, chosen.pairs[j]));
            let (scales, minima) = (chosen.pairs.map(|pair| pair.0), chosen.pairs.map(|pair| pair.1));
            best = ScaledMinima { d: stored.0, dmin: stored_min.0, scales, minima, lines };
        }
        (d, dmin) = (chosen.d, chosen.dmin);
        if (sample.f16(d, 1.0).0, sample.f16(dmin, 1.0).0) == (stored.0, stored_min.0) {
            break;
        }
    }
    best
}

/// The line of a sub-block with this integer scale and minimum.
fn line(d: f32, dmin: f32, (scale, minimum): (u8, u8)) -> Line {
    Line { scale: d * f32::from(scale), offset: -(dmin * f32::from(minimum)) }
}

/// The integers of least error for two scales of the block.
struct Chosen<const SUBS: usize> {
    pairs: [(u8, u8); SUBS],
    error: f32,
    /// Least-squares scales of the block with these integers and their codes.
    d: f32,
    dmin: f32,
}

fn choose<const SUBS: usize>(
    sample: &Sample<256>,
    fits: &[LineFit; SUBS],
    top: u8,
    highest: u8,
    d: f32,
    dmin: f32,
) -> Chosen<SUBS> {
    let integer = |v: f32| clamp(v, 0.0, f32::from(highest)) as u8;
    let mut error = 0.0;
    // Sums over all values of: residual * a, residual * b, a^2, a b, b^2, where value = d * a - dmin * b.
    let (mut ra, mut rb, mut aa, mut ab, mut bb) = (0.0, 0.0, 0.0, 0.0, 0.0);
    let pairs = std::array::from_fn(|j| {
        let (x, w) = sample.part(j, 256 / SUBS);
        let fit = &fits[j];
        let mut pairs = [(0, 0); 16];
        for (i, pair) in pairs.iter_mut().enumerate() {
            let scale = integer((fit.line.scale * inverse(d)).floor() + (i / 4) as f32 - 1.0);
            let minimum = -fit.line.offset + (d * f32::from(scale) - fit.line.scale) * fit.q / fit.w;
            *pair = (scale, integer((minimum * inverse(dmin)).floor() + (i % 4) as f32 - 1.0));
        }
        let mut best = (f32::INFINITY, 0, Sums::default());
        let mut index = 0;
        measure(x, w, top, &pairs.map(|pair| line(d, dmin, pair)), |_, sums| {
            if sums.rr < best.0 {
                best = (sums.rr, index, sums);
            }
            index += 1;
        });
        let (rr, index, sums) = best;
        let (scale, minimum) = (f32::from(pairs[index].0), f32::from(pairs[index].1));
        error += rr;
        ra += scale * sums.rq;
        rb += minimum * sums.r;
        aa += scale * scale * sums.qq;
        ab += scale * minimum * sums.q;
        bb += minimum * minimum * fit.w;
        pairs[index]
    });
    let determinant = aa * bb - ab * ab;
    let (step, step_min) = if determinant > 1e-6 * aa * bb {
        ((ra * bb - rb * ab) / determinant, (ra * ab - rb * aa) / determinant)
    } else if aa > 0.0 {
        (ra / aa, 0.0)
    } else {
        (0.0, 0.0)
    };
    Chosen { pairs, error, d: d + step, dmin: dmin + step_min }
}
