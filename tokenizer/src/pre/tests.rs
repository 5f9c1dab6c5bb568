//! Every scanner against the regular expressions it stands for, run by fancy-regex.

use super::*;
use fancy_regex::Regex;
use proptest::prelude::*;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The expressions of each pre-tokenizer, as llama.cpp has them.
const ORACLE: &[(&str, &[&str])] = &[
    ("default", &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    ("gpt-2", &[GPT2]),
    ("llama-bpe", &[LLAMA3]),
    ("dbrx", &[LLAMA3]),
    ("qwen2", &[QWEN2]),
    ("smollm", &[r"\p{N}", GPT2]),
];

/// Each expression in turn on every piece: matches and the gaps between them become pieces.
fn oracle(expressions: &[Regex], text: &str) -> Vec<String> {
    let mut pieces = vec![text.to_owned()];
    for expression in expressions {
        let mut cut = Vec::new();
        for piece in &pieces {
            let mut end = 0;
            for found in expression.find_iter(piece) {
                let found = found.unwrap();
                cut.push(piece[end..found.start()].to_owned());
                cut.push(found.as_str().to_owned());
                end = found.end();
            }
            cut.push(piece[end..].to_owned());
        }
        pieces = cut.into_iter().filter(|piece| !piece.is_empty()).collect();
    }
    pieces
}

fn compiled() -> &'static Vec<(&'static str, Vec<Regex>)> {
    static COMPILED: std::sync::OnceLock<Vec<(&'static str, Vec<Regex>)>> = std::sync::OnceLock::new();
    COMPILED.get_or_init(|| {
        let compile = |list: &[&str]| list.iter().map(|expression| Regex::new(expression).unwrap()).collect();
        ORACLE.iter().map(|&(name, list)| (name, compile(list))).collect()
    })
}

fn check(text: &str) {
    for (name, expressions) in compiled() {
        let mut words = Vec::new();
        (by_name(name).unwrap().0.split)(text, &mut |word| words.push(word.to_owned()));
        assert_eq!(words, oracle(expressions, text), "{name} on {text:?}");
    }
}

#[test]
fn every_pre_tokenizer_has_an_oracle() {
    for pre in TABLE {
        assert!(ORACLE.iter().any(|(name, _)| *name == pre.names[0]), "{}", pre.names[0]);
    }
}

#[test]
fn hard_cases() {
    for text in [
        "",
        " ",
        "   ",
        "a  b",
        "a \n b",
        "a\r\n\r\n  b\n",
        "it's IT'S o'll O'LL 'x 's",
        "'re'RE'rE' re",
        "1234567 12 1",
        "12\u{0663}45678\u{0664}",
        "a\u{00A0}b \u{3000} c\u{2028}d",
        "\t\tfoo\tbar",
        "... !?\n\n x",
        " \n\n \n x  y",
        "$5+3<=8^~|`'\"",
        "é\u{301}ß 東京 ひらがな ไทย",
        "🚀🦙 👍🏽",
        "'ſ \u{212A}",
        "\u{85}\u{85}a \u{1680}b",
    ] {
        check(text);
    }
}

/// Text in which every branch is likely: few characters, from every class.
fn texts() -> impl Strategy<Value = String> {
    let c = prop_oneof![
        4 => prop::sample::select(" '\n\r\ts1aZeElLvdmrt,.$|é東ß٣½²\u{a0}\u{3000}\u{301}🚀".chars().collect::<Vec<_>>()),
        1 => any::<char>(),
    ];
    prop::collection::vec(c, 0..40).prop_map(|list| list.into_iter().collect())
}

proptest! {
    #[test]
    fn scanners_equal_the_expressions(text in texts()) {
        check(&text);
    }
}
