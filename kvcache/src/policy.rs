//! What the cache keeps of keys and values, and in which codecs: the grammar of `--kv`.
//!
//! ```text
//! POLICY  = PRESET [DROP] | ALIAS | SETTING ("," SETTING)* [DROP]
//! SETTING = "k=" CODEC | "v=" CODEC | "window=" N | "sinks=" N | "boundary=" BITS | "sliding=f16"
//!         | "tiers=" CODEC "@" AGE ("/" CODEC "@" AGE)*
//! DROP    = ",drop=" BITS
//! CODEC   = "f32" | "f16" | a codec of the registry | 2..8, the bits of a plane codec | ALIAS
//! ```
//!
//! `k` and `v` may be left out where the first tier begins at age 0.

use crate::{Error, PAGE, aliases, presets};
use quant_kernels::codecs::{self, CodecEntry};
use std::fmt;
use std::str::FromStr;

/// A codec of the registry.
#[derive(Clone, Copy)]
pub struct CodecRef(&'static CodecEntry);

impl CodecRef {
    /// The codec of this name: a registry name, or a number of bits for the plane codec of so many.
    pub fn find(name: &str) -> Option<Self> {
        let planes = |bits: &str| codecs::entry(&format!("planes-{bits}"));
        let digits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
        if digits { planes(name) } else { codecs::entry(name) }.map(Self)
    }

    /// Its name in the registry.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// What makes it.
    pub fn entry(self) -> &'static CodecEntry {
        self.0
    }

    /// The bits that the name ends in; `None` for codecs in ggml's layouts.
    pub fn bits(self) -> Option<usize> {
        self.name().rsplit_once('-')?.1.parse().ok()
    }

    /// The bits of a plane codec.
    pub fn planes(self) -> Option<usize> {
        self.name().strip_prefix("planes-")?.parse().ok()
    }

    /// The codec of the same family with `more` bits, or with as many as the family has.
    pub(crate) fn raised(self, more: usize) -> Self {
        let Some((family, bits)) = self.name().rsplit_once('-').zip(self.bits()).map(|((f, _), b)| (f, b))
        else {
            return self;
        };
        (bits..=bits.saturating_add(more).min(8))
            .rev()
            .find_map(|bits| codecs::entry(&format!("{family}-{bits}")))
            .map_or(self, Self)
    }
}

impl PartialEq for CodecRef {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for CodecRef {}

impl fmt::Debug for CodecRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How keys or values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Single precision, the reference; keys and values together or neither.
    F32,
    /// Half precision.
    F16,
    /// In a codec, once the page is sealed.
    Coded(CodecRef),
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Coded(codec) => codec.name(),
        })
    }
}

/// From an age on, keys and values are kept in another codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// Positions between a page's end and the beginning of the page that is being written; whole pages.
    pub age: usize,
    /// The codec from then on.
    pub codec: CodecRef,
}

/// How a cache keeps keys and values.
///
/// A query sees a page coded if so many positions lie between the page's end and the page of the query, and as it was
/// written otherwise: by position alone, so that chunks, batches and forks do not change what it sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Keys of sealed pages.
    pub key: Form,
    /// Values of sealed pages.
    pub value: Form,
    /// Positions before the current page that stay as they were written; whole pages.
    pub window: usize,
    /// Positions at the beginning of a sequence that are kept at 8 bits; whole pages.
    pub sinks: usize,
    /// Bits that codecs have more on the first two and the last two layers; of fewer than twelve layers on one at either
    /// end, of fewer than six on none.
    pub boundary: usize,
    /// Layers with a sliding window of up to [`presets::SLIDING_F16`] positions stay in f16.
    pub sliding_f16: bool,
    /// Further codecs, by rising age.
    pub tiers: Vec<Tier>,
    /// When the budget is full, pages in planes may lose their low ones, down to so many bits: 2, 4 or 6. What is
    /// computed then depends on memory, see [`KvCache::is_reduced`](crate::KvCache::is_reduced).
    pub drop: Option<usize>,
}

/// A policy, and what its text should be told about: aliases whose meaning is not quite that of their origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The policy.
    pub policy: Policy,
    /// One sentence for each alias.
    pub notes: Vec<String>,
}

/// Tiers there may be after the first.
const MAX_TIERS: usize = 4;

impl Policy {
    /// Everything in f16: the default.
    pub const F16: Self = Self::plain(Form::F16);
    /// Everything in f32: the reference.
    pub const F32: Self = Self::plain(Form::F32);

    const fn plain(form: Form) -> Self {
        Self {
            key: form,
            value: form,
            window: 0,
            sinks: 0,
            boundary: 0,
            sliding_f16: false,
            tiers: Vec::new(),
            drop: None,
        }
    }

    /// Reads a policy.
    ///
    /// # Errors
    /// [`Error::Policy`]: which part is wrong, where it begins, and what may stand there.
    pub fn parse(text: &str) -> Result<Parsed, Error> {
        let mut notes = Vec::new();
        // A preset is a text without commas, to which only this may be added.
        if let Some((preset, drop)) = text.split_once(",drop=")
            && let Some(preset) = presets::text(preset)
        {
            let drop = Some(dropped(drop, text.len() - drop.len())?);
            let policy = Self { drop, ..settings(preset, &mut notes)? };
            policy.check()?;
            return Ok(Parsed { policy, notes });
        }
        let policy = match (presets::text(text), aliases::find(text)) {
            (Some(preset), _) => settings(preset, &mut notes)?,
            (None, Some(alias)) => {
                notes.push(alias.note());
                notes.push(
                    "quant.cpp compresses keys alone under this name, so values stay in f16".to_owned(),
                );
                Self { key: Form::Coded(codec(alias.codec, 0, &mut notes)?), ..Self::F16 }
            }
            (None, None) => settings(text, &mut notes)?,
        };
        Ok(Parsed { policy, notes })
    }

    /// Whether some page is ever kept otherwise than it was written.
    pub fn compresses(&self) -> bool {
        [self.key, self.value].iter().any(|form| matches!(form, Form::Coded(_)))
    }

    /// Whether keys are in a codec that their balance changes.
    pub fn uses_balance(&self) -> bool {
        let planes = |codec: &CodecRef| codec.planes().is_some();
        matches!(&self.key, Form::Coded(codec) if planes(codec))
            || self.tiers.iter().any(|t| planes(&t.codec))
    }

    /// Whether the parts fit together.
    ///
    /// # Errors
    /// [`Error::PolicyParts`].
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |reason: &'static str| Err(Error::PolicyParts { reason });
        if (self.key == Form::F32) != (self.value == Form::F32) {
            return wrong("f32 is for keys and values together");
        }
        if self.tiers.len() > MAX_TIERS {
            return wrong("there are more than 4 tiers after the first");
        }
        if !self.tiers.is_empty() && !self.compresses() {
            return wrong("tiers follow a codec; for f16 up to an age there is window=N");
        }
        let lens = [self.window, self.sinks];
        if lens.iter().chain(self.tiers.iter().map(|tier| &tier.age)).any(|len| !len.is_multiple_of(PAGE)) {
            return wrong("window, sinks and ages of tiers are multiples of 128");
        }
        let ages = std::iter::once(self.window).chain(self.tiers.iter().map(|tier| tier.age));
        if !ages.is_sorted_by(|a, b| a < b) {
            return wrong("ages of tiers rise, from above the window on");
        }
        if self.boundary > 6 {
            return wrong("boundary is at most 6 bits");
        }
        self.drop.map_or(Ok(()), |bits| self.check_drop(bits))
    }

    fn check_drop(&self, bits: usize) -> Result<(), Error> {
        let wrong = |reason: &'static str| Err(Error::PolicyParts { reason });
        let planes = |form: &Form| if let Form::Coded(codec) = form { codec.planes() } else { None };
        if !matches!(bits, 2 | 4 | 6) {
            return wrong("drop is 2, 4 or 6 bits: planes have two bits each");
        }
        if !self.tiers.is_empty() {
            return wrong("drop and tiers both cut planes: take one of them");
        }
        match [self.key, self.value].iter().filter_map(planes).max() {
            None => wrong("drop is for planes: neither keys nor values are in a codec that has them"),
            Some(most) if most + self.boundary <= bits => {
                wrong("there is nothing to drop: keys and values have no more bits than that")
            }
            Some(_) => Ok(()),
        }
    }
}

impl From<&Self> for Policy {
    fn from(policy: &Self) -> Self {
        policy.clone()
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::F16
    }
}

impl FromStr for Policy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(Self::parse(text)?.policy)
    }
}

/// The shortest text that means the policy: a preset's name, or settings in the order of the grammar.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(bits) = self.drop {
            return write!(f, "{},drop={bits}", Self { drop: None, ..self.clone() });
        }
        if let Some(name) = presets::name_of(self) {
            return f.write_str(name);
        }
        write!(f, "k={},v={}", self.key, self.value)?;
        for (name, n) in [("window", self.window), ("sinks", self.sinks), ("boundary", self.boundary)] {
            if n > 0 {
                write!(f, ",{name}={n}")?;
            }
        }
        if self.sliding_f16 {
            f.write_str(",sliding=f16")?;
        }
        for (i, tier) in self.tiers.iter().enumerate() {
            let before = if i == 0 { ",tiers=" } else { "/" };
            write!(f, "{before}{}@{}", tier.codec.name(), tier.age)?;
        }
        Ok(())
    }
}

/// Settings as they were given.
#[derive(Default)]
struct Given {
    key: Option<Form>,
    value: Option<Form>,
    window: Option<usize>,
    sinks: Option<usize>,
    boundary: Option<usize>,
    sliding: Option<()>,
    tiers: Option<Vec<Tier>>,
    drop: Option<usize>,
}

fn settings(text: &str, notes: &mut Vec<String>) -> Result<Policy, Error> {
    let mut given = Given::default();
    let mut at = 0;
    for part in text.split(',') {
        let Some((name, value)) = part.split_once('=') else {
            let problem = if at == 0 { "is no preset" } else { "is no setting" };
            return Err(wrong(at, part, problem, &allowed_policies()));
        };
        let place = at + name.len() + 1;
        let twice = || wrong(at, part, "is given twice", "each setting once");
        match name {
            "k" => put(&mut given.key, form(value, place, notes)?, twice)?,
            "v" => put(&mut given.value, form(value, place, notes)?, twice)?,
            "window" => put(&mut given.window, pages(value, place)?, twice)?,
            "sinks" => put(&mut given.sinks, pages(value, place)?, twice)?,
            "boundary" => put(&mut given.boundary, bits(value, place)?, twice)?,
            "sliding" if value == "f16" => put(&mut given.sliding, (), twice)?,
            "sliding" => return Err(wrong(place, value, "is not known", "sliding=f16")),
            "tiers" => put(&mut given.tiers, tiers(value, place, notes)?, twice)?,
            "drop" => put(&mut given.drop, dropped(value, place)?, twice)?,
            _ => return Err(wrong(at, name, "is no setting", SETTINGS)),
        }
        at += part.len() + 1;
    }
    let mut tiers = given.tiers.unwrap_or_default();
    if tiers.first().is_some_and(|tier| tier.age == 0) {
        let first = Form::Coded(tiers.remove(0).codec);
        if given.key.is_some_and(|key| key != first) || given.value.is_some_and(|value| value != first) {
            let reason = "k and v are what the tier at age 0 says: leave one of them out";
            return Err(Error::PolicyParts { reason });
        }
        given.key = Some(first);
        given.value = Some(first);
    }
    let (Some(key), Some(value)) = (given.key, given.value) else {
        let missing = if given.key.is_none() { "k=CODEC" } else { "v=CODEC" };
        return Err(wrong(text.len(), "", "ends too early", missing));
    };
    let policy = Policy {
        key,
        value,
        window: given.window.unwrap_or(0),
        sinks: given.sinks.unwrap_or(0),
        boundary: given.boundary.unwrap_or(0),
        sliding_f16: given.sliding.is_some(),
        tiers,
        drop: given.drop,
    };
    policy.check()?;
    Ok(policy)
}

const SETTINGS: &str = "k, v, window, sinks, boundary, sliding, tiers, drop";

fn allowed_policies() -> String {
    let names: Vec<&str> = presets::names().collect();
    format!(
        "{}, or k=CODEC,v=CODEC[,window=N][,sinks=N][,boundary=BITS][,tiers=CODEC@AGE/...][,drop=BITS]",
        names.join(", ")
    )
}

fn allowed_codecs() -> String {
    let names: Vec<&str> = codecs::registry().iter().map(|entry| entry.name).collect();
    format!("f16, f32, 2 to 8 for planes of so many bits, or {}", names.join(", "))
}

fn wrong(at: usize, found: &str, problem: &'static str, allowed: &str) -> Error {
    // A long text from outside is no help in a message.
    let found: String = found.chars().take(40).collect();
    Error::Policy { at: at + 1, found, problem, allowed: allowed.to_owned() }
}

fn put<T>(slot: &mut Option<T>, value: T, twice: impl Fn() -> Error) -> Result<(), Error> {
    if slot.replace(value).is_some() { Err(twice()) } else { Ok(()) }
}

fn codec(name: &str, at: usize, notes: &mut Vec<String>) -> Result<CodecRef, Error> {
    if let Some(codec) = CodecRef::find(name) {
        return Ok(codec);
    }
    let unknown = || wrong(at, name, "is no codec", &allowed_codecs());
    let alias = aliases::find(name).ok_or_else(unknown)?;
    notes.push(alias.note());
    CodecRef::find(alias.codec).ok_or_else(unknown)
}

fn form(name: &str, at: usize, notes: &mut Vec<String>) -> Result<Form, Error> {
    Ok(match name {
        "f32" => Form::F32,
        "f16" => Form::F16,
        name => Form::Coded(codec(name, at, notes)?),
    })
}

fn number(text: &str, at: usize, allowed: &str) -> Result<usize, Error> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.ok_or_else(|| wrong(at, text, "is no such number", allowed))
}

/// Positions: a multiple of 128.
fn pages(text: &str, at: usize) -> Result<usize, Error> {
    const ALLOWED: &str = "a multiple of 128 positions (a page is sealed whole)";
    let n = number(text, at, ALLOWED)?;
    if n.is_multiple_of(PAGE) { Ok(n) } else { Err(wrong(at, text, "is no such number", ALLOWED)) }
}

fn bits(text: &str, at: usize) -> Result<usize, Error> {
    const ALLOWED: &str = "0 to 6 further bits";
    number(text, at, ALLOWED)
        .and_then(|n| if n <= 6 { Ok(n) } else { Err(wrong(at, text, "is no such number", ALLOWED)) })
}

/// Bits that planes may be dropped down to.
fn dropped(text: &str, at: usize) -> Result<usize, Error> {
    const ALLOWED: &str = "2, 4 or 6 bits";
    number(text, at, ALLOWED).and_then(|n| {
        if matches!(n, 2 | 4 | 6) { Ok(n) } else { Err(wrong(at, text, "is no such number", ALLOWED)) }
    })
}

fn tiers(text: &str, mut at: usize, notes: &mut Vec<String>) -> Result<Vec<Tier>, Error> {
    let mut tiers = Vec::new();
    for part in text.split('/') {
        let Some((name, age)) = part.split_once('@') else {
            return Err(wrong(at, part, "is no tier", "CODEC@AGE, as 4@1024"));
        };
        let age = pages(age, at + name.len() + 1)?;
        if matches!(name, "f16" | "f32") {
            return Err(wrong(
                at,
                name,
                "is no codec of a tier",
                "a codec; for f16 up to an age there is window=N",
            ));
        }
        tiers.push(Tier { age, codec: codec(name, at, notes)? });
        at += part.len() + 1;
    }
    Ok(tiers)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
