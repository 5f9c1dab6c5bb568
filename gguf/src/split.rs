//! Models that are split over several files: their names, and whether the parts belong together.

use std::path::{Path, PathBuf};

use crate::file::in_part;
use crate::limits::MAX_PARTS;
use crate::parse::Part;
use crate::{Error, Result, Value};

/// The place of a part, from 0.
pub(crate) const NO_KEY: &str = "split.no";
/// How many parts there are.
pub(crate) const COUNT_KEY: &str = "split.count";
/// Tensors of all parts together.
pub(crate) const TENSORS_KEY: &str = "split.tensors.count";

/// The file name of a part, `index` counted from 0.
///
/// ```
/// assert_eq!(quant_gguf::split::name("model", 0, 3), "model-00001-of-00003.gguf");
/// ```
pub fn name(stem: &str, index: usize, count: usize) -> String {
    format!("{stem}-{:05}-of-{count:05}.gguf", index.saturating_add(1))
}

/// Stem, index from 0 and count of a file name like `model-00001-of-00003.gguf`; `None` for other names.
///
/// ```
/// assert_eq!(quant_gguf::split::parse_name("model-00002-of-00003.gguf"), Some(("model", 1, 3)));
/// assert_eq!(quant_gguf::split::parse_name("model.gguf"), None);
/// ```
pub fn parse_name(file_name: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = file_name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| {
        let plain = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (number, count) = (usize::from(digits(number)?), usize::from(digits(count)?));
    (1..=count).contains(&number).then(|| (stem, number - 1, count))
}

/// All files of the model that `path` is a part of; only itself if its name speaks of no parts.
pub(crate) fn siblings(path: &Path) -> Result<Vec<PathBuf>> {
    let Some((stem, _, count)) = path.file_name().and_then(|file| parse_name(file.to_str()?)) else {
        return Ok(vec![path.to_owned()]);
    };
    if count > MAX_PARTS {
        return Err(Error::TooManyParts { count });
    }
    Ok((0..count).map(|index| path.with_file_name(name(stem, index, count))).collect())
}

/// The parts are all of one model, complete and in order.
pub(crate) fn check(parts: &[Part]) -> Result<()> {
    let given = parts.len();
    for (index, part) in parts.iter().enumerate() {
        let check = || {
            if let Some(expected) = number(part, COUNT_KEY)?
                && expected != given as u64
                && (expected > 1 || given > 1)
            {
                return Err(Error::PartCount { given, expected });
            }
            match number(part, NO_KEY)? {
                Some(found) if found != index as u64 => Err(Error::PartOrder { found, expected: index }),
                _ => Ok(()),
            }
        };
        check().map_err(|cause| in_part(index, given, cause))?;
    }
    let first = parts.first().ok_or(Error::PartCount { given: 0, expected: 1 })?;
    let found = parts.iter().map(|part| part.tensors.len() as u64).sum();
    match number(first, TENSORS_KEY)? {
        Some(expected) if expected != found => Err(Error::PartTensors { found, expected }),
        _ => Ok(()),
    }
}

/// A key whose value is a number that is not negative.
fn number(part: &Part, key: &str) -> Result<Option<u64>> {
    let Some(value) = part.get(key) else { return Ok(None) };
    let wrong = |value: Value<'_>| Error::WrongType {
        key: key.to_owned(),
        expected: "u64",
        found: value.type_name(),
    };
    let integer = value.as_integer().ok_or_else(|| wrong(value))?;
    let fits = u64::try_from(integer);
    fits.map(Some).map_err(|_| Error::OutOfRange { key: key.to_owned(), expected: "u64", value: integer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts() {
        assert_eq!(parse_name("a-b-00003-of-00003.gguf"), Some(("a-b", 2, 3)));
        assert_eq!(parse_name("-00001-of-00001.gguf"), Some(("", 0, 1)));
        for other in [
            "a-00004-of-00003.gguf",
            "a-00000-of-00003.gguf",
            "a-0001-of-00003.gguf",
            "a-+0001-of-00003.gguf",
            "a-00001-of-00003.bin",
            "a-00001-of-99999.gguf",
            "a00001-of-00003.gguf",
        ] {
            let parsed = parse_name(other);
            assert!(parsed.is_none(), "{other}: {parsed:?}");
        }
        assert_eq!(parse_name(&name("x", 9, 12)), Some(("x", 9, 12)));
    }
}
