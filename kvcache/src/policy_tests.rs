//! Tests of the grammar.

use super::{CodecRef, Form, Policy, Tier};
use crate::{Error, PAGE, presets};
use proptest::prelude::*;
use quant_kernels::codecs::registry;

fn planes(bits: &str) -> Form {
    Form::Coded(CodecRef::find(bits).unwrap())
}

#[test]
fn presets_are_policies_and_print_as_their_names() {
    for preset in presets::PRESETS {
        let policy: Policy = preset.name.parse().unwrap();
        assert_eq!(policy, preset.policy.parse().unwrap());
        assert_eq!(policy.to_string(), preset.name);
    }
    assert_eq!("exact".parse::<Policy>().unwrap(), Policy::F16);
    assert_eq!("f32".parse::<Policy>().unwrap(), Policy::F32);
}

#[test]
fn tiers_from_age_0_say_what_k_and_v_are() {
    let policy: Policy = "tiers=8@0/4@1024/2@8192".parse().unwrap();
    assert_eq!((policy.key, policy.value), (planes("8"), planes("8")));
    assert_eq!(policy.to_string(), "k=planes-8,v=planes-8,tiers=planes-4@1024/planes-2@8192");
    assert_eq!("k=8,v=8,tiers=8@0/4@1024/2@8192".parse::<Policy>().unwrap(), policy);
}

#[test]
fn planes_may_be_dropped_where_there_are_some() {
    let policy: Policy = "auto,drop=2".parse().unwrap();
    assert_eq!(policy, Policy { drop: Some(2), ..presets::PRESETS[4].policy.parse().unwrap() });
    assert_eq!(policy.to_string(), "auto,drop=2");
    assert_eq!("k=8,v=q8_0,drop=6".parse::<Policy>().unwrap().to_string(), "k=planes-8,v=q8_0,drop=6");
    assert_eq!("k=4,v=4,boundary=2,drop=4".parse::<Policy>().unwrap().drop, Some(4));
    for (text, why) in [
        ("f16,drop=2", "codec that has them"),
        ("k=q8_0,v=turbo-mse-4,drop=2", "codec that has them"),
        ("k=4,v=4,drop=4", "no more bits"),
        ("2.4,drop=4", "no more bits"),
        ("k=8,v=8,tiers=4@256,drop=2", "one of them"),
    ] {
        let error = text.parse::<Policy>().unwrap_err();
        assert!(
            matches!(error, Error::PolicyParts { .. }) && error.to_string().contains(why),
            "{text}: {error}"
        );
    }
}

#[test]
fn boundaries_raise_bits_as_far_as_a_family_goes() {
    let raised = |name: &str, more| CodecRef::find(name).unwrap().raised(more).name();
    assert_eq!(raised("planes-5", 2), "planes-7");
    assert_eq!(raised("planes-7", 3), "planes-8");
    assert_eq!(raised("turbo-mse-3", 2), "turbo-mse-4");
    assert_eq!(raised("q4_0", 2), "q4_0");
}

#[test]
fn errors_say_what_where_and_what_is_allowed() {
    let message = |text: &str| text.parse::<Policy>().unwrap_err().to_string();
    for (text, at, part, allowed) in [
        ("5", 1, "\"5\" is no preset", "auto"),
        ("", 1, "\"\" is no preset", "exact"),
        ("k=planes-9,v=4", 3, "\"planes-9\" is no codec", "planes-8"),
        ("k=4,v=9", 7, "\"9\" is no codec", "2 to 8"),
        ("k=4", 4, "ends too early", "v=CODEC"),
        ("k=4,v=4,k=4", 9, "\"k=4\" is given twice", "once"),
        ("k=4,v=4,window=100", 16, "\"100\"", "multiple of 128"),
        ("k=4,v=4,window=-128", 16, "\"-128\"", "multiple of 128"),
        ("k=4,v=4,sinks=99999999999999999999999", 15, "\"99999", "multiple of 128"),
        ("k=4,v=4,boundary=7", 18, "\"7\"", "0 to 6"),
        ("k=4,v=4,bits=7", 9, "\"bits\" is no setting", "boundary"),
        ("k=4,v=4,tiers=4", 15, "\"4\" is no tier", "CODEC@AGE"),
        ("k=4,v=4,tiers=2@1024/x@2048", 22, "\"x\" is no codec", "planes-8"),
        ("k=4,v=4,tiers=f16@1024", 15, "\"f16\"", "window"),
        ("k=8,v=8,drop=5", 14, "\"5\"", "2, 4 or 6"),
        ("auto,drop=x", 11, "\"x\"", "2, 4 or 6"),
        ("auto,drop=2,drop=2", 11, "\"2,drop=2\"", "2, 4 or 6"),
        ("k=4,v=4,", 9, "\"\" is no setting", "auto"),
    ] {
        let message = message(text);
        for part in [format!("character {at}"), part.to_owned(), allowed.to_owned()] {
            assert!(message.contains(&part), "{text}: {message} lacks {part}");
        }
    }
    for text in
        ["k=f32,v=f16", "k=4,v=4,window=256,tiers=2@128", "k=f16,v=f16,tiers=2@128", "k=4,v=4,tiers=8@0"]
    {
        assert!(matches!(text.parse::<Policy>(), Err(Error::PolicyParts { .. })), "{text}");
    }
}

fn codec() -> impl Strategy<Value = CodecRef> {
    (0..registry().len()).prop_map(|i| CodecRef::find(registry()[i].name).unwrap())
}

fn policy() -> impl Strategy<Value = Policy> {
    let form = || prop_oneof![1 => Just(Form::F16), 4 => codec().prop_map(Form::Coded)];
    let tiers = proptest::collection::vec((1..9usize, codec()), 0..4);
    let drop = prop_oneof![Just(None), Just(Some(2)), Just(Some(4)), Just(Some(6))];
    (form(), form(), 0..9usize, 0..3usize, 0..=6usize, any::<bool>(), tiers, drop).prop_map(
        |(key, value, window, sinks, boundary, sliding_f16, steps, drop)| {
            let mut age = window * PAGE;
            let mut tiers = Vec::new();
            if [key, value] != [Form::F16; 2] {
                for (pages, codec) in steps {
                    age += pages * PAGE;
                    tiers.push(Tier { age, codec });
                }
            }
            let (window, sinks) = (window * PAGE, sinks * PAGE);
            let policy = Policy { key, value, window, sinks, boundary, sliding_f16, tiers, drop: None };
            let dropping = Policy { drop, ..policy.clone() };
            // Not every policy has something to drop.
            if dropping.check().is_ok() { dropping } else { policy }
        },
    )
}

proptest! {
    #[test]
    fn what_is_printed_is_read(policy in policy()) {
        policy.check().unwrap();
        prop_assert_eq!(policy.to_string().parse::<Policy>().unwrap(), policy);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[kv=,@/0-9a-z_-]{0,40}|\\PC{0,40}") {
        let _ = Policy::parse(&text);
    }
}
