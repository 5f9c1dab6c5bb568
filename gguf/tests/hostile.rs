//! Files that lie: each fault is a typed error, and no change of a valid file makes the reader panic.

mod common;
#[path = "common/exercise.rs"]
mod exercise;

use common::sample;
use exercise::exercise;
use quant_gguf::limits::{MAX_ARRAY_DEPTH, MAX_KEY_BYTES};
use quant_gguf::{Error, Format, Gguf};

/// A file made byte by byte, of version 3.
#[derive(Clone)]
struct Raw(Vec<u8>);

impl Raw {
    fn new(tensors: u64, keys: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(tensors).u64(keys)
    }

    fn u32(self, number: u32) -> Self {
        self.raw(&number.to_le_bytes())
    }

    fn u64(self, number: u64) -> Self {
        self.raw(&number.to_le_bytes())
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn str(self, text: &str) -> Self {
        self.u64(text.len() as u64).raw(text.as_bytes())
    }

    fn tensor(self, name: &str, dims: &[u64], ty: u32, offset: u64) -> Self {
        let head = self.str(name).u32(dims.len() as u32);
        dims.iter().fold(head, |raw, &dim| raw.u64(dim)).u32(ty).u64(offset)
    }

    /// Pads to 32 and adds data.
    fn data(mut self, len: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + len, 0);
        self
    }

    fn open(self) -> Result<Gguf, Error> {
        exercise(&self.0);
        Gguf::from_bytes(vec![self.0.into()])
    }

    fn fails(self) -> Error {
        self.open().unwrap_err()
    }
}

const U8: u32 = 0;
const U32: u32 = 4;
const BOOL: u32 = 7;
const STR: u32 = 8;
const ARRAY: u32 = 9;
const F32: u32 = 0;
const Q8_0: u32 = 8;

#[test]
fn every_truncation_is_an_error() {
    for format in [Format::V1, Format::V2, Format::V3, Format::V3BigEndian] {
        let file = sample(format, format != Format::V3BigEndian);
        let model = Gguf::from_bytes(vec![file.clone().into()]).unwrap();
        let end = model.tensors().filter_map(|info| Some(info.range()?.end)).max().unwrap() as usize;
        assert!(end < file.len(), "the sample ends with padding");
        for len in 0..file.len() {
            assert_eq!(exercise(&file[..len]), len >= end, "{format:?} cut to {len} of {end}");
        }
    }
}

#[test]
fn no_single_changed_byte_makes_it_panic() {
    for (_, file) in common::seeds() {
        for at in 0..file.len() {
            let mut changed = file.clone();
            for value in [0, 1, 0x7f, 0x80, 0xff, file[at].wrapping_add(1), file[at] ^ 0x20] {
                changed[at] = value;
                exercise(&changed);
            }
        }
    }
}

#[test]
fn the_seed_corpus_runs() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/parse");
    let mut accepted = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        accepted += usize::from(exercise(&std::fs::read(entry.unwrap().path()).unwrap()));
    }
    assert!(accepted >= 5, "{accepted}");
}

#[test]
fn not_gguf_at_all() {
    let open = |bytes: &'static [u8]| Gguf::from_bytes(vec![bytes.into()]).unwrap_err();
    assert!(matches!(open(b""), Error::Truncated { .. }));
    assert!(matches!(open(b"ggjt\x03\0\0\0"), Error::Magic { .. }));
    assert!(matches!(open(b"GGUF\x04\0\0\0"), Error::Version { found: 4 }));
    assert!(matches!(open(b"GGUF\0\0\0\0"), Error::Version { found: 0 }));
    assert!(matches!(Gguf::from_bytes(vec![]).unwrap_err(), Error::PartCount { given: 0, .. }));
    let missing = Gguf::open("no/such/model.gguf").unwrap_err();
    assert!(missing.to_string().contains("no/such/model.gguf"), "{missing}");
}

#[test]
fn lengths_and_counts_that_lie() {
    for huge in [1000, u64::from(u32::MAX), i64::MAX as u64, u64::MAX] {
        let truncated = |raw: Raw| {
            let error = raw.fails();
            assert!(matches!(error, Error::Truncated { .. }), "{huge}: {error}");
        };
        truncated(Raw::new(0, huge));
        truncated(Raw::new(huge, 0));
        truncated(Raw::new(0, 1).str("k").u32(STR).u64(huge));
        for element in [U8, U32, BOOL, STR, ARRAY] {
            truncated(Raw::new(0, 1).str("k").u32(ARRAY).u32(element).u64(huge).raw(&[0; 16]));
        }
        let error = Raw::new(0, 1).u64(huge).raw(&[0; 40]).fails();
        assert!(matches!(error, Error::Truncated { .. } | Error::TooLong { .. }), "{error}");
    }
    let long = "k".repeat(MAX_KEY_BYTES as usize + 1);
    assert!(matches!(Raw::new(0, 1).str(&long).u32(U8).raw(&[0]).fails(), Error::TooLong { .. }));
    assert!(Raw::new(0, 1).str(&long[1..]).u32(U8).raw(&[0]).open().is_ok());
}

#[test]
fn metadata_faults() {
    let bad = Raw::new(0, 1).u64(2).raw(b"\xff\xfe").u32(U8).raw(&[0; 8]).fails();
    assert!(matches!(bad, Error::Utf8 { what: "a metadata key", offset: 24 }), "{bad}");
    let bad = Raw::new(0, 1).str("k").u32(STR).u64(1).raw(b"\x80").fails();
    assert!(matches!(bad, Error::Utf8 { what: "a string value", .. }), "{bad}");
    let bad = Raw::new(0, 1).str("k").u32(ARRAY).u32(STR).u64(2).str("fine").u64(1).raw(b"\xc3").fails();
    assert!(matches!(bad, Error::Utf8 { .. }), "{bad}");
    assert!(matches!(Raw::new(0, 1).str("k").u32(13).u64(0).fails(), Error::ValueType { id: 13, .. }));
    let bad = Raw::new(0, 1).str("k").u32(ARRAY).u32(99).u64(0).fails();
    assert!(matches!(bad, Error::ValueType { id: 99, .. }));
    assert!(matches!(Raw::new(0, 1).str("k").u32(BOOL).raw(&[2]).fails(), Error::Bool { found: 2, .. }));
    let bad = Raw::new(0, 2).str("k").u32(U8).raw(&[1]).str("k").u32(BOOL).raw(&[1]).fails();
    assert!(matches!(&bad, Error::DuplicateKey { key } if key == "k"), "{bad}");
}

#[test]
fn array_depth_is_limited() {
    let nested = |levels: usize| {
        let head = Raw::new(0, 1).str("k").u32(ARRAY);
        (1..levels).fold(head, |raw, _| raw.u32(ARRAY).u64(1)).u32(U8).u64(1).raw(&[7])
    };
    let deepest = nested(MAX_ARRAY_DEPTH).open().unwrap();
    let mut array = deepest.require_array("k").unwrap();
    for _ in 1..MAX_ARRAY_DEPTH {
        let inner = array.arrays().unwrap().next().unwrap();
        array = inner;
    }
    assert_eq!(array.ints().unwrap().collect::<Vec<_>>(), [7]);
    assert!(matches!(nested(MAX_ARRAY_DEPTH + 1).fails(), Error::ArrayDepth { .. }));
    // Deep enough to overflow a stack, if anything recursed that far.
    assert!(matches!(nested(500_000).fails(), Error::ArrayDepth { .. }));
}

#[test]
fn alignment_faults() {
    let aligned = |ty: u32, bytes: &[u8]| Raw::new(0, 1).str("general.alignment").u32(ty).raw(bytes).open();
    for bad in [0u32, 3, 48, 1 << 21, u32::MAX] {
        assert!(matches!(aligned(U32, &bad.to_le_bytes()).unwrap_err(), Error::Alignment { .. }), "{bad}");
    }
    assert_eq!(aligned(U32, &1u32.to_le_bytes()).unwrap().alignment(), 1);
    assert_eq!(aligned(U32, &4096u32.to_le_bytes()).unwrap().alignment(), 4096);
    assert!(matches!(aligned(BOOL, &[1]).unwrap_err(), Error::WrongType { .. }));
}

#[test]
fn tensor_shape_faults() {
    let one = |dims: &[u64], ty| Raw::new(1, 0).tensor("t", dims, ty, 0).data(4096).fails();
    assert!(matches!(one(&[], F32), Error::Dimensions { found: 0, .. }));
    assert!(matches!(one(&[1; 5], F32), Error::Dimensions { found: 5, .. }));
    assert!(matches!(one(&[4, 0], F32), Error::Shape { .. }));
    assert!(matches!(one(&[1 << 32, 1 << 32], F32), Error::Shape { .. }));
    assert!(matches!(one(&[i64::MAX as u64], F32), Error::Shape { .. }));
    assert!(matches!(one(&[u64::MAX], 9999), Error::Shape { .. }));
    assert!(matches!(one(&[1 << 40], F32), Error::OutOfFile { .. }));
    // The product is whole blocks, the rows are not.
    assert!(matches!(one(&[16, 2], Q8_0), Error::RowLength { cols: 16, block: 32, .. }));
}

#[test]
fn tensor_place_faults() {
    let one = |offset| Raw::new(1, 0).tensor("t", &[8], F32, offset).data(64);
    assert!(one(32).open().is_ok());
    assert!(matches!(one(64).fails(), Error::OutOfFile { .. }));
    assert!(matches!(one(16).fails(), Error::Misaligned { offset: 16, alignment: 32, .. }));
    assert!(matches!(one(u64::MAX - 31).fails(), Error::OutOfFile { .. }));
    let two = |name, first, second| {
        Raw::new(2, 0).tensor("a", &[16], F32, first).tensor(name, &[8], F32, second).data(128).open()
    };
    assert!(two("b", 0, 64).is_ok());
    assert!(two("b", 32, 0).is_ok(), "data need not be in the order of the table");
    assert!(matches!(two("b", 0, 32).unwrap_err(), Error::Overlap { .. }));
    assert!(matches!(two("b", 0, 0).unwrap_err(), Error::Overlap { .. }));
    assert!(matches!(two("a", 0, 64).unwrap_err(), Error::DuplicateTensor { .. }));
}

#[test]
fn an_unknown_type_fails_only_when_asked_for() {
    let raw = Raw::new(2, 0).tensor("new", &[8], 9999, 0).tensor("old", &[8], F32, 32).data(64);
    let model = raw.open().unwrap();
    assert_eq!(model.tensor("old").unwrap().bytes.len(), 32);
    let info = model.tensor_info("new").unwrap();
    assert_eq!((info.type_id, info.ty, info.bytes), (9999, None, None));
    let error = model.tensor("new").unwrap_err();
    assert!(matches!(&error, Error::UnknownType { name, id: 9999 } if name == "new"));
    assert!(error.to_string().contains("\"new\"") && error.to_string().contains("9999"), "{error}");
    let inside = Raw::new(2, 0).tensor("new", &[8], 9999, 32).tensor("old", &[16], F32, 0).data(64);
    assert!(matches!(inside.fails(), Error::Overlap { .. }));
    let same = Raw::new(2, 0).tensor("new", &[8], 9999, 0).tensor("old", &[8], F32, 0).data(64);
    assert!(matches!(same.fails(), Error::Overlap { .. }));
    assert!(matches!(Raw::new(1, 0).tensor("new", &[8], 9999, 0).fails(), Error::OutOfFile { .. }));
}

#[test]
fn hostile_names_are_escaped_in_messages() {
    let error = Raw::new(0, 1).str("k\u{1b}[2J").u32(99).u64(0).fails();
    assert!(!error.to_string().contains('\u{1b}'), "{error}");
}
