//! Published vectors: llama.cpp's 46 strings, kitoken's lines, and ids from HF tokenizers, on real vocabularies.

mod common;

use common::{ids, must_load, read};
use quant_fixtures::shared;
use quant_tokenizer::Tokenizer;

const FOLDER: &str = "data/tokenizers";

fn tokenizer(file: &str) -> Option<Tokenizer> {
    shared(&format!("{FOLDER}/{file}")).map(|path| must_load(&path))
}

/// Encodes each text and compares; the failures say which.
fn check(tokenizer: &Tokenizer, name: &str, parse_special: bool, texts: &[String], expected: &[Vec<u32>]) {
    assert_eq!(texts.len(), expected.len(), "{name}: vectors out of step");
    let mut failed = Vec::new();
    for (i, (text, expected)) in texts.iter().zip(expected).enumerate() {
        let found = tokenizer.encode(text, false, parse_special);
        if found != *expected {
            failed.push(format!("{i}: {text:?}\n   found {found:?}\nexpected {expected:?}"));
        }
    }
    assert!(failed.is_empty(), "{name}: {} of {}\n{}", failed.len(), texts.len(), failed.join("\n"));
}

/// The 46 strings in `<name>.inp` with the ids in `out`.
fn llama_cpp(vocabulary: &str, name: &str, out: Option<&str>) {
    let Some(tokenizer) = tokenizer(vocabulary) else { return };
    let Some(inputs) = shared(&format!("{FOLDER}/llama.cpp/ggml-vocab-{name}.gguf.inp")) else { return };
    let default = format!("llama.cpp/ggml-vocab-{name}.gguf.out");
    let Some(out) = shared(&format!("{FOLDER}/{}", out.unwrap_or(&default))) else { return };
    let inputs = read(&inputs);
    let mut texts: Vec<String> = inputs.split("\n__ggml_vocab_test__\n").map(str::to_owned).collect();
    if texts.last().is_some_and(String::is_empty) {
        texts.pop();
    }
    let expected: Vec<Vec<u32>> = read(&out).lines().take(texts.len()).map(ids).collect();
    assert_eq!(texts.len(), 46);
    check(&tokenizer, name, false, &texts, &expected);
}

/// kitoken's small lines with the ids in `out`, but for those in `leave_out`.
fn lines(vocabulary: &str, out: &str, parse_special: bool, leave_out: &[usize]) {
    let Some(tokenizer) = tokenizer(vocabulary) else { return };
    let Some(inputs) = shared(&format!("{FOLDER}/kitoken/small_input.txt")) else { return };
    let Some(out) = shared(&format!("{FOLDER}/{out}")) else { return };
    let mut texts: Vec<String> = read(&inputs)
        .split('\n')
        .filter(|line| !line.trim_end_matches('\r').is_empty())
        .map(|line| line.replace("\\n", "\n").replace("\\s", " ").replace("\\x", ""))
        .collect();
    let mut expected: Vec<Vec<u32>> =
        read(&out).lines().filter(|line| !line.trim().is_empty()).map(ids).collect();
    for &line in leave_out.iter().rev() {
        texts.remove(line);
        expected.remove(line);
    }
    check(&tokenizer, vocabulary, parse_special, &texts, &expected);
}

#[test]
fn gpt2() {
    llama_cpp("llama.cpp/ggml-vocab-gpt-2.gguf", "gpt-2", None);
    lines("llama.cpp/ggml-vocab-gpt-2.gguf", "kitoken/tokenizers/small_tokens_gpt2.txt", true, &[]);
}

#[test]
fn mpt() {
    llama_cpp("llama.cpp/ggml-vocab-mpt.gguf", "mpt", None);
}

#[test]
fn starcoder_and_refact() {
    llama_cpp("llama.cpp/ggml-vocab-starcoder.gguf", "starcoder", None);
    llama_cpp("llama.cpp/ggml-vocab-refact.gguf", "refact", None);
}

#[test]
fn llama3() {
    llama_cpp("gguf/llama3-vocab.gguf", "llama-bpe", None);
    lines("gguf/llama3-vocab.gguf", "kitoken/tokenizers/small_tokens_llama32.txt", true, &[]);
    lines("gguf/llama3-vocab.gguf", "kitoken/tokenizers/small_tokens_llama33.txt", true, &[]);
}

#[test]
fn qwen2() {
    llama_cpp("gguf/qwen3-vocab.gguf", "qwen2", None);
    // The reference normalises to NFC, llama.cpp and this crate don't: line 5 differs.
    lines("gguf/qwen3-vocab.gguf", "reference/qwen2/small_tokens_qwen2.txt", true, &[5]);
}

#[test]
fn smollm2() {
    llama_cpp("gguf/smollm2-vocab.gguf", "gpt-2", Some("reference/smollm2/llamacpp46_smollm2.out"));
    lines("gguf/smollm2-vocab.gguf", "reference/smollm2/small_tokens_smollm2.txt", true, &[]);
}

#[test]
fn llama2() {
    llama_cpp("llama.cpp/ggml-vocab-llama-spm.gguf", "llama-spm", None);
    lines("llama.cpp/ggml-vocab-llama-spm.gguf", "kitoken/sentencepiece/small_tokens_llama2.txt", false, &[]);
}

#[test]
fn phi3() {
    llama_cpp("llama.cpp/ggml-vocab-phi-3.gguf", "phi-3", None);
}

/// Prompt ids and generated text of the small published models, decoded as a continuation of their prompt.
#[test]
fn small_models() {
    let Some(goldens) = shared("data/models/golden") else { return };
    let ids = |list: &serde_json::Value| -> Vec<u32> {
        list.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
    };
    for entry in std::fs::read_dir(goldens).unwrap() {
        let golden = quant_fixtures::json(&entry.unwrap().path());
        let Some(model) = golden["model"].as_str() else { continue };
        let Some(path) = shared(&format!("data/models/{model}")) else { continue };
        let tokenizer = must_load(&path);
        let prompt = ids(&golden["prompt_ids"]);
        assert_eq!(tokenizer.encode(golden["prompt"].as_str().unwrap(), true, true), prompt, "{model}");
        let mut decoder = tokenizer.decoder_after(&prompt);
        let mut text: String = ids(&golden["greedy_ids"]).iter().map(|&id| decoder.push(id)).collect();
        text += &decoder.finish();
        assert_eq!(text, golden["greedy_text"].as_str().unwrap(), "{model}");
    }
}
