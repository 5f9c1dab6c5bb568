//! What comes from outside, made up: policies and the parts of snapshots.

mod common;
#[path = "common/exercise.rs"]
mod exercise;

use proptest::prelude::*;

#[test]
fn good_ones_are_accepted() {
    for (name, bytes) in exercise::seeds() {
        assert!(exercise::parts(&bytes), "{name}");
    }
    for text in
        ["auto,drop=4", "k=8,v=4,window=256,sinks=128,boundary=2,sliding=f16", "tiers=8@0/4@256/2@512"]
    {
        assert!(exercise::policy(text), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_parts(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        exercise::parts(&bytes);
    }

    /// Close to those that are accepted.
    #[test]
    fn changed_parts(
        which in 0..3usize,
        changes in proptest::collection::vec((0..50usize, any::<u8>()), 1..4),
    ) {
        let mut bytes = exercise::seeds().swap_remove(which).1;
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        exercise::parts(&bytes);
    }

    #[test]
    fn any_policy(text in "((k|v|window|sinks|boundary|sliding|tiers|drop)=(f16|f32|auto|planes-[1-9]|q[48]_0|[0-9]{1,4}|[2-8]@[0-9]{1,4}),?){0,6}|[a-z0-9=,.@/-]{0,24}|\\PC{0,40}") {
        exercise::policy(&text);
    }
}
