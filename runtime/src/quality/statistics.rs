//! Means, errors and percentiles of what was scored.

/// The perplexity of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// `exp` of [`Perplexity::loss`].
    pub value: f64,
    /// Standard error of the value.
    pub standard_error: f64,
    /// Mean negative log-likelihood of the next token, in nats.
    pub loss: f64,
    /// Positions that were scored.
    pub positions: usize,
}

/// How far a candidate's distributions are from the reference's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// Mean Kullback-Leibler divergence, in nats.
    pub mean: f64,
    /// Standard error of the mean.
    pub standard_error: f64,
    /// Half of the positions have less.
    pub median: f64,
    /// 99 of 100 positions have less.
    pub percentile_99: f64,
    /// 999 of 1000 positions have less.
    pub percentile_99_9: f64,
    /// The largest.
    pub max: f64,
    /// Share of positions, 0 to 1, at which both find the same token likeliest.
    pub top1_agreement: f64,
    /// The candidate's perplexity over the reference's, less 1.
    pub perplexity_change: f64,
    /// Standard error of that: of the mean difference of losses, position by position.
    pub change_error: f64,
}

/// A sum and a sum of squares.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    sum: f64,
    squares: f64,
    count: usize,
}

impl Moments {
    fn push(&mut self, x: f64) {
        self.sum += x;
        self.squares += x * x;
        self.count += 1;
    }

    fn mean(self) -> f64 {
        self.sum / self.count as f64
    }

    /// Of the mean.
    fn standard_error(self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let mean = self.mean();
        ((self.squares / self.count as f64 - mean * mean).max(0.0) / (self.count - 1) as f64).sqrt()
    }
}

/// What is gathered of one engine.
#[derive(Debug, Clone, Default)]
pub(super) struct Gathered {
    losses: Moments,
    differences: Moments,
    divergences: Vec<f32>,
    same_top: usize,
}

impl Gathered {
    /// A position alone.
    pub fn loss(&mut self, loss: f64) {
        self.losses.push(loss);
    }

    /// A position beside the reference's.
    pub fn divergence(&mut self, divergence: f64, loss_difference: f64, same_top: bool) {
        self.divergences.push(divergence as f32);
        self.differences.push(loss_difference);
        self.same_top += usize::from(same_top);
    }

    pub fn perplexity(&self) -> Perplexity {
        let loss = self.losses.mean();
        let value = loss.exp();
        Perplexity {
            value,
            standard_error: value * self.losses.standard_error(),
            loss,
            positions: self.losses.count,
        }
    }

    pub fn finish(mut self) -> (Perplexity, Option<Divergence>) {
        let perplexity = self.perplexity();
        if self.divergences.is_empty() {
            return (perplexity, None);
        }
        let mut moments = Moments::default();
        self.divergences.iter().for_each(|&x| moments.push(f64::from(x)));
        self.divergences.sort_unstable_by(f32::total_cmp);
        let count = self.divergences.len();
        let percentile = |share: f64| {
            let at = ((count as f64 * share) as usize).min(count - 1);
            self.divergences.get(at).copied().map_or(f64::NAN, f64::from)
        };
        let ratio = self.differences.mean().exp();
        let divergence = Divergence {
            mean: moments.mean(),
            standard_error: moments.standard_error(),
            median: percentile(0.5),
            percentile_99: percentile(0.99),
            percentile_99_9: percentile(0.999),
            max: percentile(1.0),
            top1_agreement: self.same_top as f64 / count as f64,
            perplexity_change: ratio - 1.0,
            change_error: ratio * self.differences.standard_error(),
        };
        (perplexity, Some(divergence))
    }
}

/// The logarithm of the sum of exponentials of a row, and the place of its largest value (the first, if several are).
pub(super) fn normalizer(row: &[f32]) -> (f64, usize) {
    let (mut top, mut largest) = (0, f32::NEG_INFINITY);
    for (i, &x) in row.iter().enumerate() {
        if x > largest {
            (top, largest) = (i, x);
        }
    }
    let sum: f64 = row.iter().map(|&x| f64::from(x - largest).exp()).sum();
    (f64::from(largest) + sum.ln(), top)
}

/// The divergence from `reference` to `candidate`, rows of logits whose normalizers are known. Rounding may not make it
/// negative.
pub(super) fn divergence(reference: &[f32], normalizer: f64, candidate: &[f32], other: f64) -> f64 {
    let shift = normalizer - other;
    let terms = reference.iter().zip(candidate).map(|(&p, &q)| {
        let p64 = f64::from(p);
        (p64 - normalizer).exp() * (p64 - f64::from(q) - shift)
    });
    terms.sum::<f64>().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::{Gathered, divergence, normalizer};

    #[test]
    fn a_divergence_by_hand() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): KL = 1/2 ln 2 - 1/4 ln 2
        let (p, q) = ([2f32.ln(), 0.0, 0.0], [3.0, 3.0 + 2f32.ln(), 3.0]);
        let ((zp, tp), (zq, tq)) = (normalizer(&p), normalizer(&q));
        assert_eq!((tp, tq), (0, 1));
        assert!((divergence(&p, zp, &q, zq) - 0.25 * 2f64.ln()).abs() < 1e-7);
        assert_eq!(divergence(&p, zp, &p, zp), 0.0);
        assert_eq!(normalizer(&[1.0, 5.0, 5.0]).1, 1);
    }

    #[test]
    fn figures_of_a_hundred_positions() {
        let mut gathered = Gathered::default();
        for i in 0..100 {
            gathered.loss(if i % 2 == 0 { 1.0 } else { 3.0 });
            gathered.divergence(f64::from(i), 0.5, i < 75);
        }
        let (perplexity, divergence) = gathered.finish();
        let divergence = divergence.unwrap();
        assert!((perplexity.loss - 2.0).abs() < 1e-12 && perplexity.positions == 100);
        assert!((perplexity.standard_error / perplexity.value - (1.0f64 / 99.0).sqrt()).abs() < 1e-12);
        assert_eq!([divergence.median, divergence.percentile_99, divergence.max], [50.0, 99.0, 99.0]);
        assert_eq!((divergence.mean, divergence.top1_agreement), (49.5, 0.75));
        assert!((divergence.perplexity_change - (0.5f64.exp() - 1.0)).abs() < 1e-12);
        assert_eq!(divergence.change_error, 0.0);
    }
}
