//! Which codecs speak of the same coordinates.

use super::random::SplitMix;

/// The coordinates that a codec's prepared queries or sums are in: a fingerprint of everything that its linear map is
/// made of (sizes, kinds, seeds, balance), 64 bits well mixed. The order is arbitrary, but the same on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Space(u64);

impl Space {
    /// The vectors' own coordinates.
    pub(super) fn plain(dim: usize) -> Self {
        Self(SplitMix::fold(0x7661_6C75, dim as u64))
    }

    /// This one after a further map, which `numbers` tell from all others.
    pub(super) fn then(self, numbers: impl IntoIterator<Item = u64>) -> Self {
        Self(numbers.into_iter().fold(self.0, SplitMix::fold))
    }
}
