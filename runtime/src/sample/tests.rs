//! The samplers against a naive reference that sorts everything and takes every `exp` in f64.

use super::candidates::Candidates;
use super::random::Place;
use super::*;
use proptest::prelude::*;
use quant_kernels::Isa;

const PLACE: Place = Place { seed: 0, sequence: 0, position: 0 };

/// The ids that one truncating step keeps, best first.
fn kept(step: Option<Box<dyn Truncate>>, logits: &[f32]) -> Vec<u32> {
    let mut kept = Candidates::default();
    kept.fill(logits).unwrap();
    if let Some(step) = step {
        step.truncate(&mut kept, PLACE);
    }
    kept.best(usize::MAX).iter().map(|c| c.id()).collect()
}

/// Ids in rank order with their probabilities.
fn softmax(logits: &[f32]) -> Vec<(u32, f64)> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    let top = f64::from(logits[order[0] as usize]);
    let weights: Vec<f64> = order.iter().map(|&i| (f64::from(logits[i as usize]) - top).exp()).collect();
    let sum: f64 = weights.iter().sum();
    order.into_iter().zip(weights).map(|(id, w)| (id, w / sum)).collect()
}

/// Few distinct values, so that ties are common.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec((-40i16..40).prop_map(|x| f32::from(x) / 4.0), 1..400)
}

fn ids(ranked: &[(u32, f64)]) -> Vec<u32> {
    ranked.iter().map(|r| r.0).collect()
}

fn config(change: impl FnOnce(&mut SamplerConfig)) -> SamplerConfig {
    let mut config = SamplerConfig { min_p: 0.0, temperature: 1.0, ..SamplerConfig::default() };
    change(&mut config);
    config
}

proptest! {
    #[test]
    fn top_k_is_the_head_of_the_order(logits in logits(), k in 1usize..500) {
        let reference = softmax(&logits);
        let mut kept = Candidates::default();
        kept.fill_best(Isa::detect(), &logits, k).unwrap();
        prop_assert_eq!(kept.max(), logits[reference[0].0 as usize]);
        let kept: Vec<u32> = kept.best(usize::MAX).iter().map(|c| c.id()).collect();
        prop_assert_eq!(kept, ids(&reference[..k.min(reference.len())]));
    }

    #[test]
    fn top_p_is_the_least_head_that_reaches_p(logits in logits(), p in 0f32..0.999) {
        let reference = softmax(&logits);
        let kept = kept(top_p::TopP::step(&config(|c| c.top_p = p)), &logits);
        let n = kept.len();
        prop_assert_eq!(kept, ids(&reference[..n]));
        let sum = |n: usize| reference[..n].iter().map(|r| r.1).sum::<f64>();
        prop_assert!(sum(n) >= f64::from(p) - 1e-6);
        prop_assert!(n == 1 || sum(n - 1) < f64::from(p) + 1e-6);
    }

    #[test]
    fn min_p_compares_with_the_best(logits in logits(), p in 1e-4f32..1.0) {
        let reference = softmax(&logits);
        let kept = kept(min_p::MinP::step(&config(|c| c.min_p = p)), &logits);
        let bound = f64::from(p) * reference[0].1;
        for (id, chance) in &reference {
            if (chance / bound - 1.0).abs() > 1e-5 {
                prop_assert_eq!(kept.contains(id), *chance > bound);
            }
        }
        prop_assert_eq!(&kept, &ids(&reference[..kept.len()]));
    }

    #[test]
    fn typical_keeps_the_nearest_to_the_entropy(logits in logits(), p in 0.05f32..0.999) {
        let reference = softmax(&logits);
        let kept = kept(typical::Typical::step(&config(|c| c.typical_p = p)), &logits);
        let entropy: f64 = -reference.iter().map(|r| r.1 * r.1.ln()).sum::<f64>();
        let distance = |r: &(u32, f64)| (-r.1.ln() - entropy).abs();
        let (inside, outside): (Vec<_>, Vec<_>) = reference.iter().partition(|r| kept.contains(&r.0));
        let farthest = inside.iter().map(distance).fold(0.0, f64::max);
        let nearest = outside.iter().map(distance).fold(f64::INFINITY, f64::min);
        prop_assert!(farthest <= nearest + 1e-5, "{} inside, {} outside", farthest, nearest);
        let sum: f64 = inside.iter().map(|r| r.1).sum();
        prop_assert!(outside.is_empty() || sum > f64::from(p) - 1e-5);
        // Without the farthest (any of those that tie with it, so the least likely) it would not do.
        let last = inside.iter().filter(|r| distance(r) > farthest - 1e-5).map(|r| r.1).fold(1.0, f64::min);
        prop_assert!(inside.len() == 1 || sum - last <= f64::from(p) + 1.0 / 64.0 + 1e-5);
        prop_assert_eq!(&kept, &inside.iter().map(|r| r.0).collect::<Vec<_>>());
    }

    #[test]
    fn xtc_leaves_the_least_of_the_top_choices(logits in logits(), threshold in 0.01f32..0.5) {
        let reference = softmax(&logits);
        let kept = kept(
            xtc::Xtc::step(&config(|c| (c.xtc_probability, c.xtc_threshold) = (1.0, threshold))),
            &logits,
        );
        if reference.iter().all(|r| (r.1 / f64::from(threshold) - 1.0).abs() > 1e-5) {
            let reached = reference.iter().filter(|r| r.1 >= f64::from(threshold)).count();
            prop_assert_eq!(kept, ids(&reference[reached.saturating_sub(1)..]));
        }
    }

    #[test]
    fn a_draw_is_in_the_kept_set_and_repeats(logits in logits(), seed: u64, k in 1usize..20, n in 0u32..9) {
        let config = config(|c| (c.seed, c.top_k, c.top_p, c.temperature) = (seed, k, 0.9, 0.7));
        let tokens: Vec<u32> = (0..n).collect();
        let draw = |sequence| {
            let context = Context { tokens: &tokens, forgotten: 0, sequence, pieces: &(), isa: Isa::Scalar };
            Sampler::new(&config).unwrap().sample(&mut logits.clone(), &context).unwrap()
        };
        prop_assert!(ids(&softmax(&logits)[..k.min(logits.len())]).contains(&draw(0)));
        prop_assert_eq!(draw(0), draw(0));
    }
}

fn draw(config: &SamplerConfig, logits: &[f32], tokens: &[u32]) -> Result<u32, Error> {
    Sampler::new(config)?.sample(
        &mut logits.to_vec(),
        &Context { tokens, forgotten: 0, sequence: 0, pieces: &(), isa: Isa::Scalar },
    )
}

#[test]
fn a_draw_stays_at_its_position_when_tokens_are_forgotten() {
    let config = config(|c| (c.seed, c.temperature) = (7, 1.0));
    let tokens: Vec<u32> = (0..64).collect();
    let draw = |forgotten: usize, kept: usize| {
        let tokens = &tokens[64 - kept..];
        let context = Context { tokens, forgotten, sequence: 0, pieces: &(), isa: Isa::Scalar };
        Sampler::new(&config).unwrap().sample(&mut vec![0.0; 1000], &context).unwrap()
    };
    assert_eq!(draw(24, 40), draw(0, 64));
    assert_ne!(draw(24, 40), draw(0, 40), "else a text would draw the same again after every shift");
}

#[test]
fn temperature_0_ignores_truncation_but_not_penalties_and_biases() {
    let logits = [3.0, 2.5, 0.0];
    let base = SamplerConfig {
        xtc_probability: 1.0,
        xtc_threshold: 0.1,
        mirostat: 2,
        typical_p: 0.1,
        ..SamplerConfig::greedy()
    };
    assert_eq!(draw(&base, &logits, &[0]).unwrap(), 0);
    let penalty = SamplerConfig { presence_penalty: 1.0, ..base.clone() };
    assert_eq!(draw(&penalty, &logits, &[0]).unwrap(), 1);
    let biased = SamplerConfig { logit_bias: vec![(2, 9.0)], ..base.clone() };
    assert_eq!(draw(&biased, &logits, &[0]).unwrap(), 2);
    let banned = SamplerConfig { logit_bias: vec![(0, f32::NEG_INFINITY), (7, 1.0)], ..base };
    assert_eq!(draw(&banned, &logits, &[0]).unwrap(), 1);
}

#[test]
fn nan_is_an_error_even_for_a_banned_token() {
    for temperature in [0.0, 1.0] {
        let ban = config(|c| {
            c.temperature = temperature;
            c.logit_bias = vec![(1, f32::NEG_INFINITY)];
        });
        assert!(matches!(draw(&ban, &[0.0, f32::NAN], &[]), Err(Error::BadLogit { token: 1, .. })));
        assert!(matches!(draw(&ban, &[f32::NEG_INFINITY, 0.0], &[]), Err(Error::NoCandidate)));
    }
}

#[test]
fn a_vanishing_temperature_is_greedy() {
    for temperature in [1e-45, 1e-38] {
        let config = config(|c| c.temperature = temperature);
        assert_eq!(draw(&config, &[19.0, 20.0, 20.0], &[]).unwrap(), 1);
        assert_eq!(draw(&config, &[-20.0, -19.0, -300.0], &[]).unwrap(), 1);
    }
}

#[test]
fn xtc_acts_as_often_as_it_should() {
    let config = config(|c| (c.xtc_probability, c.xtc_threshold) = (0.3, 0.1));
    let step = xtc::Xtc::step(&config).unwrap();
    let acted = (0..4000).filter(|&position| {
        let mut kept = Candidates::default();
        kept.fill(&[1.0, 1.0, 0.0]).unwrap();
        step.truncate(&mut kept, Place { position, ..PLACE });
        kept.len() < 3
    });
    let share = acted.count() as f64 / 4000.0;
    assert!((share - 0.3).abs() < 0.03, "{share}");
}

/// The result on a vocabulary of real size does not depend on how much of it was ranked.
#[test]
fn a_flat_distribution_over_a_large_vocabulary() {
    let logits: Vec<f32> =
        (0..250_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as f32 / 4096.0).collect();
    let reference = softmax(&logits);
    let kept = kept(top_p::TopP::step(&config(|c| c.top_p = 0.5)), &logits);
    assert_eq!(kept, ids(&reference[..kept.len()]));
    let target = PLACE.unit(random::Purpose::Token);
    let mut sum = 0.0;
    let expected = reference.iter().find(|r| {
        sum += r.1;
        sum > target
    });
    let drawn = draw(&config(|_| {}), &logits, &[]).unwrap();
    assert_eq!(Some(drawn), expected.map(|r| r.0));
}
