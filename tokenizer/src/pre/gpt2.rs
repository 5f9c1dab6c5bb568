//! GPT-2: contractions, and runs of letters, digits or symbols with the space before them.

use super::{contraction, is_symbol, white_space, words};
use crate::unicode::{Class, first, run};

pub(super) fn split(text: &str, word: &mut dyn FnMut(&str)) {
    words(text, next, word);
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
fn next(text: &str) -> usize {
    let contraction = contraction(text, false);
    if contraction > 0 {
        return contraction;
    }
    let space = usize::from(text.starts_with(' '));
    match first(&text[space..]) {
        Some((_, Class::Space, _)) | None => white_space(text),
        Some((_, class @ (Class::Letter | Class::Number), _)) => space + run(&text[space..], |c| c == class),
        Some(_) => space + run(&text[space..], is_symbol),
    }
}
