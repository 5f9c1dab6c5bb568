//! Sample files for the tests and for the seed corpus of the fuzzer.
#![allow(dead_code, reason = "each test uses a part of it")]

use quant_gguf::{Format, GgmlType, Writer};

/// A file with every value type, nested arrays and a few tensors; `blocks` adds quantized ones.
pub fn sample(format: Format, blocks: bool) -> Vec<u8> {
    let mut writer = Writer::with_format(format);
    let mut fill = || {
        writer.set("general.architecture", "llama")?;
        writer.set("a.u8", 200u8)?;
        writer.set("a.i8", -100i8)?;
        writer.set("a.u16", 60_000u16)?;
        writer.set("a.i16", -30_000i16)?;
        writer.set("a.u32", 4_000_000_000u32)?;
        writer.set("a.i32", -2_000_000_000i32)?;
        writer.set("a.u64", u64::MAX)?;
        writer.set("a.i64", i64::MIN)?;
        writer.set("a.f32", 1e-5f32)?;
        writer.set("a.f64", 0.1f64)?;
        writer.set("a.bool", true)?;
        writer.set("l.str", ["<s>", "", "\u{2581}caf\u{e9}", "\u{1f600}"])?;
        writer.set("l.f32", [0.0f32, -1.5])?;
        writer.set("l.f64", [0.25f64])?;
        writer.set("l.i32", [1i32, -2, 3])?;
        writer.set("l.u64", [1u64, u64::MAX])?;
        writer.set("l.bool", [true, false])?;
        writer.set("l.empty", Vec::<String>::new())?;
        writer.set("l.nested", [vec![vec![1i8], vec![]], vec![]])?;
        writer.alignment(64)?;
        writer.tensor(
            "one",
            GgmlType::F32,
            &[3],
            [1.0f32, 2.0, 3.0].map(f32::to_le_bytes).as_flattened().to_vec(),
        )?;
        writer.tensor("half", GgmlType::F16, &[2, 2, 1, 1], (0..8).collect::<Vec<u8>>())?;
        writer.tensor("ints", GgmlType::I8, &[5], (0..5).collect::<Vec<u8>>())?;
        if blocks {
            writer.tensor("q8", GgmlType::Q8_0, &[32, 2], (0..68).collect::<Vec<u8>>())?;
            writer.tensor("q4k", GgmlType::Q4_K, &[256], (0..144).collect::<Vec<u8>>())?;
        }
        Ok::<(), quant_gguf::Error>(())
    };
    fill().expect("a valid sample");
    bytes(writer)
}

/// What a writer writes.
pub fn bytes(writer: Writer<'_>) -> Vec<u8> {
    let mut file = Vec::new();
    let written = writer.write_to(&mut file).expect("memory takes all");
    assert_eq!(written, file.len() as u64);
    file
}

/// A handful of files that reach most of the reader.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut vocabulary = Writer::new();
    vocabulary.set("tokenizer.ggml.model", "gpt2").expect("a valid key");
    vocabulary.set("tokenizer.ggml.tokens", ["a", "b", "ab"]).expect("a valid key");
    let mut unknown = sample(Format::V3, false);
    patch_type(&mut unknown, "half", 9999);
    vec![
        ("v1", sample(Format::V1, true)),
        ("v2", sample(Format::V2, true)),
        ("v3", sample(Format::V3, true)),
        ("v3-big-endian", sample(Format::V3BigEndian, false)),
        ("vocabulary", bytes(vocabulary)),
        ("unknown-type", unknown),
        ("empty", bytes(Writer::new())),
    ]
}

/// Overwrites the type id of a tensor in a little-endian file of version 2 or later.
pub fn patch_type(file: &mut [u8], name: &str, id: u32) {
    let mut entry = (name.len() as u64).to_le_bytes().to_vec();
    entry.extend_from_slice(name.as_bytes());
    let at = file.windows(entry.len()).rposition(|window| window == entry).expect("the tensor is there");
    let dims_at = at + entry.len();
    let n_dims = u32::from_le_bytes(file[dims_at..dims_at + 4].try_into().expect("four bytes")) as usize;
    let type_at = dims_at + 4 + 8 * n_dims;
    file[type_at..type_at + 4].copy_from_slice(&id.to_le_bytes());
}
