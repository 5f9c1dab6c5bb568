//! What holds for any text: nothing is lost, streaming equals decoding, and no text takes quadratic time.

mod common;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::must_load;
use proptest::prelude::*;
use quant_fixtures::{committed, shared};
use quant_tokenizer::{TokenType, Tokenizer};

const BPE: &str = "oracle/llama-rope-llama3/model-q8_0.gguf";
const SPM: &str = "oracle/llama-tied/model-q8_0.gguf";

/// Both algorithms, on committed vocabularies.
fn tokenizers() -> &'static [Tokenizer; 2] {
    static TOKENIZERS: OnceLock<[Tokenizer; 2]> = OnceLock::new();
    TOKENIZERS.get_or_init(|| [BPE, SPM].map(|path| must_load(&committed(path))))
}

/// Real vocabularies, those of them that are there.
fn real() -> Vec<Tokenizer> {
    let files = [
        "gguf/llama3-vocab.gguf",
        "gguf/qwen3-vocab.gguf",
        "gguf/smollm2-vocab.gguf",
        "llama.cpp/ggml-vocab-gpt-2.gguf",
        "llama.cpp/ggml-vocab-llama-spm.gguf",
    ];
    let paths: Vec<PathBuf> =
        files.iter().filter_map(|file| shared(&format!("data/tokenizers/{file}"))).collect();
    paths.iter().map(|path| must_load(path)).collect()
}

/// Pushes ids one at a time; every piece is whole characters by its type, and together they are the text.
fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut decoder = tokenizer.decoder();
    let mut text: String = ids.iter().map(|&id| decoder.push(id)).collect();
    text.push_str(&decoder.finish());
    text
}

fn texts() -> impl Strategy<Value = String> {
    let c = prop_oneof![
        3 => prop::sample::select(" \n\tabcdetheAI'.,1é東🚀\u{301}".chars().collect::<Vec<_>>()),
        1 => any::<char>(),
    ];
    prop::collection::vec(c, 0..200).prop_map(|list| list.into_iter().collect())
}

proptest! {
    #[test]
    fn decoding_gives_the_text_back(text in texts(), add_special: bool) {
        for tokenizer in tokenizers() {
            let ids = tokenizer.encode(&text, add_special, false);
            prop_assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
            // SentencePiece's own mark for a space is read back as one.
            let expected = if tokenizer.model() == "llama" { text.replace('\u{2581}', " ") } else { text.clone() };
            prop_assert_eq!(tokenizer.decode(&ids), expected);
        }
    }

    #[test]
    fn streaming_equals_decoding(ids in prop::collection::vec(0_u32..460, 0..200)) {
        for tokenizer in tokenizers() {
            prop_assert_eq!(stream(tokenizer, &ids), tokenizer.decode(&ids));
        }
    }

    #[test]
    fn a_continuation_reads_on(text in texts(), cut in 0_usize..200) {
        for tokenizer in tokenizers() {
            let ids = tokenizer.encode(&text, true, false);
            let (prompt, rest) = ids.split_at(cut.min(ids.len()));
            let mut whole = tokenizer.decoder();
            prompt.iter().for_each(|&id| drop(whole.push(id)));
            // Where the prompt ends in the middle of a character its first half is lost to the continuation.
            if whole.clone().finish().is_empty() {
                let mut after = tokenizer.decoder_after(prompt);
                for &id in rest {
                    prop_assert_eq!(after.push(id), whole.push(id));
                }
            }
        }
    }

    #[test]
    fn untrusted_text_never_becomes_a_control_token(parts in prop::collection::vec(0_usize..8, 0..30)) {
        for tokenizer in tokenizers() {
            let control: Vec<&str> = (0..tokenizer.vocab_size() as u32)
                .filter(|&id| matches!(tokenizer.token_type(id), Some(TokenType::Control | TokenType::Unknown)))
                .filter_map(|id| tokenizer.token_text(id))
                .collect();
            prop_assert!(!control.is_empty());
            let text: String =
                parts.iter().map(|&part| control.get(part).copied().unwrap_or(" <s")).collect();
            let ids = tokenizer.encode(&text, false, false);
            prop_assert!(ids.iter().all(|&id| !tokenizer.is_control(id)));
            prop_assert_eq!(tokenizer.decode(&ids), text);
        }
    }
}

#[test]
fn every_code_point_comes_back() {
    let Some(path) = shared("data/text/utf8_all_codepoints.txt") else { return };
    let text = common::read(&path);
    for tokenizer in tokenizers().iter().chain(&real()) {
        let ids = tokenizer.encode(&text, true, false);
        let expected =
            if tokenizer.model() == "llama" { text.replace('\u{2581}', " ") } else { text.clone() };
        assert!(tokenizer.decode(&ids) == expected, "{} {}", tokenizer.model(), tokenizer.pre());
        assert!(stream(tokenizer, &ids) == expected, "{} {}", tokenizer.model(), tokenizer.pre());
    }
}

/// A quadratic loop would take minutes on these 256 KiB; the limit leaves room for a slow machine.
#[test]
fn a_very_long_word_is_no_problem() {
    let repeat = |text: &str| text.repeat((1 << 18) / text.len());
    let texts = ["a", " ", "\n", " \n", "1", ".", "é", "ab", "\u{3000}", "'", "<", "<|", "aA"].map(repeat);
    for tokenizer in tokenizers().iter().chain(&real()) {
        for text in &texts {
            let start = Instant::now();
            let ids = tokenizer.encode(text, false, true);
            let took = start.elapsed();
            let head: String = text.chars().take(4).collect();
            assert!(
                took < Duration::from_secs(20),
                "{} {}: {head:?} took {took:?}",
                tokenizer.model(),
                tokenizer.pre()
            );
            assert!(tokenizer.decode(&ids) == *text, "{} {}: {head:?}", tokenizer.model(), tokenizer.pre());
        }
    }
}

#[test]
fn special_tokens_of_a_real_vocabulary() {
    let Some(path) = shared("data/tokenizers/gguf/llama3-vocab.gguf") else { return };
    let tokenizer = must_load(&path);
    assert_eq!((tokenizer.vocab_size(), tokenizer.model(), tokenizer.pre()), (128_256, "gpt2", "llama-bpe"));
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(128_000), Some(128_009), true));
    assert_eq!(tokenizer.stop_tokens(), [128_009]);
    let text = "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>";
    assert_eq!(tokenizer.encode(text, true, true), [128_000, 128_006, 882, 128_007, 271, 13_347, 128_009]);
    assert!(tokenizer.encode(text, false, false).iter().all(|&id| id < 128_000));
    let ids = tokenizer.encode(text, true, true);
    assert_eq!(tokenizer.decode(&ids), "user\n\nHi");
    assert_eq!(tokenizer.decode_special(&ids), format!("<|begin_of_text|>{text}"));
}
