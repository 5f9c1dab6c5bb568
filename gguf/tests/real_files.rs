//! Every model file at hand opens, gives up all it has, and is written back byte for byte.

use std::fs;
use std::path::{Path, PathBuf};

use quant_fixtures::{committed, shared};
use quant_gguf::{Gguf, Writer};

/// All files that end in `.gguf`, folders within folders.
fn models(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            models(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "gguf") {
            out.push(path);
        }
    }
}

fn check(path: &Path) {
    let model = Gguf::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (key, value) in model.metadata() {
        assert_eq!(model.get(key), Some(value), "{key}");
        if let Some(array) = value.as_array() {
            assert_eq!(array.values().count(), array.len(), "{key}");
        }
    }
    for info in model.tensors() {
        let tensor = model.tensor(info.name).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(Some(tensor.bytes.len() as u64), info.bytes);
        assert_eq!(tensor.dims, info.dims);
    }
    let mut copy = Vec::new();
    Writer::copy_of(&model).unwrap().write_to(&mut copy).unwrap();
    let original = fs::read(path).unwrap();
    // Writers differ in whether they pad a file that holds no tensors; everything else is the same in all.
    let padding = copy.len().saturating_sub(original.len());
    assert!(padding == 0 || (model.tensor_count() == 0 && padding < 32), "{}: {padding}", path.display());
    assert!(copy.starts_with(&original), "{}: another layout", path.display());
    assert!(copy[original.len()..].iter().all(|&byte| byte == 0));
}

fn check_all(folder: &Path, at_least: usize) {
    let mut paths = Vec::new();
    models(folder, &mut paths);
    assert!(paths.len() >= at_least, "{} files in {}", paths.len(), folder.display());
    paths.iter().for_each(|path| check(path));
}

#[test]
fn committed_models() {
    check_all(&committed("oracle"), 5);
}

#[test]
fn golden_models() {
    if let Some(folder) = shared("oracle/data") {
        check_all(&folder, 20);
    }
}

#[test]
fn small_models_of_every_version() {
    if let Some(folder) = shared("data/models") {
        check_all(&folder, 5);
        let versions = |name| Gguf::open(folder.join(name)).unwrap().version();
        assert_eq!(versions("stories260K-ggufv1-f32.gguf"), 1);
        assert_eq!(versions("stories260K-f32.gguf"), 3);
    }
}

#[test]
fn vocabularies() {
    if let Some(folder) = shared("data/tokenizers") {
        check_all(&folder, 10);
    }
}

#[test]
fn demo_models() {
    if let Some(folder) = shared("demo") {
        check_all(&folder, 2);
    }
}

#[test]
fn a_known_model_says_what_it_should() {
    let model = Gguf::open(committed("oracle/llama-tied/model-q8_0.gguf")).unwrap();
    assert_eq!(model.version(), 3);
    assert_eq!(model.alignment(), 32);
    assert_eq!(model.require_str("general.architecture").unwrap(), "llama");
    let heads = model.require_u32("llama.attention.head_count").unwrap();
    assert!(heads > 0);
    assert!(model.require_f32("llama.attention.layer_norm_rms_epsilon").unwrap() > 0.0);
    let embeddings = model.tensor("token_embd.weight").unwrap();
    assert_eq!(embeddings.cols(), model.require_u64("llama.embedding_length").unwrap());
    assert_eq!(
        embeddings.bytes.len() as u64,
        embeddings.ty.bytes_of(embeddings.cols() * embeddings.rows()).unwrap()
    );
}
