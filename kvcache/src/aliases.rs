//! Names of quant.cpp's KV types, for codecs of ours that are nearest to them.
//!
//! Underscores and dashes mean the same, and a leading `tq-` (quant.cpp's names inside llama.cpp) is left out.

/// One of quant.cpp's names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alias {
    name: &'static str,
    /// Ours.
    pub codec: &'static str,
    differs: &'static str,
}

impl Alias {
    /// One sentence on what is meant.
    pub fn note(&self) -> String {
        format!("{} of quant.cpp is {} here: {}", self.name, self.codec, self.differs)
    }
}

const TURBO: &str =
    "the same rotation and Lloyd-Max codes, with signs that are random and a scale fitted to the norm";
const TURBO_PAPER: &str =
    "TurboQuant for inner products as its paper has it; theirs joins PolarQuant and QJL at 7 bits";
const OUTLIERS: &str = "balanced channels take the place of outliers kept aside";

/// Name, without `tq-` and with underscores, then ours.
const ALIASES: [Alias; 24] = [
    alias("turbo_kv_1b", "turbo-mse-1", TURBO),
    alias("turbo_kv_2b", "turbo-mse-2", "codes of 2 bits; theirs are two signs of 1 bit"),
    alias("turbo_kv_3b", "turbo-mse-3", TURBO),
    alias("turbo_kv_4b", "turbo-mse-4", TURBO),
    alias(
        "turbo_kv_5b",
        "planes-5",
        "uniform codes in balanced pages; their Lloyd-Max codes of 5 bits have no counterpart",
    ),
    alias("turbo_kv_5b_fast", "planes-5", "5 bits take 5 bits; theirs are stored as bytes"),
    alias("turbo_kv_3bo", "planes-3", OUTLIERS),
    alias("turbo_kv_4bo", "planes-4", OUTLIERS),
    alias("turbo_3b", "turbo-prod-3", TURBO_PAPER),
    alias("turbo_4b", "turbo-prod-4", TURBO_PAPER),
    alias("turbo3", "turbo-prod-3", TURBO_PAPER),
    alias("turbo4", "turbo-prod-4", TURBO_PAPER),
    alias("polar_3b", "polar-4", POLAR),
    alias("polar_4b", "polar-4", POLAR),
    alias("polar3", "polar-4", POLAR),
    alias("polar4", "polar-4", POLAR),
    alias("qjl_1b", "qjl-1", QJL),
    alias("qjl1", "qjl-1", QJL),
    alias("uniform_2b", "uniform-2", UNIFORM),
    alias("uniform2", "uniform-2", UNIFORM),
    alias("uniform_3b", "uniform-3", UNIFORM),
    alias("uniform_4b", "uniform-4", UNIFORM),
    alias("uniform4", "uniform-4", UNIFORM),
    alias("mixed_4b8", "planes-4", OUTLIERS),
];

const POLAR: &str = "PolarQuant as its paper has it, 4-2-2-2 bits after a rotation; theirs has 2 bits of angle and radius and none";
const QJL: &str = "an unbiased estimate from signs of keys alone; theirs compares signs with signs";
const UNIFORM: &str = "one minimum and step for each token";

const fn alias(name: &'static str, codec: &'static str, differs: &'static str) -> Alias {
    Alias { name, codec, differs }
}

/// What a name of quant.cpp means here.
pub(crate) fn find(name: &str) -> Option<&'static Alias> {
    let plain = name.replace('-', "_");
    let plain = plain.strip_prefix("tq_").unwrap_or(&plain);
    ALIASES.iter().find(|alias| alias.name == plain)
}

#[cfg(test)]
mod tests {
    use super::{ALIASES, find};
    use crate::{CodecRef, Form, Policy};

    #[test]
    fn every_alias_means_a_codec() {
        for alias in &ALIASES {
            let codec = CodecRef::find(alias.codec).unwrap();
            let parsed = Policy::parse(alias.name).unwrap();
            assert_eq!((parsed.policy.key, parsed.policy.value), (Form::Coded(codec), Form::F16));
            assert!(parsed.notes[0].contains(alias.name), "{:?}", parsed.notes);
            let parsed = Policy::parse(&format!("k={0},v={0}", alias.name)).unwrap();
            assert_eq!((parsed.policy.value, parsed.notes.len()), (Form::Coded(codec), 2));
        }
        assert_eq!(find("tq-turbo-3b").unwrap().codec, "turbo-prod-3");
        assert_eq!(find("turbo-kv-4b").unwrap().codec, "turbo-mse-4");
        assert!(find("turbo5").is_none());
    }
}
