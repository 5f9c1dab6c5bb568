//! Reads everything that a file offers, as the fuzz target and the tests of hostile input do.

use quant_gguf::{Array, Gguf, Value, Writer};

/// Opens `bytes` as one file, reads all of it and, where every tensor can be read, writes it again and checks
/// that the copy says the same. Returns whether the file was accepted.
///
/// # Panics
/// If something that an accepted file must offer is not there: that is what a fuzzer looks for.
pub fn exercise(bytes: &[u8]) -> bool {
    let Ok(model) = Gguf::from_bytes(vec![bytes.to_vec().into()]) else { return false };
    for (key, value) in model.metadata() {
        assert_eq!(model.get(key).map(|value| value.value_type()), Some(value.value_type()));
        typed(&model, key);
        walk(value);
        assert!(!value.to_string().is_empty());
    }
    let mut readable = true;
    for info in model.tensors() {
        assert_eq!(model.tensor_info(info.name), Some(info));
        match model.tensor(info.name) {
            Ok(tensor) => {
                assert_eq!(Some(tensor.bytes.len() as u64), info.bytes);
                assert!(info.range().is_some_and(|range| range.end <= model.file_bytes()));
                assert_eq!(tensor.rows() * tensor.cols(), info.values());
                assert!(!tensor.bytes.is_empty());
            }
            Err(error) => {
                assert!(info.ty.is_none() || model.big_endian(), "{error}");
                readable = false;
            }
        }
    }
    if readable {
        copy(&model);
    }
    true
}

/// Asks for a key in every type; each answer is fine, a panic is not.
fn typed(model: &Gguf, key: &str) {
    let _ = (model.str(key), model.u32(key), model.u64(key), model.i32(key));
    let _ = (model.f32(key), model.bool(key), model.array(key), model.require_u32(key));
}

/// Iterates a value through every view that its type has.
fn walk(value: Value<'_>) {
    let Value::Array(array) = value else { return };
    assert_eq!(array.values().count(), array.len());
    counts(&array);
    if let Ok(nested) = array.arrays() {
        nested.for_each(|inner| walk(Value::Array(inner)));
    }
}

fn counts(array: &Array<'_>) {
    let len = array.len();
    assert!(array.strs().is_ok_and(|items| items.count() == len) || array.strs().is_err());
    assert!(array.bools().is_ok_and(|items| items.count() == len) || array.bools().is_err());
    assert!(array.f32s().is_ok_and(|items| items.count() == len) || array.f32s().is_err());
    assert!(array.ints().is_ok_and(|items| items.count() == len) || array.ints().is_err());
    assert!(array.i32s().is_ok_and(|items| items.count() == len) || array.i32s().is_err());
    assert!(array.u32s().is_ok_and(|items| items.count() == len) || array.u32s().is_err());
}

/// Writes the model and reads it back: same keys, same tensors; a second copy has the same bytes as the first.
fn copy(model: &Gguf) {
    let write = |model: &Gguf| {
        let mut file = Vec::new();
        let writer = Writer::copy_of(model).expect("all tensors can be read");
        let written = writer.write_to(&mut file).expect("memory takes all");
        assert_eq!(written, file.len() as u64);
        file
    };
    let first = write(model);
    let back = Gguf::from_bytes(vec![first.clone().into()]).expect("what is written can be read");
    assert!(model.metadata().map(|(key, _)| key).eq(back.metadata().map(|(key, _)| key)));
    assert_eq!(model.tensor_count(), back.tensor_count());
    for info in model.tensors() {
        let (old, new) = (model.tensor(info.name), back.tensor(info.name));
        assert_eq!(old.expect("read before"), new.expect("written"));
    }
    assert_eq!(write(&back), first);
}
