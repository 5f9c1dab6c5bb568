//! Temperature: the draw among what is left, with logits divided by `T`.

use super::candidates::Candidates;
use super::random::{Place, Purpose};

/// Draws a token from the kept set at a temperature above 0.
pub(crate) fn draw(kept: &mut Candidates, temperature: f32, place: Place) -> u32 {
    let total = kept.total(temperature);
    let target = place.below(Purpose::Token, total) + 1;
    let last = kept.reaching(temperature, target);
    kept.best(last).last().map_or(0, |c| c.id())
}

#[cfg(test)]
mod tests {
    use super::super::candidates::Candidates;
    use super::super::random::Place;
    use super::draw;

    fn frequencies(logits: &[f32], temperature: f32, draws: u64) -> Vec<f64> {
        let mut counts = vec![0u32; logits.len()];
        for position in 0..draws {
            let mut kept = Candidates::default();
            kept.fill(logits).unwrap();
            counts[draw(&mut kept, temperature, Place { seed: 3, sequence: 0, position }) as usize] += 1;
        }
        counts.into_iter().map(|n| f64::from(n) / draws as f64).collect()
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.0, 2.0, -1.0, 1.0];
        for temperature in [0.5f32, 1.0, 3.0] {
            let weights: Vec<f64> = logits.iter().map(|l| f64::from(l / temperature).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for (seen, weight) in frequencies(&logits, temperature, 20_000).iter().zip(&weights) {
                assert!((seen - weight / sum).abs() < 0.015, "at {temperature}: {seen} for {}", weight / sum);
            }
        }
    }

    #[test]
    fn a_tiny_temperature_is_greedy() {
        assert_eq!(frequencies(&[1.0, 1.001, 0.0], 1e-6, 50), [0.0, 1.0, 0.0]);
    }
}
