//! Random numbers as a function of (seed, sequence, position, purpose) alone.
//!
//! There is no generator state to carry: a resumed, forked, batched or rewound sequence draws at a position what a
//! straight run draws there.

/// What a number is drawn for; two draws at one position must not be the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The token itself.
    Token = 1,
    /// Whether XTC acts.
    Xtc = 2,
}

/// The place of a draw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The seed of the request.
    pub seed: u64,
    /// Which of the request's sequences.
    pub sequence: u64,
    /// Tokens before the one that is drawn.
    pub position: u64,
}

impl Place {
    /// 64 uniform bits.
    pub(crate) fn bits(self, purpose: Purpose) -> u64 {
        [self.sequence, self.position, purpose as u64]
            .into_iter()
            .fold(mix(self.seed), |state, word| mix(state ^ mix(word)))
    }

    /// A number in `[0, 1)` with 53 bits.
    pub(crate) fn unit(self, purpose: Purpose) -> f64 {
        (self.bits(purpose) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// An integer in `0..bound`, `bound > 0`.
    pub(crate) fn below(self, purpose: Purpose, bound: u64) -> u64 {
        ((u128::from(self.bits(purpose)) * u128::from(bound)) >> 64) as u64
    }
}

/// One step of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): a
/// bijection on 64 bits that passes BigCrush when fed a counter.
fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Place, Purpose, mix};

    #[test]
    fn mix_is_splitmix64() {
        // The first outputs of the published generator from seed 0.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn numbers_are_uniform_and_independent_of_each_other() {
        let mut buckets = [0u32; 16];
        let mut same = 0;
        for position in 0..16_000 {
            let place = Place { seed: 7, sequence: 0, position };
            let bucket = (place.unit(Purpose::Token) * 16.0) as usize;
            buckets[bucket] += 1;
            let others = [
                Place { seed: 8, ..place }.unit(Purpose::Token),
                Place { sequence: 1, ..place }.unit(Purpose::Token),
                place.unit(Purpose::Xtc),
            ];
            same += others.iter().filter(|u| (**u * 16.0) as usize == bucket).count();
            assert_eq!(place.below(Purpose::Token, 16) as usize, bucket);
        }
        assert!(buckets.iter().all(|n| (850..1150).contains(n)), "{buckets:?}");
        assert!((2700..3300).contains(&same), "{same} of 48000 pairs share a sixteenth");
    }
}
