//! What is written can be read, in every version and byte order, and written again with the same bytes.

mod common;

use common::{bytes, sample};
use proptest::prelude::*;
use quant_gguf::{Bytes, Data, Encode, Encoder, Error, Format, GgmlType, Gguf, Value, ValueType, Writer};

const FORMATS: [Format; 4] = [Format::V1, Format::V2, Format::V3, Format::V3BigEndian];

fn open(file: &[u8]) -> Gguf {
    Gguf::from_bytes(vec![file.to_vec().into()]).unwrap()
}

#[test]
fn the_sample_reads_back_in_every_format() {
    for format in FORMATS {
        let file = sample(format, format != Format::V3BigEndian);
        let model = open(&file);
        assert_eq!(model.big_endian(), format == Format::V3BigEndian);
        assert_eq!(
            model.version(),
            match format {
                Format::V1 => 1,
                Format::V2 => 2,
                _ => 3,
            }
        );
        assert_eq!(model.alignment(), 64);
        assert_eq!(model.file_bytes(), file.len() as u64);
        for (key, value) in [
            ("a.u8", Value::U8(200)),
            ("a.i8", Value::I8(-100)),
            ("a.u16", Value::U16(60_000)),
            ("a.i16", Value::I16(-30_000)),
            ("a.u32", Value::U32(4_000_000_000)),
            ("a.i32", Value::I32(-2_000_000_000)),
            ("a.u64", Value::U64(u64::MAX)),
            ("a.i64", Value::I64(i64::MIN)),
            ("a.f32", Value::F32(1e-5)),
            ("a.f64", Value::F64(0.1)),
            ("a.bool", Value::Bool(true)),
            ("general.architecture", Value::Str("llama")),
        ] {
            assert_eq!(model.get(key), Some(value), "{format:?} {key}");
        }
        let array = |key| model.require_array(key).unwrap();
        assert_eq!(array("l.str").strs().unwrap().collect::<Vec<_>>(), ["<s>", "", "▁café", "😀"]);
        assert_eq!(array("l.f32").f32s().unwrap().collect::<Vec<_>>(), [0.0, -1.5]);
        assert_eq!(array("l.f64").f32s().unwrap().collect::<Vec<_>>(), [0.25]);
        assert_eq!(array("l.i32").i32s().unwrap().collect::<Vec<_>>(), [1, -2, 3]);
        assert_eq!(array("l.bool").bools().unwrap().collect::<Vec<_>>(), [true, false]);
        assert_eq!(array("l.empty").strs().unwrap().len(), 0);
        let nested = array("l.nested").arrays().unwrap().map(|inner| inner.len()).collect::<Vec<_>>();
        assert_eq!(nested, [2, 0]);
        let one = model.tensor("one").unwrap();
        assert_eq!(*one.bytes, *[1.0f32, 2.0, 3.0].map(f32::to_le_bytes).as_flattened(), "{format:?}");
        let half = model.tensor("half").unwrap();
        assert_eq!((half.ty, &half.dims[..]), (GgmlType::F16, &[2, 2, 1, 1][..]));
        assert_eq!(*half.bytes, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(bytes(Writer::copy_of(&model).unwrap()), file, "{format:?}");
    }
}

#[test]
fn typed_accessors_convert_or_say_why_not() {
    let file = sample(Format::V3, true);
    let model = open(&file);
    assert_eq!(model.u32("a.u8").unwrap(), Some(200));
    assert_eq!(model.u64("a.u16").unwrap(), Some(60_000));
    assert_eq!(model.i32("a.i16").unwrap(), Some(-30_000));
    assert_eq!(model.f32("a.f64").unwrap(), Some(0.1));
    assert_eq!(model.bool("a.bool").unwrap(), Some(true));
    assert_eq!(model.str("general.architecture").unwrap(), Some("llama"));
    assert_eq!(model.u32("absent").unwrap(), None);
    assert!(matches!(model.require_u32("absent"), Err(Error::MissingKey { key }) if key == "absent"));
    assert!(matches!(model.u32("a.i8"), Err(Error::OutOfRange { value: -100, .. })));
    assert!(matches!(model.i32("a.u32"), Err(Error::OutOfRange { .. })));
    let error = model.u32("l.str").unwrap_err().to_string();
    assert_eq!(error, "metadata key \"l.str\" should be u32 but is array of string");
    let error = model.array("a.f32").unwrap_err().to_string();
    assert_eq!(error, "metadata key \"a.f32\" should be array but is f32");
    let error = model.require_array("l.str").unwrap().f32s().err().unwrap().to_string();
    assert_eq!(error, "metadata key \"l.str\" should be array of f32 but is array of string");
    let large = model.require_array("l.u64").unwrap();
    assert!(matches!(large.ints().err(), Some(Error::OutOfRange { .. })));
    assert!(matches!(
        model.require_array("l.i32").unwrap().u32s().err(),
        Some(Error::OutOfRange { value: -2, .. })
    ));
    assert!(matches!(model.tensor("absent"), Err(Error::MissingTensor { .. })));
}

#[test]
fn a_big_endian_file_made_by_hand() {
    let mut file = b"GGUF\0\0\0\x03".to_vec();
    file.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
    file.extend(b"\0\0\0\0\0\0\0\x01k\0\0\0\x02\x12\x34");
    file.extend(b"\0\0\0\0\0\0\0\x01t\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\x00\0\0\0\0\0\0\0\0");
    file.resize(96, 0);
    file.extend([0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0]);
    let model = open(&file);
    assert!(model.big_endian());
    assert_eq!(model.get("k"), Some(Value::U16(0x1234)));
    let tensor = model.tensor("t").unwrap();
    assert_eq!((tensor.ty, &tensor.dims[..]), (GgmlType::F32, &[2][..]));
    assert_eq!(*tensor.bytes, *[1.0f32, -2.0].map(f32::to_le_bytes).as_flattened());
    let copy = bytes(Writer::copy_of(&model).unwrap());
    assert_eq!(copy[..file.len()], file);
}

#[test]
fn big_endian_blocks_are_refused() {
    let mut writer = Writer::with_format(Format::V3BigEndian);
    let error = writer.tensor("q", GgmlType::Q8_0, &[32], vec![0; 34]).unwrap_err();
    assert!(matches!(error, Error::BigEndianBlocks { ty: GgmlType::Q8_0, .. }));
    // A file that holds one nevertheless: a tensor of bytes, 34 of them, with the type and shape changed.
    writer.tensor("q", GgmlType::I8, &[32, 2], vec![0; 64]).unwrap();
    let mut file = bytes(writer);
    let at = file.windows(4).rposition(|window| window == 24u32.to_be_bytes()).unwrap();
    file[at..at + 4].copy_from_slice(&8u32.to_be_bytes());
    file.resize(file.len() + 64, 0);
    let model = open(&file);
    assert!(matches!(model.tensor("q"), Err(Error::BigEndianBlocks { .. })));
}

#[test]
fn a_callback_writes_exactly_its_tensor() {
    let with = |write: &dyn Fn(&mut dyn std::io::Write) -> std::io::Result<()>| {
        let mut writer = Writer::new();
        writer.tensor("t", GgmlType::I8, &[100], Data::from_fn(write)).unwrap();
        let mut file = Vec::new();
        writer.write_to(&mut file).map(|_| file)
    };
    let file = with(&|out| (0..100u8).try_for_each(|byte| out.write_all(&[byte]))).unwrap();
    assert_eq!(*open(&file).tensor("t").unwrap().bytes, *(0..100).collect::<Vec<u8>>());
    assert!(matches!(
        with(&|out| out.write_all(&[0; 99])),
        Err(Error::DataLength { expected: 100, found: 99, .. })
    ));
    assert!(matches!(with(&|out| out.write_all(&[0; 101])), Err(Error::DataLength { found: 101, .. })));
    assert!(matches!(with(&|_| Err(std::io::Error::other("full"))), Err(Error::Write(_))));
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let mut writer = Writer::new();
    writer.set("k", 1u32).unwrap();
    writer.set("k", "again").unwrap();
    writer.tensor("t", GgmlType::F32, &[1], vec![0; 4]).unwrap();
    let duplicate = writer.tensor("t", GgmlType::F32, &[1], vec![0; 4]);
    assert!(matches!(duplicate, Err(Error::DuplicateTensor { .. })));
    assert!(matches!(writer.tensor("u", GgmlType::F32, &[], vec![]), Err(Error::Dimensions { .. })));
    assert!(matches!(writer.tensor("u", GgmlType::F32, &[0], vec![]), Err(Error::Shape { .. })));
    assert!(matches!(writer.tensor("u", GgmlType::Q4_K, &[32], vec![]), Err(Error::RowLength { .. })));
    assert!(matches!(writer.tensor("u", GgmlType::F32, &[1], vec![0; 3]), Err(Error::DataLength { .. })));
    assert!(matches!(writer.alignment(3), Err(Error::Alignment { found: 3 })));
    assert!(matches!(writer.set("deep", vec![vec![vec![vec![vec![1u8]]]]]), Err(Error::ArrayDepth { .. })));
    let mut old = Writer::with_format(Format::V1);
    old.tensor("t", GgmlType::I8, &[1 << 33], Data::from_fn(|_| Ok(()))).unwrap();
    assert!(matches!(old.write_to(&mut Vec::new()), Err(Error::VersionOne { .. })));
    assert_eq!(open(&bytes(writer)).require_str("k").unwrap(), "again");
}

#[test]
fn tensors_share_the_memory_of_the_file() {
    let file = Bytes::from(sample(Format::V3, true));
    let model = Gguf::from_bytes(vec![file.clone()]).unwrap();
    let tensor = model.clone().tensor("q8").unwrap();
    let start = model.tensor_info("q8").unwrap().offset as usize;
    assert_eq!(tensor.bytes.as_ptr(), file[start..].as_ptr());
    drop((model, file));
    assert_eq!(tensor.bytes[67], 67);
    fn shared<T: Send + Sync>() {}
    shared::<Gguf>();
}

/// A metadata value of any type that the format has.
#[derive(Debug, Clone)]
enum Any {
    U8(u8),
    I16(i16),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Str(String),
    Strs(Vec<String>),
    U16s(Vec<u16>),
    F32s(Vec<f32>),
    Bools(Vec<bool>),
    Nested(Vec<Vec<Vec<String>>>),
}

impl Any {
    fn inner(&self) -> &dyn Encode {
        match self {
            Self::U8(x) => x,
            Self::I16(x) => x,
            Self::U32(x) => x,
            Self::I64(x) => x,
            Self::F32(x) => x,
            Self::F64(x) => x,
            Self::Bool(x) => x,
            Self::Str(x) => x,
            Self::Strs(x) => x,
            Self::U16s(x) => x,
            Self::F32s(x) => x,
            Self::Bools(x) => x,
            Self::Nested(x) => x,
        }
    }

    /// Whether what was read is what was written.
    fn equals(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::U8(a), Value::U8(b)) => *a == b,
            (Self::I16(a), Value::I16(b)) => *a == b,
            (Self::U32(a), Value::U32(b)) => *a == b,
            (Self::I64(a), Value::I64(b)) => *a == b,
            (Self::F32(a), Value::F32(b)) => a.to_bits() == b.to_bits(),
            (Self::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
            (Self::Bool(a), Value::Bool(b)) => *a == b,
            (Self::Str(a), Value::Str(b)) => a == b,
            (Self::Strs(a), Value::Array(b)) => b.strs().unwrap().eq(a.iter()),
            (Self::U16s(a), Value::Array(b)) => b.u32s().unwrap().eq(a.iter().map(|&x| x.into())),
            (Self::F32s(a), Value::Array(b)) => {
                b.f32s().unwrap().map(f32::to_bits).eq(a.iter().map(|x| x.to_bits()))
            }
            (Self::Bools(a), Value::Array(b)) => b.bools().unwrap().eq(a.iter().copied()),
            (Self::Nested(a), Value::Array(b)) => {
                let read = b.arrays().unwrap().map(|b| {
                    b.arrays().unwrap().map(|b| b.strs().unwrap().map(str::to_owned).collect()).collect()
                });
                read.collect::<Vec<Vec<Vec<String>>>>() == *a
            }
            _ => false,
        }
    }
}

impl Encode for Any {
    fn value_type(&self) -> ValueType {
        self.inner().value_type()
    }

    fn encode(&self, out: &mut Encoder) -> Result<(), Error> {
        self.inner().encode(out)
    }
}

fn any_value() -> impl Strategy<Value = Any> {
    fn some<T: std::fmt::Debug>(element: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
        proptest::collection::vec(element, 0..5)
    }
    let text = || any::<String>();
    prop_oneof![
        any::<u8>().prop_map(Any::U8),
        any::<i16>().prop_map(Any::I16),
        any::<u32>().prop_map(Any::U32),
        any::<i64>().prop_map(Any::I64),
        any::<f32>().prop_map(Any::F32),
        any::<f64>().prop_map(Any::F64),
        any::<bool>().prop_map(Any::Bool),
        text().prop_map(Any::Str),
        some(text()).prop_map(Any::Strs),
        some(any::<u16>()).prop_map(Any::U16s),
        some(any::<f32>()).prop_map(Any::F32s),
        some(any::<bool>()).prop_map(Any::Bools),
        some(some(some(text()))).prop_map(Any::Nested),
    ]
}

/// Type, blocks per row and the other dimensions.
fn any_shape() -> impl Strategy<Value = (GgmlType, Vec<u64>)> {
    let others = proptest::collection::vec(1u64..4, 0..4);
    (0..GgmlType::ALL.len(), 1u64..4, others).prop_map(|(ty, blocks, others)| {
        let ty = GgmlType::ALL[ty];
        (ty, std::iter::once(blocks * ty.block_len() as u64).chain(others).take(4).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_file_round_trips(
        format in 0..FORMATS.len(),
        entries in proptest::collection::btree_map(any::<String>(), any_value(), 0..8),
        shapes in proptest::collection::btree_map(any::<String>(), any_shape(), 0..6),
        alignment in proptest::option::of(0u32..10),
        seed in any::<u8>(),
    ) {
        let format = FORMATS[format];
        let mut writer = Writer::with_format(format);
        for (key, value) in &entries {
            writer.set(key, value).unwrap();
        }
        if let Some(shift) = alignment {
            writer.alignment(1 << shift).unwrap();
        }
        let mut tensors = Vec::new();
        for (name, (ty, dims)) in &shapes {
            if format == Format::V3BigEndian && ty.block_len() != 1 {
                continue;
            }
            let len = ty.bytes_of(dims.iter().product()).unwrap();
            let data: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
            writer.tensor(name, *ty, dims, data.clone()).unwrap();
            tensors.push((name, *ty, dims, data));
        }
        let file = bytes(writer);
        let model = open(&file);
        for (key, value) in &entries {
            prop_assert!(value.equals(model.get(key).unwrap()), "{}: {:?}", key, value);
        }
        prop_assert_eq!(model.alignment(), alignment.map_or(32, |shift| 1 << shift));
        prop_assert_eq!(model.tensor_count(), tensors.len());
        for (name, ty, dims, data) in &tensors {
            let tensor = model.tensor(name).unwrap();
            prop_assert_eq!((tensor.ty, &tensor.dims), (*ty, *dims));
            prop_assert_eq!(&*tensor.bytes, &data[..]);
        }
        prop_assert_eq!(bytes(Writer::copy_of(&model).unwrap()), file);
    }

    #[test]
    fn random_bytes_after_a_good_header_never_panic(
        version in 1u32..4,
        counts in (0u8..3, 0u8..3),
        tail in proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => 0u8..14, 1 => any::<u8>()], 0..200),
    ) {
        let mut file = b"GGUF".to_vec();
        file.extend(version.to_le_bytes());
        for count in [counts.0, counts.1] {
            let wide = u64::from(count).to_le_bytes();
            file.extend(&wide[..if version == 1 { 4 } else { 8 }]);
        }
        file.extend(tail);
        let _ = Gguf::from_bytes(vec![file.into()]);
    }
}
