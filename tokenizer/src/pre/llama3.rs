//! Llama 3 (up to three digits a word) and Qwen 2 (one digit a word).

use super::{contraction, is_symbol, white_space, words};
use crate::unicode::{Class, first, run};

/// The splitter for words of at most `DIGITS` digits.
pub(super) fn split<const DIGITS: usize>(text: &str, word: &mut dyn FnMut(&str)) {
    words(text, next::<DIGITS>, word);
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|`
/// `\s+(?!\S)|\s+`, the contractions in ASCII only.
fn next<const DIGITS: usize>(text: &str) -> usize {
    let contraction = contraction(text, true);
    if contraction > 0 {
        return contraction;
    }
    let Some((c, class, len)) = first(text) else { return 0 };
    let rest = &text[len..];
    if class == Class::Number {
        return len + digits(rest, DIGITS - 1);
    }
    let letters = if matches!(c, '\r' | '\n') { 0 } else { run(rest, |class| class == Class::Letter) };
    if class == Class::Letter || letters > 0 {
        return len + letters;
    }
    let space = usize::from(c == ' ');
    let symbols = run(&text[space..], is_symbol);
    if symbols > 0 {
        let end = space + symbols;
        return end + text[end..].bytes().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    }
    // White space: through the last line break of the run, if there is one.
    let end = run(text, |class| class == Class::Space);
    match text[..end].rfind(['\r', '\n']) {
        Some(line_break) => line_break + 1,
        None => white_space(text),
    }
}

/// Bytes of the first `most` digits at the beginning of `text`.
fn digits(text: &str, most: usize) -> usize {
    let mut end = 0;
    for _ in 0..most {
        match first(&text[end..]) {
            Some((_, Class::Number, len)) => end += len,
            _ => break,
        }
    }
    end
}
