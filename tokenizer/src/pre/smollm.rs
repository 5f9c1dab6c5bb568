//! SmolLM (and StarCoder): each digit is a word, what's between them is cut as GPT-2 does.

use super::gpt2;
use crate::unicode::{Class, first, run};

/// `\p{N}`, then GPT-2's expression on the rest.
pub(super) fn split(mut text: &str, word: &mut dyn FnMut(&str)) {
    while !text.is_empty() {
        let (head, tail) = text.split_at(run(text, |class| class != Class::Number));
        gpt2::split(head, word);
        let digit = first(tail).map_or(0, |(_, _, len)| len);
        if digit > 0 {
            word(&tail[..digit]);
        }
        text = &tail[digit..];
    }
}
