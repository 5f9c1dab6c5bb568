//! The golden models' tokenizations: ids that llama.cpp gave for twelve texts on each vocabulary.

mod common;

use std::path::Path;

use quant_fixtures::{committed, shared};
use quant_tokenizer::Error;

fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// Whether the folder's vocabulary is supported; if it is, it has been checked.
fn check(folder: &Path) -> bool {
    // Python writes minus infinity, which JSON doesn't have; none of it is read here.
    let text = common::read(&folder.join("meta.json")).replace("-Infinity", "null");
    let meta: serde_json::Value = serde_json::from_str(&text).unwrap();
    let Some(cases) = meta["tokenization"].as_array() else { return false };
    let file = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "gguf"));
    let Some(file) = file else { return false };
    let tokenizer = match common::load(&file) {
        Ok(tokenizer) => tokenizer,
        Err(Error::UnsupportedPre { .. } | Error::UnsupportedModel { .. }) => return false,
        Err(error) => panic!("{}: {error}", file.display()),
    };
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let place = format!("{}: {text:?}", folder.display());
        assert_eq!(tokenizer.encode(text, false, true), ids(&case["ids"]), "{place}");
        let special = tokenizer.encode(text, true, true);
        assert_eq!(special, ids(&case["ids_special"]), "{place}, special tokens added");
        assert_eq!(tokenizer.decode(&special), text, "{place}, decoded");
    }
    true
}

#[test]
fn committed_models() {
    for name in ["llama-tied", "llama-rope-llama3", "mistral"] {
        assert!(check(&committed("oracle").join(name)), "{name} is not supported");
    }
}

#[test]
fn shared_models() {
    let Some(root) = shared("oracle/data") else { return };
    let folders = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let checked =
        folders.filter(|folder| folder.join("meta.json").exists()).filter(|folder| check(folder)).count();
    assert!(checked >= 30, "{checked} models checked");
}
