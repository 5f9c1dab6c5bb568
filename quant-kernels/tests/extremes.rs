//! The largest sums there are: every code and sub-scale at an end of its range against activations of one size.
//! A product or partial sum that leaves its integer type on some tier shows here and hardly ever on random values.

use quant_kernels::activations::Acts;
use quant_kernels::matmul::MatmulScratch;
use quant_kernels::types::table;
use quant_kernels::{Activations, GgmlType, Isa, Kernels, Projection, Serial, Weight};

/// Types with where the f16 scales of a block lie.
const TYPES: [(GgmlType, &[usize]); 5] = [
    (GgmlType::Q4_0, &[0]),
    (GgmlType::Q8_0, &[0]),
    (GgmlType::Q4_K, &[0, 2]),
    (GgmlType::Q5_K, &[0, 2]),
    (GgmlType::Q6_K, &[208]),
];

const ROWS: usize = 9;
const COLS: usize = 512;
/// Enough for every tile of tokens that the tiers have.
const TOKENS: usize = 12;

/// The scalar dots of all rows and tokens, `[token][row]`.
fn expected(ty: GgmlType, weight: &Weight<'_>, x: &[f32]) -> Vec<f32> {
    let kernels = table(Isa::Scalar).into_iter().find(|k| k.ty == ty).expect("a type with arithmetic");
    let len = kernels.acts.block_len();
    let mut acts = Acts { kind: Some(kernels.acts), tokens: TOKENS, cols: COLS, ..Acts::default() };
    acts.q = vec![0; TOKENS * COLS];
    acts.sums = vec![0; TOKENS * COLS / 16];
    acts.d = vec![0.0; TOKENS * COLS / len];
    for b in 0..COLS / len {
        for t in 0..TOKENS {
            let at = acts.place(b, t, len);
            acts.d[at] = Acts::quantize_block(
                &x[t * COLS + b * len..][..len],
                &mut acts.q[at * len..][..len],
                &mut acts.sums[at * len / 16..][..len / 16],
            );
        }
    }
    (0..TOKENS * ROWS).map(|i| (kernels.dot)(weight.row(i % ROWS), &acts, i / ROWS)).collect()
}

#[test]
fn no_sum_leaves_its_integer_type() {
    // Tokens, twice: all up, all down, alternating in runs of 1, 2, 4 and 16.
    let mut x = vec![1f32; TOKENS * COLS];
    for (t, token) in x.chunks_exact_mut(COLS).enumerate() {
        for (i, value) in token.iter_mut().enumerate() {
            let down = match t % 6 {
                0 => false,
                1 => true,
                _ => i / [1, 2, 4, 16][t % 6 - 2] % 2 == 1,
            };
            if down {
                *value = -1.0;
            }
        }
    }
    for (ty, scales) in TYPES {
        for fill in [0x00u8, 0xff, 0x80, 0x7f, 0x88, 0x0f] {
            let mut bytes = vec![fill; ty.row_bytes(COLS) * ROWS];
            for block in bytes.chunks_exact_mut(ty.block_bytes()) {
                for &at in scales {
                    block[at..at + 2].copy_from_slice(&0x3c00u16.to_le_bytes());
                }
            }
            let weight = Weight::new(ty, ROWS, COLS, &bytes).expect("a valid shape");
            let want = expected(ty, &weight, &x);
            for isa in Isa::available() {
                let kernels = Kernels::new(isa);
                let mut scratch = MatmulScratch::default();
                for tokens in [1, 2, 4, TOKENS] {
                    let mut got = vec![f32::NAN; tokens * ROWS];
                    for first in (0..TOKENS).step_by(tokens) {
                        let projection = Projection { weight, bias: None, out: &mut got };
                        let x = &x[first * COLS..][..tokens * COLS];
                        kernels
                            .matmul(&Serial, &mut scratch, Activations::Auto, x, tokens, &mut [projection])
                            .expect("shapes fit");
                        let want = &want[first * ROWS..][..tokens * ROWS];
                        assert_eq!(got, want, "{ty} on {isa}, bytes {fill:#x}, {tokens} tokens from {first}");
                    }
                }
            }
        }
    }
}
