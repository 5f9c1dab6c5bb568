//! Any file as a saved session, and saved sessions with changes that their checksum knows of: an error, or a session.
#![no_main]

#[path = "../../tests/common/exercise.rs"]
mod exercise;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    exercise::snapshot(bytes);
});
