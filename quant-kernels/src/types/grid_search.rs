//! The exact search for the nearest entry of a codebook, and the i-quants' sub-blocks on top of it.
//!
//! With a scale `s` an entry `g` costs `sum of w * (x - s * g)^2`, a sum over coordinates; and a coordinate has few
//! levels. So costs are put together from tables: of quarters of an entry (9 or 8 patterns each), of its second half
//! (81 or 64). Entries lie sorted by their first half, and the search goes through first halves quarter by quarter:
//! what can't beat the best entry so far, even if all that is left took its cheapest levels, is passed over with all
//! that begins like it. The first half that is cheapest by itself comes first. Few entries survive to be added up, and
//! what is found is the true minimum, whatever the weights.
//!
//! Signs: where all eight are stored, magnitudes are searched for `|x|`. Where the eighth only makes their number even
//! and the signs of the values are odd, one coordinate keeps the wrong sign; that costs `4 w |x| s g` more. Tables of
//! the least such surcharge make that search exact as well.

use super::codebooks;
use super::quantize::Sample;
use super::scale_search::{
    Codebook, Levels, Plan, Scaled, Steps, Sums, Uneven, closer, fit_scales, one_sided, scale_search,
};
use std::sync::LazyLock;

/// Room for the patterns of a quarter: of two coordinates with three levels (9), or of one with eight. A multiple of
/// four, for vectors.
const QUARTER: usize = 12;

/// A codebook of `D` coordinates (8 or 4) with `L` levels each (3 or 8), sorted for searches.
struct Grid<const D: usize, const L: usize> {
    /// For each pattern of the first half, first quarter times `QUARTER` plus second, its range in `seconds`.
    ranges: [(u16, u16); QUARTER * QUARTER],
    /// Pattern of the second half and index of the entry.
    seconds: Vec<(u8, u16)>,
    /// The position of each coordinate's level.
    entries: Vec<[u8; D]>,
}

/// An entry found.
#[derive(Debug, Clone, Copy)]
struct Found<const D: usize> {
    index: u16,
    /// Its error short of the sum of weighted squares, which all entries have in common.
    cost: f32,
    /// Its levels.
    q: [f32; D],
    /// The coordinate that keeps the wrong sign, if one had to.
    flipped: Option<usize>,
}

/// Numbers for the patterns of four quarters.
type Quarters = [[f32; QUARTER]; 4];

/// Numbers for the patterns of a half.
type Half = [[f32; QUARTER]; QUARTER];

fn least(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// All sums (or minima) of a number of one quarter with one of another.
fn half(a: &[f32; QUARTER], b: &[f32; QUARTER], join: impl Fn(f32, f32) -> f32) -> Half {
    a.map(|a| b.map(|b| join(a, b)))
}

impl<const D: usize, const L: usize> Grid<D, L> {
    /// Patterns of a quarter that there are.
    const PATTERNS: usize = L.pow(D as u32 / 4);

    /// Sorts a codebook whose values are `levels`, in ascending order.
    fn new(codebook: &[[u8; D]], levels: [u8; L]) -> Self {
        let entries: Vec<[u8; D]> =
            codebook.iter().map(|entry| entry.map(|v| levels.partition_point(|&l| l < v) as u8)).collect();
        let quarter =
            |quarter: &[u8]| quarter.iter().fold(0, |pattern, &level| pattern * L + usize::from(level));
        let half = |half: &[u8]| quarter(&half[..D / 4]) * QUARTER + quarter(&half[D / 4..]);
        let mut order: Vec<(usize, u8, u16)> = (entries.iter().enumerate())
            .map(|(i, entry)| (half(&entry[..D / 2]), half(&entry[D / 2..]) as u8, i as u16))
            .collect();
        order.sort_unstable();
        let ranges = std::array::from_fn(|pattern| {
            let before = |limit| order.partition_point(|&(first, ..)| first < limit) as u16;
            (before(pattern), before(pattern + 1))
        });
        Self { ranges, seconds: order.iter().map(|&(_, second, index)| (second, index)).collect(), entries }
    }

    /// Numbers of quarters from numbers of coordinates and levels.
    #[inline]
    fn quarters(coordinates: &[[f32; L]; D], join: impl Fn(f32, f32) -> f32) -> Quarters {
        std::array::from_fn(|k| {
            let mut quarter = [0.0; QUARTER];
            for (i, number) in quarter[..Self::PATTERNS].iter_mut().enumerate() {
                *number = match &coordinates[k * D / 4..][..D / 4] {
                    [a, b] => join(a[i / L], b[i % L]),
                    [a, ..] => a[i % L],
                    [] => 0.0,
                };
            }
            quarter
        })
    }

    /// The entry of least cost. With `odd`, one coordinate has to take the wrong sign (`x` and `levels` are
    /// magnitudes then).
    fn nearest(&self, x: &[f32; D], w: &[f32; D], levels: &[f32; L], scale: f32, odd: bool) -> Found<D> {
        let scaled = levels.map(|level| level * scale);
        let costs: [[f32; L]; D] =
            std::array::from_fn(|i| scaled.map(|level| w[i] * (level * (level - 2.0 * x[i]))));
        let quarters = Self::quarters(&costs, |a, b| a + b);
        let found = |(cost, index): (f32, u16), flipped| {
            let q = self.entries[usize::from(index)].map(|level| levels[usize::from(level)]);
            Found { index, cost, q, flipped }
        };
        if !odd {
            return found(self.cheapest::<false>(&quarters, &quarters), None);
        }
        let surcharges: [[f32; L]; D] =
            std::array::from_fn(|i| scaled.map(|level| 4.0 * w[i] * (level * x[i])));
        let best = self.cheapest::<true>(&quarters, &Self::quarters(&surcharges, least));
        let entry = &self.entries[usize::from(best.1)];
        let surcharge = |i: usize| surcharges[i][usize::from(entry[i])];
        found(best, Some((1..D).fold(0, |least, i| if surcharge(i) < surcharge(least) { i } else { least })))
    }

    /// Cost and index of the cheapest entry; with `ODD`, with the least surcharge of any quarter on top.
    fn cheapest<const ODD: bool>(&self, costs: &Quarters, surcharges: &Quarters) -> (f32, u16) {
        let [a, b, c, d] = costs;
        let cheapest = |quarter: &[f32; QUARTER]| {
            let quarter = &quarter[..Self::PATTERNS];
            let cost = quarter.iter().fold(f32::INFINITY, |m, &v| least(v, m));
            (cost, quarter.iter().enumerate().fold(0, |at, (i, &v)| if v == cost { i } else { at }))
        };
        let [lead_a, lead_b, lead_c, lead_d] = [a, b, c, d].map(cheapest);
        let seconds = half(c, d, |c, d| c + d);
        let flipped = if ODD {
            let surcharge = half(&surcharges[2], &surcharges[3], least);
            std::array::from_fn(|i| std::array::from_fn(|j| seconds[i][j] + surcharge[i][j]))
        } else {
            seconds
        };
        let (seconds_flat, flipped) = (seconds.as_flattened(), flipped.as_flattened());
        let rest = lead_c.0 + lead_d.0;
        let mut best = (f32::INFINITY, 0);
        let visit = |i: usize, j: usize, best: &mut (f32, u16)| {
            let cost = a[i] + b[j];
            let odd = if ODD { cost + least(surcharges[0][i], surcharges[1][j]) } else { cost };
            let (begin, end) = self.ranges[i * QUARTER + j];
            for &(second, index) in &self.seconds[usize::from(begin)..usize::from(end)] {
                let second = usize::from(second);
                let mut total = odd + seconds_flat[second];
                if ODD {
                    total = least(total, cost + flipped[second]);
                }
                if total < best.0 {
                    *best = (total, index);
                }
            }
        };
        visit(lead_a.1, lead_b.1, &mut best);
        for (i, a) in a[..Self::PATTERNS].iter().enumerate() {
            if a + (lead_b.0 + rest) >= best.0 {
                continue;
            }
            for (j, b) in b[..Self::PATTERNS].iter().enumerate() {
                if (a + b) + rest < best.0 {
                    visit(i, j, &mut best);
                }
            }
        }
        best
    }
}

static IQ2_XXS: LazyLock<Grid<8, 3>> = LazyLock::new(|| Grid::new(&codebooks::IQ2_XXS, [8, 25, 43]));
static IQ2_XS: LazyLock<Grid<8, 3>> = LazyLock::new(|| Grid::new(&codebooks::IQ2_XS, [8, 25, 43]));
static IQ2_S: LazyLock<Grid<8, 3>> = LazyLock::new(|| Grid::new(&codebooks::IQ2_S, [8, 25, 43]));
static IQ3_XXS: LazyLock<Grid<4, 8>> =
    LazyLock::new(|| Grid::new(&codebooks::IQ3_XXS, [4, 12, 20, 28, 36, 44, 52, 62]));
static IQ3_S: LazyLock<Grid<4, 8>> =
    LazyLock::new(|| Grid::new(&codebooks::IQ3_S, [1, 3, 5, 7, 9, 11, 13, 15]));
static IQ1: LazyLock<Grid<8, 3>> = LazyLock::new(|| Grid::new(&codebooks::IQ1, [0, 1, 2]));

/// Eight values coded.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Octet {
    /// Levels, with signs and shifts.
    q: [f32; 8],
    /// Its error short of the sum of weighted squares.
    cost: f32,
    /// Codebook index, or one for each four values.
    pub indices: [u16; 2],
    /// Signs, one bit each (set: negative); of the shift for IQ1.
    pub signs: u8,
}

/// Eight values with the signs of bits.
fn signed(magnitudes: [f32; 8], signs: u8) -> [f32; 8] {
    std::array::from_fn(|i| if signs >> i & 1 != 0 { -magnitudes[i] } else { magnitudes[i] })
}

/// A way to code a sub-block: eight values at a time.
pub(super) trait Octets {
    /// Codes of least error for up to 32 values.
    fn code(&self, x: &[f32], w: &[f32], scale: f32) -> [Octet; 4];
}

/// Makes a [`Codebook`] of [`Octets`].
pub(super) struct Coded<T>(pub T);

impl<T: Octets> Codebook for Coded<T> {
    fn measure(&self, x: &[f32], w: &[f32], scales: &[f32], mut each: impl FnMut(f32, Sums)) {
        for &scale in scales {
            let octets = self.0.code(x, w, scale);
            let mut sums = Sums::default();
            for ((&x, &w), &q) in x.iter().zip(w).zip(octets.iter().flat_map(|octet| &octet.q)) {
                sums.add(x, w, scale, q);
            }
            each(scale, sums);
        }
    }
}

/// Calls `code` for every eight values.
fn each_octet(x: &[f32], w: &[f32], code: impl Fn(&[f32; 8], &[f32; 8]) -> Octet) -> [Octet; 4] {
    let mut octets = [Octet::default(); 4];
    for (octet, (x, w)) in octets.iter_mut().zip(x.as_chunks::<8>().0.iter().zip(w.as_chunks::<8>().0)) {
        *octet = code(x, w);
    }
    octets
}

/// One bit for each negative value.
fn signs_of(x: &[f32; 8]) -> u8 {
    x.iter().enumerate().fold(0, |signs, (i, &x)| signs | u8::from(x < 0.0) << i)
}

/// Magnitudes of three levels, eight to an entry, with signs: IQ2.
pub(super) struct Iq2 {
    grid: &'static Grid<8, 3>,
    /// Whether only even numbers of signs can be stored.
    even: bool,
}

const IQ2_LEVELS: [i8; 3] = [8, 25, 43];

impl Iq2 {
    /// The coder of IQ2_XXS.
    pub fn xxs() -> Self {
        Self { grid: &IQ2_XXS, even: true }
    }

    /// The coder of IQ2_XS.
    pub fn xs() -> Self {
        Self { grid: &IQ2_XS, even: true }
    }

    /// The coder of IQ2_S.
    pub fn s() -> Self {
        Self { grid: &IQ2_S, even: false }
    }
}

impl Octets for Iq2 {
    fn code(&self, x: &[f32], w: &[f32], scale: f32) -> [Octet; 4] {
        let levels = IQ2_LEVELS.map(f32::from);
        each_octet(x, w, |x, w| {
            let signs = signs_of(x);
            let odd = self.even && signs.count_ones() % 2 == 1;
            let found = self.grid.nearest(&x.map(f32::abs), w, &levels, scale, odd);
            let signs = signs ^ found.flipped.map_or(0, |i| 1 << i);
            Octet { q: signed(found.q, signs), cost: found.cost, indices: [found.index, 0], signs }
        })
    }
}

/// Magnitudes of eight levels, four to an entry, with signs: IQ3.
pub(super) struct Iq3 {
    grid: &'static Grid<4, 8>,
    levels: [i8; 8],
    /// Whether only even numbers of signs can be stored.
    even: bool,
}

impl Iq3 {
    /// The coder of IQ3_XXS.
    pub fn xxs() -> Self {
        Self { grid: &IQ3_XXS, levels: IQ3_XXS_LEVELS, even: true }
    }

    /// The coder of IQ3_S.
    pub fn s() -> Self {
        Self { grid: &IQ3_S, levels: IQ3_S_LEVELS, even: false }
    }
}

const IQ3_XXS_LEVELS: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
const IQ3_S_LEVELS: [i8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

impl Octets for Iq3 {
    fn code(&self, x: &[f32], w: &[f32], scale: f32) -> [Octet; 4] {
        let levels = self.levels.map(f32::from);
        each_octet(x, w, |x, w| {
            let signs = signs_of(x);
            let [xa, xb, ..] = *x.map(f32::abs).as_chunks::<4>().0 else { return Octet::default() };
            let [wa, wb, ..] = *w.as_chunks::<4>().0 else { return Octet::default() };
            let nearest = |x, w, odd| self.grid.nearest(x, w, &levels, scale, odd);
            let (mut a, mut b) = (nearest(&xa, &wa, false), nearest(&xb, &wb, false));
            if self.even && signs.count_ones() % 2 == 1 {
                // One of the two has to take a wrong sign: that for which it costs less.
                let (odd_a, odd_b) = (nearest(&xa, &wa, true), nearest(&xb, &wb, true));
                if odd_a.cost + b.cost < a.cost + odd_b.cost { a = odd_a } else { b = odd_b }
            }
            let flipped = a.flipped.map_or(0, |i| 1 << i) | b.flipped.map_or(0, |i| 16 << i);
            let signs = signs ^ flipped;
            let q = std::array::from_fn(|i| if i < 4 { a.q[i] } else { b.q[i - 4] });
            Octet { q: signed(q, signs), cost: a.cost + b.cost, indices: [a.index, b.index], signs }
        })
    }
}

/// Ternary values shifted by an eighth, times eight: IQ1.
pub(super) enum Iq1 {
    /// One shift for all octets: IQ1_S.
    SharedShift,
    /// A shift for each octet: IQ1_M.
    OwnShift,
}

impl Octets for Iq1 {
    fn code(&self, x: &[f32], w: &[f32], scale: f32) -> [Octet; 4] {
        let shifted = |levels: [f32; 3], signs| {
            each_octet(x, w, |x, w| {
                let found = IQ1.nearest(x, w, &levels, scale, false);
                Octet { q: found.q, cost: found.cost, indices: [found.index, 0], signs }
            })
        };
        let (up, down) = (shifted([-7.0, 1.0, 9.0], 0), shifted([-9.0, -1.0, 7.0], 1));
        let cost = |octets: &[Octet]| octets.iter().fold(0.0, |sum, octet| sum + octet.cost);
        match self {
            Self::SharedShift => {
                if cost(&down) < cost(&up) {
                    down
                } else {
                    up
                }
            }
            Self::OwnShift => {
                std::array::from_fn(|k| if down[k].cost < up[k].cost { down[k] } else { up[k] })
            }
        }
    }
}

/// Fits the scales of an i-quant's block. `levels` are the magnitudes as if they were free to choose: their scale is
/// where the search of the codebook's begins.
fn fit<const SUBS: usize>(
    sample: &Sample<256>,
    coded: &Coded<impl Octets>,
    levels: &impl Levels,
    (low, top): (f32, f32),
    highest: i32,
    factor: f32,
) -> Scaled<SUBS> {
    let plan =
        Plan { steps: Steps { low: 1, high: highest, step: 2 }, factor, around: &[0, -1, 1], closer: &[] };
    fit_scales(sample, coded, &plan, |x, w| {
        let mut magnitudes = [0.0; 32];
        for (magnitude, x) in magnitudes.iter_mut().zip(x) {
            *magnitude = x.abs();
        }
        let magnitudes = &magnitudes[..x.len()];
        let candidates = one_sided::<16>(magnitudes, top * 0.35, top * 1.15);
        let free = scale_search(levels, magnitudes, w, &candidates, &closer(0.05)).scale;
        let amax = magnitudes.iter().fold(0f32, |m, &v| if v > m { v } else { m });
        // Where magnitudes are nearly the same, the best entry may be one of low levels alone.
        [0.95 * free, 1.2 * free, 2.0 * amax / top, 4.5 * amax / top, amax / low]
    })
}

impl Coded<Iq2> {
    /// Scales of a block of `SUBS` sub-blocks.
    pub fn fit<const SUBS: usize>(&self, sample: &Sample<256>) -> Scaled<SUBS> {
        fit(sample, self, &Uneven::<2>::new(&IQ2_LEVELS), (8.0, 43.0), 31, 8.0)
    }
}

impl Coded<Iq3> {
    /// Scales of a block of 8 sub-blocks; what is stored is `factor` times that of the levels.
    pub fn fit(&self, sample: &Sample<256>, factor: f32) -> Scaled<8> {
        let levels = &self.0.levels;
        let ends = (f32::from(levels[0]), f32::from(levels[7]));
        fit(sample, self, &Uneven::<7>::new(levels), ends, 31, factor)
    }
}

impl Coded<Iq1> {
    /// Scales of a block of `SUBS` sub-blocks.
    pub fn fit<const SUBS: usize>(&self, sample: &Sample<256>) -> Scaled<SUBS> {
        fit(sample, self, &Uneven::<2>::new(&[-8, 0, 8]), (8.0, 8.0), 15, 8.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least cost over all entries and, with `odd`, all places for the wrong sign.
    fn brute_force<const D: usize, const L: usize>(
        grid: &Grid<D, L>,
        (x, w): (&[f32; D], &[f32; D]),
        levels: &[f32; L],
        scale: f32,
        odd: bool,
    ) -> f64 {
        let cost = |entry: &[u8; D], wrong: Option<usize>| -> f64 {
            (0..D)
                .map(|i| {
                    let x = f64::from(if wrong == Some(i) { -x[i] } else { x[i] });
                    let q = f64::from(scale) * f64::from(levels[usize::from(entry[i])]);
                    f64::from(w[i]) * (q * q - 2.0 * q * x)
                })
                .sum()
        };
        let costs = grid.entries.iter().flat_map(|entry| {
            let wrong = if odd { (0..D).map(Some).collect() } else { vec![None] };
            wrong.into_iter().map(move |wrong| cost(entry, wrong))
        });
        costs.fold(f64::INFINITY, f64::min)
    }

    fn check<const D: usize, const L: usize>(grid: &Grid<D, L>, levels: [f32; L], signs: bool) {
        let mut state = 7u64;
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let top = levels.iter().fold(0f32, |m, l| m.max(l.abs()));
        for round in 0..300 {
            let odd = signs && round % 2 == 1;
            let x: [f32; D] = std::array::from_fn(|_| if signs { uniform() } else { 2.0 * uniform() - 1.0 });
            let w: [f32; D] = std::array::from_fn(|_| uniform() / (uniform() + 0.05));
            let scale = (0.5 + uniform()) / top;
            let found = grid.nearest(&x, &w, &levels, scale, odd);
            let wanted = brute_force(grid, (&x, &w), &levels, scale, odd);
            assert!((f64::from(found.cost) - wanted).abs() < 1e-4, "{} instead of {wanted}", found.cost);
            assert_eq!(found.flipped.is_some(), odd);
            let cost: f32 = (0..D)
                .map(|i| {
                    let q = scale * found.q[i] * if found.flipped == Some(i) { -1.0 } else { 1.0 };
                    w[i] * (q * q - 2.0 * q * x[i])
                })
                .sum();
            assert!((cost - found.cost).abs() < 1e-4, "the entry costs {cost}, not {}", found.cost);
        }
    }

    #[test]
    fn the_search_is_exact() {
        for grid in [&*IQ2_XXS, &*IQ2_XS, &*IQ2_S] {
            check(grid, IQ2_LEVELS.map(f32::from), true);
        }
        check(&IQ3_XXS, IQ3_XXS_LEVELS.map(f32::from), true);
        check(&IQ3_S, IQ3_S_LEVELS.map(f32::from), true);
        check(&IQ1, [-7.0, 1.0, 9.0], false);
        check(&IQ1, [-9.0, -1.0, 7.0], false);
    }
}
