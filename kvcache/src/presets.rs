//! Policies with names: one table.

use crate::Policy;

/// Layers whose sliding window is at most this long stay in f16 under the presets: they are short, and their
/// queries see little else.
pub const SLIDING_F16: usize = 1024;

/// A policy with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// The name.
    pub name: &'static str,
    /// What it stands for, in the grammar of [`Policy`].
    pub policy: &'static str,
    /// What it is for.
    pub about: &'static str,
}

/// All of them, from the largest to the smallest.
pub const PRESETS: [Preset; 8] = [
    Preset { name: "f32", policy: "k=f32,v=f32", about: "the reference" },
    Preset { name: "f16", policy: "k=f16,v=f16", about: "nothing is compressed" },
    Preset {
        name: "8",
        policy: "k=planes-8,v=planes-8,sliding=f16",
        about: "half the bytes, as good as f16",
    },
    Preset { name: "near", policy: "k=planes-6,v=planes-5,sliding=f16", about: "hardly to be told from f16" },
    Preset {
        name: "auto",
        policy: "k=planes-5,v=planes-4,sinks=128,boundary=2,sliding=f16",
        about: "a third of the bytes",
    },
    Preset {
        name: "4",
        policy: "k=planes-4,v=planes-4,sinks=128,boundary=2,sliding=f16",
        about: "three tenths of the bytes",
    },
    Preset {
        name: "3.4",
        policy: "k=planes-4,v=planes-3,sinks=128,sliding=f16",
        about: "a quarter of the bytes, for long contexts",
    },
    Preset {
        name: "2.4",
        policy: "k=planes-3,v=planes-2,sinks=128,sliding=f16",
        about: "a fifth of the bytes, where nothing else fits",
    },
];

/// Another name of a preset.
const EXACT: (&str, &str) = ("exact", "f16");

/// The names that a policy may be given by.
pub fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|preset| preset.name).chain([EXACT.0])
}

/// What a preset stands for.
pub(crate) fn text(name: &str) -> Option<&'static str> {
    let name = if name == EXACT.0 { EXACT.1 } else { name };
    PRESETS.iter().find(|preset| preset.name == name).map(|preset| preset.policy)
}

/// The preset that means this policy.
pub(crate) fn name_of(policy: &Policy) -> Option<&'static str> {
    let same = |text: &str| text.parse::<Policy>().is_ok_and(|preset| preset == *policy);
    PRESETS.iter().find(|preset| same(preset.policy)).map(|preset| preset.name)
}
