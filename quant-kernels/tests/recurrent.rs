//! DeltaNet's state update and the causal convolution: every tier, thread count and chunking has the bits of the
//! formula in plain loops.

use proptest::prelude::*;
use quant_kernels::causal_conv1d::{CausalConv1d, ConvActivation};
use quant_kernels::delta_net::{DeltaNet, DeltaNetInput, KeyHeads};
use quant_kernels::exp::exp;
use quant_kernels::l2_norm::l2_norm;
use quant_kernels::sigmoid::{sigmoid, sigmoid_mul};
use quant_kernels::silu::silu;
use quant_kernels::softplus::softplus;
use quant_kernels::{Isa, Parallel, Serial, Team, types};

/// Values in -1..1, from a seed.
fn floats(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// All inputs of some tokens.
struct Tokens {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    g: Vec<f32>,
    beta: Vec<f32>,
}

impl Tokens {
    fn new(net: &DeltaNet, tokens: usize, seed: u64) -> Self {
        let keys = tokens * net.key_heads * net.key_dim;
        Self {
            q: floats(seed, keys),
            k: floats(seed + 1, keys),
            v: floats(seed + 2, tokens * net.heads * net.value_dim),
            g: floats(seed + 3, tokens * net.heads).iter().map(|g| -g.abs()).collect(),
            beta: floats(seed + 4, tokens * net.heads).iter().map(|b| b.abs()).collect(),
        }
    }

    /// Tokens `from..to`.
    fn part(&self, net: &DeltaNet, from: usize, to: usize) -> DeltaNetInput<'_> {
        let (keys, values) = (net.key_heads * net.key_dim, net.heads * net.value_dim);
        DeltaNetInput {
            q: &self.q[from * keys..to * keys],
            k: &self.k[from * keys..to * keys],
            v: &self.v[from * values..to * values],
            g: &self.g[from * net.heads..to * net.heads],
            beta: &self.beta[from * net.heads..to * net.heads],
        }
    }
}

/// The formula of the module's documentation.
fn delta_net(net: &DeltaNet, input: &Tokens, tokens: usize, state: &mut [f32]) -> Vec<f32> {
    let mut out = Vec::new();
    let (dk, dv) = (net.key_dim, net.value_dim);
    for t in 0..tokens {
        for h in 0..net.heads {
            let key_head = match net.sharing {
                KeyHeads::Tiled => h % net.key_heads,
                KeyHeads::Grouped => h * net.key_heads / net.heads,
            };
            let key = &input.k[(t * net.key_heads + key_head) * dk..][..dk];
            let query = &input.q[(t * net.key_heads + key_head) * dk..][..dk];
            let at = t * net.heads + h;
            let s = &mut state[h * dk * dv..][..dk * dv];
            let decay = exp(input.g[at]);
            for c in 0..dv {
                let product = (0..dk).fold(0.0, |sum, r| sum + (s[r * dv + c] * decay) * key[r]);
                let delta = (input.v[at * dv + c] - product) * input.beta[at];
                let mut o = 0.0;
                for r in 0..dk {
                    s[r * dv + c] = s[r * dv + c] * decay + key[r] * delta;
                    o += s[r * dv + c] * query[r];
                }
                out.push(o);
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn delta_net_has_one_result(
        key_heads in 1usize..3,
        share in 1usize..4,
        key_dim in prop::sample::select(vec![1usize, 7, 32, 128]),
        value_dim in prop::sample::select(vec![1usize, 16, 24, 64, 128, 150]),
        tiled: bool,
        tokens in 1usize..6,
        cut in 0usize..6,
        seed in 0u64..1 << 40,
    ) {
        let sharing = if tiled { KeyHeads::Tiled } else { KeyHeads::Grouped };
        let net = DeltaNet { heads: key_heads * share, key_heads, key_dim, value_dim, sharing };
        let input = Tokens::new(&net, tokens, seed);
        let start = floats(seed + 9, net.state_len());
        let mut expected_state = start.clone();
        let expected = delta_net(&net, &input, tokens, &mut expected_state);
        let team = Team::new(3).expect("threads");
        let (cut, width) = (cut.min(tokens), net.heads * value_dim);
        for isa in Isa::available() {
            for parallel in [&Serial as &dyn Parallel, &team] {
                let (mut state, mut out) = (start.clone(), vec![f32::NAN; tokens * width]);
                let (a, b) = out.split_at_mut(cut * width);
                net.forward(isa, parallel, input.part(&net, 0, cut), &mut state, a).expect("shapes");
                net.forward(isa, parallel, input.part(&net, cut, tokens), &mut state, b).expect("shapes");
                prop_assert_eq!(bits(&out), bits(&expected));
                prop_assert_eq!(bits(&state), bits(&expected_state));
            }
        }
    }

    #[test]
    fn convolutions_look_back_over_any_cut(
        channels in 1usize..70,
        kernel in 1usize..5,
        tokens in 0usize..40,
        cut in 0usize..40,
        with_silu: bool,
        seed in 0u64..1 << 40,
    ) {
        let weight = floats(seed, kernel * channels);
        let activation = if with_silu { ConvActivation::Silu } else { ConvActivation::None };
        let conv = CausalConv1d { weight: &weight, channels, activation };
        let (past, x) = (floats(seed + 1, (kernel - 1) * channels), floats(seed + 2, tokens * channels));
        let all: Vec<f32> = past.iter().chain(&x).copied().collect();
        let expected: Vec<f32> = (0..tokens * channels)
            .map(|i| {
                let sum = (0..kernel).fold(0.0, |sum, j| sum + weight[j * channels + i % channels] * all[i + j * channels]);
                if with_silu { silu(sum) } else { sum }
            })
            .collect();
        let team = Team::new(2).expect("threads");
        let cut = cut.min(tokens) * channels;
        for isa in Isa::available() {
            for parallel in [&Serial as &dyn Parallel, &team] {
                let (mut state, mut out) = (past.clone(), vec![f32::NAN; x.len()]);
                let (a, b) = out.split_at_mut(cut);
                conv.forward(isa, parallel, &x[..cut], &mut state, a).expect("shapes");
                conv.forward(isa, parallel, &x[cut..], &mut state, b).expect("shapes");
                prop_assert_eq!(bits(&out), bits(&expected));
                prop_assert_eq!(&state, &all[all.len() - past.len()..]);
            }
        }
    }

    #[test]
    fn l2_norm_has_the_contracts_sum(x in prop::collection::vec(-4f32..4.0, 1..200), scale in 0.01f32..2.0) {
        let mut lanes = [0f32; 16];
        x.iter().enumerate().for_each(|(i, x)| lanes[i % 16] += x * x);
        let r = 1.0 / (types::f32::tree(lanes) + 1e-6).sqrt();
        let expected: Vec<f32> = x.iter().map(|x| (x * r) * scale).collect();
        for isa in Isa::available() {
            let mut got = x.clone();
            l2_norm(isa, &mut got, 1e-6, scale);
            prop_assert_eq!(bits(&got), bits(&expected));
        }
    }

    #[test]
    fn gates_are_close_to_their_functions(x in -30f32..30.0) {
        let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
        prop_assert!((f64::from(sigmoid(x)) / exact - 1.0).abs() < 3e-7);
        let mut row = vec![2.0; 33];
        sigmoid_mul(Isa::detect(), &mut row, &[x; 33]);
        prop_assert!(row.iter().all(|y| *y == 2.0 * sigmoid(x)));
        let exact = f64::from(x).exp().ln_1p();
        prop_assert!((f64::from(softplus(x)) / exact - 1.0).abs() < 2e-7);
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let net = DeltaNet { heads: 3, key_heads: 2, key_dim: 4, value_dim: 4, sharing: KeyHeads::Tiled };
    let empty = DeltaNetInput { q: &[], k: &[], v: &[], g: &[], beta: &[] };
    assert!(
        net.forward(Isa::Scalar, &Serial, empty, &mut [0.0; 48], &mut []).is_err(),
        "2 does not divide 3"
    );
    let none = DeltaNet { key_heads: 0, ..net };
    let beta = [0.0; 3];
    let token = DeltaNetInput { v: &[0.0; 12], g: &beta, beta: &beta, ..empty };
    assert!(
        none.forward(Isa::Scalar, &Serial, token, &mut [0.0; 48], &mut [0.0; 12]).is_err(),
        "no key heads"
    );
    let net = DeltaNet { heads: 2, ..net };
    assert!(net.forward(Isa::Scalar, &Serial, empty, &mut [0.0; 31], &mut []).is_err());
    assert!(net.forward(Isa::Scalar, &Serial, empty, &mut [0.0; 32], &mut []).is_ok());
    let conv = CausalConv1d { weight: &[1.0; 8], channels: 2, activation: ConvActivation::None };
    assert!(conv.forward(Isa::Scalar, &Serial, &[0.0; 3], &mut [0.0; 6], &mut [0.0; 3]).is_err());
    assert!(conv.forward(Isa::Scalar, &Serial, &[0.0; 4], &mut [0.0; 5], &mut [0.0; 4]).is_err());
    let none = CausalConv1d { weight: &[], channels: 0, activation: ConvActivation::None };
    assert!(none.forward(Isa::Scalar, &Serial, &[], &mut [], &mut []).is_err());
}
