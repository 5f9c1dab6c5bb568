//! Models that are split over files: found from any part, complete, in order, and merged again.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{bytes, sample};
use quant_gguf::{Bytes, Error, Format, GgmlType, Gguf, Writer, split};

/// A folder of its own in the build's scratch space.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn parts(max_bytes: u64) -> Vec<Vec<u8>> {
    let whole = Gguf::from_bytes(vec![sample(Format::V3, true).into()]).unwrap();
    Writer::copy_of(&whole).unwrap().split(max_bytes).unwrap().into_iter().map(bytes).collect()
}

fn open(parts: &[Vec<u8>]) -> Result<Gguf, Error> {
    Gguf::from_bytes(parts.iter().cloned().map(Bytes::from).collect())
}

#[test]
fn split_and_merge_gives_the_file_back() {
    let original = sample(Format::V3, true);
    for (max_bytes, expected) in [(0, 5), (20, 4), (50, 3), (u64::MAX, 1)] {
        let parts = parts(max_bytes);
        assert_eq!(parts.len(), expected, "{max_bytes}");
        let model = open(&parts).unwrap();
        assert_eq!(model.part_count(), expected);
        assert_eq!(model.require_u32("split.count").unwrap() as usize, expected);
        assert_eq!(model.tensor_count(), 5);
        assert_eq!(model.tensor("q8").unwrap().bytes[67], 67);
        assert_eq!(model.tensors().map(|info| info.part).max(), Some(expected - 1));
        if expected > 1 {
            assert_eq!(bytes(Writer::copy_of(&model).unwrap()), original);
        }
    }
}

#[test]
fn any_part_opens_all() {
    let folder = folder("any_part_opens_all");
    let parts = parts(50);
    let names: Vec<_> = (0..parts.len()).map(|i| folder.join(split::name("model", i, parts.len()))).collect();
    names.iter().zip(&parts).for_each(|(path, part)| fs::write(path, part).unwrap());
    let total: u64 = parts.iter().map(|part| part.len() as u64).sum();
    for path in &names {
        let mut reports = Vec::new();
        let model = Gguf::open_with(path, &mut |done, total| reports.push((done, total))).unwrap();
        assert_eq!((model.part_count(), model.file_bytes()), (3, total));
        assert_eq!(model.tensor("q4k").unwrap().bytes.len(), 144);
        assert!(reports.is_sorted() && reports.last() == Some(&(total, total)), "{reports:?}");
    }
    fs::remove_file(&names[1]).unwrap();
    let error = Gguf::open(&names[0]).unwrap_err();
    assert!(matches!(&error, Error::Open { path, .. } if *path == names[1]), "{error}");
    // Under a name that says nothing of parts the others can't be found.
    let renamed = folder.join("renamed.gguf");
    fs::rename(&names[0], &renamed).unwrap();
    assert!(matches!(Gguf::open(&renamed), Err(Error::PartCount { given: 1, expected: 3 })));
}

#[test]
fn parts_that_do_not_belong_together() {
    let mut parts = parts(50);
    assert!(matches!(open(&parts[..1]), Err(Error::PartCount { given: 1, expected: 3 })));
    let inner = |result: Result<Gguf, Error>| match result.unwrap_err() {
        Error::Part { part, count: _, cause } => (part, *cause),
        other => panic!("{other}"),
    };
    assert!(matches!(inner(open(&parts[..2])), (1, Error::PartCount { given: 2, expected: 3 })));
    parts.swap(1, 2);
    assert!(matches!(inner(open(&parts)), (2, Error::PartOrder { found: 2, expected: 1 })));
    parts.swap(1, 2);
    parts[2].truncate(10);
    assert!(matches!(inner(open(&parts)), (3, Error::Truncated { .. })));
}

#[test]
fn a_tensor_in_two_parts_or_too_few_tensors() {
    let part = |index: u16, tensors: i32, name: &str| {
        let mut writer = Writer::new();
        writer.set("split.no", index).unwrap();
        writer.set("split.count", 2u16).unwrap();
        writer.set("split.tensors.count", tensors).unwrap();
        writer.tensor(name, GgmlType::F32, &[1], vec![0; 4]).unwrap();
        bytes(writer)
    };
    assert!(open(&[part(0, 2, "a"), part(1, 2, "b")]).is_ok());
    assert!(matches!(open(&[part(0, 2, "a"), part(1, 2, "a")]), Err(Error::DuplicateTensor { .. })));
    let few = open(&[part(0, 3, "a"), part(1, 3, "b")]);
    assert!(matches!(few, Err(Error::PartTensors { found: 2, expected: 3 })));
    let negative = open(&[part(0, -1, "a"), part(1, -1, "b")]);
    assert!(matches!(negative, Err(Error::OutOfRange { value: -1, .. })));
}

#[test]
fn an_empty_file_is_an_error() {
    let path = folder("an_empty_file").join("empty.gguf");
    fs::write(&path, b"").unwrap();
    assert!(matches!(Gguf::open(&path), Err(Error::Truncated { .. })));
}

#[test]
fn files_open_as_bytes_too() {
    let path = folder("files_open_as_bytes").join("snapshot.bin");
    fs::write(&path, b"12345").unwrap();
    let bytes = Bytes::open(&path).unwrap();
    assert_eq!(&*bytes.slice(1..3).unwrap(), b"23");
    assert_eq!(bytes.is_mapped(), cfg!(feature = "mmap"));
    assert!(matches!(Bytes::open(path.with_extension("absent")), Err(Error::Open { .. })));
}
