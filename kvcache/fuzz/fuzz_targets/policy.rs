//! Any text as a policy: an error, or a policy that prints as what it is and can be planned with.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/common/exercise.rs"]
mod exercise;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    exercise::policy(text);
});
