//! Pre-tokenizers: how a text is cut into words before its bytes are merged. Each is a hand-written scanner of the
//! regular expressions that llama.cpp uses under the same name; the tests hold it against those.
//!
//! A new one is one file here and one line in [`TABLE`].

mod fallback;
mod gpt2;
mod llama3;
mod smollm;

use crate::unicode::{Class, run};

/// Cuts a text into words.
type Split = fn(&str, &mut dyn FnMut(&str));

/// A pre-tokenizer and what its name implies.
#[derive(Debug)]
pub(crate) struct PreTokenizer {
    /// Names in `tokenizer.ggml.pre`; the first is the usual one.
    pub(crate) names: &'static [&'static str],
    /// Calls back with each word, in order; together they are the text.
    pub(crate) split: Split,
    /// A word that is a token is taken whole, whatever the merges would make of it.
    pub(crate) ignore_merges: bool,
    /// BOS is added unless the file says otherwise.
    pub(crate) add_bos: bool,
}

/// All of them. Names that llama.cpp treats alike share a line.
static TABLE: &[PreTokenizer] = &[
    PreTokenizer { names: &["default"], split: fallback::split, ignore_merges: false, add_bos: false },
    PreTokenizer {
        names: &["gpt-2", "phi-2", "mpt", "olmo"],
        split: gpt2::split,
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3"],
        split: llama3::split::<3>,
        ignore_merges: true,
        add_bos: true,
    },
    PreTokenizer {
        names: &["dbrx", "smaug-bpe"],
        split: llama3::split::<3>,
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["qwen2", "stablelm2", "deepseek-r1-qwen"],
        split: llama3::split::<1>,
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r"],
        split: smollm::split,
        ignore_merges: false,
        add_bos: false,
    },
];

/// The pre-tokenizer of that name, with the name.
pub(crate) fn by_name(name: &str) -> Option<(&'static PreTokenizer, &'static str)> {
    TABLE.iter().find_map(|pre| pre.names.iter().find(|known| **known == name).map(|known| (pre, *known)))
}

/// Every known name, comma-separated.
pub(crate) fn names() -> String {
    TABLE.iter().flat_map(|pre| pre.names).copied().collect::<Vec<_>>().join(", ")
}

/// Calls back with `text` unless it's empty.
fn emit(text: &str, word: &mut dyn FnMut(&str)) {
    if !text.is_empty() {
        word(text);
    }
}

/// Cuts `text` where `next` says how many bytes the word at its beginning has (at least one character).
fn words(mut text: &str, next: impl Fn(&str) -> usize, word: &mut dyn FnMut(&str)) {
    while !text.is_empty() {
        let (head, tail) = text.split_at(next(text));
        word(head);
        text = tail;
    }
}

/// `[^\s\p{L}\p{N}]`
fn is_symbol(class: Class) -> bool {
    !matches!(class, Class::Space | Class::Letter | Class::Number)
}

/// `'s|'t|'re|'ve|'m|'ll|'d`, in lower case or in either: bytes matched, or zero.
fn contraction(text: &str, any_case: bool) -> usize {
    let mut tail = [0; 2];
    let [b'\'', rest @ ..] = text.as_bytes() else { return 0 };
    for (slot, byte) in tail.iter_mut().zip(rest) {
        *slot = if any_case { byte.to_ascii_lowercase() } else { *byte };
    }
    match tail {
        [b's' | b't' | b'm' | b'd', _] => 2,
        [b'r' | b'v', b'e'] | [b'l', b'l'] => 3,
        _ => 0,
    }
}

/// `\s+(?!\S)|\s+` on a text that begins with white space: all of it at the end of the text, else all but the last
/// character, which belongs to the next word, and that one where it's alone.
fn white_space(text: &str) -> usize {
    let end = run(text, |class| class == Class::Space);
    if end == text.len() {
        return end;
    }
    let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
    if last == end { end } else { end - last }
}

#[cfg(test)]
#[path = "pre/tests.rs"]
mod tests;
