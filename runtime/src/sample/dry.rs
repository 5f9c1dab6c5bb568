//! DRY, "don't repeat yourself" (p-e-w, text-generation-webui, 2024): a token that would extend a repetition of the
//! text's last `n` tokens loses `multiplier * base^(n - allowed_length)`. Repetitions do not reach across a sequence
//! breaker.

use super::{Adjust, Context, DryConfig, Pieces, SamplerConfig, window};
use std::collections::BTreeMap;

/// The penalty on repeated runs.
#[derive(Debug)]
pub(crate) struct Dry(DryConfig);

impl Dry {
    /// The step a configuration asks for.
    pub(crate) fn step(config: &SamplerConfig) -> Option<Box<dyn Adjust>> {
        let dry = &config.dry;
        let acts = dry.multiplier > 0.0 && dry.last_n != Some(0);
        acts.then(|| Box::new(Self(dry.clone())) as Box<dyn Adjust>)
    }

    /// How many of the last tokens lie wholly after the last breaker, wherever in a token it ends.
    fn reach(&self, tokens: &[u32], pieces: &dyn Pieces) -> usize {
        let (mut text, mut starts) = (Vec::new(), Vec::with_capacity(tokens.len()));
        for token in tokens {
            starts.push(text.len());
            text.extend_from_slice(&pieces.piece(*token));
        }
        let last_end =
            |b: &String| text.windows(b.len()).rposition(|part| part == b.as_bytes()).map(|at| at + b.len());
        match self.0.breakers.iter().filter_map(last_end).max() {
            Some(end) => starts.iter().rev().take_while(|start| **start >= end).count(),
            None => tokens.len(),
        }
    }

    /// What a token loses that would extend a repetition of `length` tokens.
    fn penalty(&self, length: usize) -> f32 {
        let (mut power, mut exponent) = (self.0.multiplier, length - self.0.allowed_length);
        while exponent > 0 && power < f32::MAX {
            power = (power * self.0.base).min(f32::MAX);
            exponent -= 1;
            if self.0.base <= 1.0 {
                break;
            }
        }
        power
    }
}

impl Adjust for Dry {
    fn adjust(&self, logits: &mut [f32], context: &Context<'_>) {
        let window = window(context.tokens, self.0.last_n);
        let allowed = self.0.allowed_length;
        if window.len() <= allowed {
            return;
        }
        let reach = self.reach(window, context.pieces);
        if reach < allowed {
            return;
        }
        let reversed: Vec<u32> = window.iter().rev().copied().collect();
        let mut longest: BTreeMap<u32, usize> = BTreeMap::new();
        for (back, &length) in suffix_matches(&reversed).iter().enumerate().skip(1) {
            let length = length.min(reach);
            if length >= allowed {
                // The match ends `back` tokens before the end; the token after it would extend the repetition.
                let best = longest.entry(reversed[back - 1]).or_default();
                *best = length.max(*best);
            }
        }
        for (token, length) in longest {
            let text = context.pieces.piece(token);
            let breaks =
                self.0.breakers.iter().any(|b| text.windows(b.len()).any(|part| part == b.as_bytes()));
            if let (false, Some(logit)) = (breaks, logits.get_mut(token as usize)) {
                *logit -= self.penalty(length);
            }
        }
    }
}

/// The Z-function: for every offset, how many elements from there on equal the beginning. Linear time.
fn suffix_matches(reversed: &[u32]) -> Vec<usize> {
    let n = reversed.len();
    let mut z = vec![0; n];
    let (mut left, mut right) = (0, 0);
    for i in 1..n {
        let mut length = if i < right { z[i - left].min(right - i) } else { 0 };
        while i + length < n && reversed[length] == reversed[i + length] {
            length += 1;
        }
        z[i] = length;
        if i + length > right {
            (left, right) = (i, i + length);
        }
    }
    z
}

#[cfg(test)]
mod tests {
    use super::super::{Adjust, Context, DryConfig, Pieces};
    use super::{Dry, suffix_matches};
    use proptest::prelude::*;
    use quant_kernels::Isa;
    use std::borrow::Cow;

    /// Token `i` is the letter `a + i`.
    struct Letters;

    impl Pieces for Letters {
        fn piece(&self, token: u32) -> Cow<'_, [u8]> {
            Cow::Owned(vec![b'a' + token as u8])
        }
    }

    fn losses(config: DryConfig, text: &str) -> Vec<f32> {
        let tokens: Vec<u32> = text.bytes().map(|b| u32::from(b - b'a')).collect();
        let mut logits = vec![0.0; 26];
        Dry(config).adjust(
            &mut logits,
            &Context { tokens: &tokens, forgotten: 0, sequence: 0, pieces: &Letters, isa: Isa::Scalar },
        );
        logits.into_iter().map(|l| -l).collect()
    }

    fn config() -> DryConfig {
        DryConfig { multiplier: 1.0, base: 2.0, allowed_length: 2, last_n: None, breakers: Vec::new() }
    }

    #[test]
    fn the_token_that_extends_the_longest_repetition_pays() {
        // "abc" came before, followed by c; "c" alone was followed by b, "bc" by y.
        let lost = losses(config(), "abccbcyabc");
        let mut expected = vec![0.0; 26];
        expected[usize::from(b'c' - b'a')] = 2.0;
        expected[usize::from(b'y' - b'a')] = 1.0;
        assert_eq!(lost, expected);
    }

    #[test]
    fn breakers_limit_the_reach_and_never_pay() {
        let breakers = |b: &str| DryConfig { breakers: vec![b.to_owned()], ..config() };
        // Three tokens match up to the breaker "x", four without it.
        assert_eq!(losses(config(), "zxabcdzxabc")[3], 8.0);
        assert_eq!(losses(breakers("x"), "zxabcdzxabc")[3], 2.0);
        // A breaker of two tokens; it counts where it ends.
        assert_eq!(losses(breakers("xa"), "zxabcdzxabc")[3], 1.0);
        assert_eq!(losses(breakers("bc"), "zxabcdzxabc")[3], 0.0);
        // The extending token is a breaker itself.
        assert_eq!(losses(breakers("d"), "abcdzabc")[3], 0.0);
    }

    #[test]
    fn a_long_repetition_stays_finite() {
        let lost = losses(DryConfig { base: 10.0, ..config() }, &"a".repeat(500));
        assert_eq!(lost[0], f32::MAX);
        assert_eq!(losses(DryConfig { base: 1.0, ..config() }, &"a".repeat(500))[0], 1.0);
    }

    proptest! {
        #[test]
        fn matches_equal_the_naive_count(text in prop::collection::vec(0u32..3, 0..60)) {
            let z = suffix_matches(&text);
            for i in 1..text.len() {
                let naive = text[i..].iter().zip(&text).take_while(|(a, b)| a == b).count();
                prop_assert_eq!(z[i], naive);
            }
        }
    }
}
