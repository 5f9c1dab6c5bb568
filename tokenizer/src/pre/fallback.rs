//! `default`: what llama.cpp takes for files that don't name their pre-tokenizer.

use super::{emit, gpt2};
use crate::unicode::{Class, class, run};

/// `[\p{P}\$\+<=>\^~\|]+`, then GPT-2's expression, `\p{N}+` and `[0-9][0-9][0-9]`, each on what the one before left
/// whole.
pub(super) fn split(mut text: &str, word: &mut dyn FnMut(&str)) {
    while !text.is_empty() {
        let start = text.find(is_mark).unwrap_or(text.len());
        let (head, tail) = text.split_at(start);
        gpt2::split(head, &mut |piece| numbers(piece, word));
        let end = tail.find(|c| !is_mark(c)).unwrap_or(tail.len());
        emit(&tail[..end], word);
        text = &tail[end..];
    }
}

fn is_mark(c: char) -> bool {
    matches!(c, '$' | '+' | '<'..='>' | '^' | '~' | '|') || class(c) == Class::Punctuation
}

/// Parts the numbers of a piece from the rest, and cuts triples of ASCII digits out of them.
fn numbers(mut text: &str, word: &mut dyn FnMut(&str)) {
    while !text.is_empty() {
        let (head, tail) = text.split_at(run(text, |class| class != Class::Number));
        emit(head, word);
        let (number, tail) = tail.split_at(run(tail, |class| class == Class::Number));
        triples(number, word);
        text = tail;
    }
}

fn triples(number: &str, word: &mut dyn FnMut(&str)) {
    let bytes = number.as_bytes();
    let (mut start, mut at) = (0, 0);
    while at + 3 <= bytes.len() {
        if bytes[at..at + 3].iter().all(u8::is_ascii_digit) {
            emit(&number[start..at], word);
            word(&number[at..at + 3]);
            at += 3;
            start = at;
        } else {
            // A byte inside a character is no ASCII digit, so a triple never begins there.
            at += 1;
        }
    }
    emit(&number[start..], word);
}
