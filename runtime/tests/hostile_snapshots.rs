//! Snapshots with changes that their checksum knows of: whatever a file says, it is refused or used, never a crash.

#[path = "common/exercise.rs"]
mod exercise;

use proptest::prelude::*;

#[test]
fn an_unchanged_one_is_accepted() {
    for how in 1..5 {
        assert!(exercise::snapshot(&[how]), "{how}");
    }
    assert!(!exercise::snapshot(&[]));
    assert!(!exercise::snapshot(&[0, 1, 2, 3]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The metadata and the tensor table lie in the first few thousand bytes.
    #[test]
    fn changed(how in 1..5u8, changes in proptest::collection::vec((0..6000u32, any::<u8>()), 0..4)) {
        let mut bytes = vec![how];
        for (at, value) in changes {
            bytes.extend(&at.to_le_bytes()[..3]);
            bytes.push(value);
        }
        exercise::snapshot(&bytes);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        exercise::snapshot(&bytes);
    }
}
