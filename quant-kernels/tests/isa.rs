//! Names of tiers, and that a CPU's tiers are those it says it has.

use quant_kernels::{Isa, Kernels};

#[test]
fn names_lead_back_to_their_tiers() {
    for isa in Isa::available() {
        assert_eq!(Isa::from_name(isa.name()), Ok(isa));
        assert_eq!(isa.to_string(), isa.name());
        assert_eq!(Kernels::new(isa).isa(), isa);
    }
    assert!(Isa::from_name("altivec").is_err());
}

#[test]
fn scalar_is_first_and_the_best_last() {
    let available = Isa::available();
    assert_eq!(available.first(), Some(&Isa::Scalar));
    assert_eq!(available.last(), Some(&Isa::detect()));
}

#[test]
fn neon_is_the_best_of_its_levels() {
    let best = Isa::available().into_iter().rfind(|isa| matches!(isa, Isa::Neon(_)));
    assert_eq!(Isa::from_name("neon").ok(), best);
    assert_eq!(best.is_some(), cfg!(target_arch = "aarch64"));
}
