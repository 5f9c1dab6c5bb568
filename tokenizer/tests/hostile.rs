//! Files that lie: typed errors, never a panic, and the messages say what to look at.

use proptest::prelude::*;
use quant_gguf::{Gguf, Writer};
use quant_tokenizer::{Config, Error, TokenType, Tokenizer, Vocabulary};

fn config(model: &str) -> Config {
    Config { model: model.to_owned(), ..Config::default() }
}

fn vocabulary(tokens: &[&str]) -> Vocabulary {
    let mut vocabulary = Vocabulary::with_capacity(tokens.len());
    for token in tokens {
        vocabulary.push(token, TokenType::Normal, 0.0).unwrap();
    }
    vocabulary
}

fn error(config: &Config, tokens: &[&str], merges: &[&str]) -> Error {
    Tokenizer::new(config, vocabulary(tokens), merges.iter().copied()).unwrap_err()
}

#[test]
fn unsupported_names_list_what_is_supported() {
    let unknown = error(&config("rwkv"), &["a"], &[]).to_string();
    assert!(unknown.contains("rwkv") && unknown.contains("gpt2, llama"), "{unknown}");
    let pre = Config { pre: Some("kimi-k2".to_owned()), ..config("gpt2") };
    let unknown = error(&pre, &["a"], &[]).to_string();
    for name in ["kimi-k2", "default", "gpt-2", "llama-bpe", "qwen2", "smollm"] {
        assert!(unknown.contains(name), "{unknown}");
    }
    let missing = Tokenizer::new(&config("gpt2"), vocabulary(&["a"]), []).unwrap();
    assert_eq!(missing.pre(), "default");
}

#[test]
fn contradictions_are_typed_errors() {
    assert!(matches!(error(&config("gpt2"), &[], &[]), Error::Empty));
    let far = Config { eos: Some(2), ..config("gpt2") };
    assert!(matches!(error(&far, &["a", "b"], &[]), Error::SpecialId { id: 2, vocab: 2, .. }));
    let none = Config { padding: Some(u32::MAX), ..config("gpt2") };
    assert_eq!(Tokenizer::new(&none, vocabulary(&["a"]), []).unwrap().padding(), None);
    let nameless = Config { add_bos: Some(true), ..config("gpt2") };
    assert!(matches!(error(&nameless, &["a"], &[]), Error::MissingSpecial { .. }));
    for (index, merge) in ["ab", "", "a c", "c a", "a b", "a  b", "é"].iter().enumerate() {
        let merges: Vec<&str> = std::iter::repeat_n("a a", index).chain([*merge]).collect();
        match error(&config("gpt2"), &["a", "b", "aa"], &merges) {
            Error::Merge { index: found, .. } => assert_eq!(found, index, "{merge:?}"),
            other => panic!("{merge:?}: {other}"),
        }
    }
}

#[test]
fn text_without_a_token_is_unknown_or_left_out() {
    let with = Config { unknown: Some(0), ..config("llama") };
    let tokens = ["<unk>", "a", "\u{2581}", "<0x41>"];
    let tokenizer = Tokenizer::new(&with, vocabulary(&tokens), []).unwrap();
    assert_eq!(tokenizer.encode("aéA", false, false), [2, 1, 0, 3]);
    let tokenizer = Tokenizer::new(&config("llama"), vocabulary(&tokens), []).unwrap();
    assert_eq!(tokenizer.encode("aéA", false, false), [2, 1, 3]);
    let tokenizer = Tokenizer::new(&config("gpt2"), vocabulary(&["a"]), []).unwrap();
    assert_eq!(tokenizer.encode("ab a", true, true), [0, 0]);
}

/// A file with two tokens and what `more` adds to it.
fn file(model: &str, more: impl FnOnce(&mut Writer) -> quant_gguf::Result<()>) -> Result<Tokenizer, Error> {
    let mut writer = Writer::new();
    writer.set("general.architecture", "llama").unwrap();
    writer.set("tokenizer.ggml.model", model).unwrap();
    writer.set("tokenizer.ggml.tokens", ["a", "b"]).unwrap();
    more(&mut writer).unwrap();
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    Tokenizer::from_gguf(&Gguf::from_bytes(vec![bytes.into()]).unwrap())
}

#[test]
fn arrays_of_a_file_are_checked() {
    let types = "tokenizer.ggml.token_type";
    assert!(matches!(
        file("llama", |w| w.set(types, [1_i32])),
        Err(Error::Length { found: 1, tokens: 2, .. })
    ));
    assert!(matches!(
        file("llama", |w| w.set(types, [1_i32, 9])),
        Err(Error::TokenType { index: 1, value: 9 })
    ));
    assert!(matches!(file("llama", |w| w.set(types, [1.0_f32, 1.0])), Err(Error::Gguf(_))));
    assert!(matches!(
        file("llama", |w| w.set("tokenizer.ggml.scores", [0.5_f32; 3])),
        Err(Error::Length { found: 3, .. })
    ));
    assert!(matches!(file("llama", |w| w.set("tokenizer.ggml.scores", ["x", "y"])), Err(Error::Gguf(_))));
    assert!(matches!(file("gpt2", |_| Ok(())), Err(Error::Gguf(_))), "no merges");
    assert!(matches!(file("gpt2", |w| w.set("tokenizer.ggml.merges", ["a b"])), Err(Error::Merge { .. })));
    assert!(matches!(file("bert", |_| Ok(())), Err(Error::UnsupportedModel { .. })));
    assert!(matches!(
        file("llama", |w| w.set("tokenizer.ggml.eos_token_id", 7_u32)),
        Err(Error::SpecialId { id: 7, .. })
    ));
    let none = file("llama", |w| w.set("tokenizer.ggml.eos_token_id", -1_i32)).unwrap();
    assert_eq!((none.eos(), none.stop_tokens().len()), (None, 0));
    assert!(file("llama", |w| w.set("tokenizer.ggml.scores", [1_i32, 2])).is_ok());
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "a", "b", "ab", "Ġ", "Ġa", "aab", "\u{2581}", "", "<0x41>", "<0xZZ>", "<s>", " "
        ])
        .prop_map(str::to_owned),
        "\\PC{0,4}",
    ]
}

proptest! {
    #[test]
    fn any_metadata_gives_a_tokenizer_or_an_error(
        tokens in prop::collection::vec((names(), 0_i64..7, any::<f32>()), 0..40),
        merges in prop::collection::vec(prop_oneof![Just("a b".to_owned()), Just("a ab".to_owned()), "\\PC{0,5}"], 0..4),
        (spm, add_bos, prefix) in any::<(bool, Option<bool>, Option<bool>)>(),
        specials in prop::collection::vec(prop::option::of(0_u32..42), 6),
        pre in prop::sample::select(vec![None, Some("gpt-2"), Some("llama-bpe"), Some("qwen2"), Some("smollm"), Some("x")]),
        text in "[ab<s>0x41\\PC ]{0,60}",
        ids in prop::collection::vec(0_u32..50, 0..40),
    ) {
        let mut vocabulary = Vocabulary::default();
        for (text, token_type, score) in &tokens {
            vocabulary.push(text, TokenType::from_gguf(*token_type).unwrap(), *score).unwrap();
        }
        let config = Config {
            model: if spm { "llama" } else { "gpt2" }.to_owned(),
            pre: pre.map(str::to_owned),
            bos: specials[0],
            eos: specials[1],
            eot: specials[2],
            eom: specials[3],
            unknown: specials[4],
            padding: specials[5],
            add_bos,
            add_eos: add_bos,
            add_space_prefix: prefix,
        };
        let Ok(tokenizer) = Tokenizer::new(&config, vocabulary, merges.iter().map(String::as_str)) else {
            return Ok(());
        };
        for (add_special, parse_special) in [(false, false), (true, true)] {
            let found = tokenizer.encode(&text, add_special, parse_special);
            prop_assert!(found.iter().all(|&id| (id as usize) < tokens.len()));
            tokenizer.decode(&found);
        }
        let mut decoder = tokenizer.decoder().show_special(true);
        let mut streamed: String = ids.iter().map(|&id| decoder.push(id)).collect();
        streamed += &decoder.finish();
        prop_assert_eq!(streamed, tokenizer.decode_special(&ids));
        for id in ids {
            prop_assert_eq!(tokenizer.token_bytes(id).is_some(), (id as usize) < tokens.len());
        }
    }
}
