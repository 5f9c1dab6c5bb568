//! Checks of a type against ggml's own bytes and values (test code).

use super::DequantizeFn;
use quant_fixtures::{Tensor, committed, safetensors};
use std::collections::BTreeMap;

fn goldens() -> BTreeMap<String, Tensor> {
    safetensors(&committed("oracle/dequant/dequant.safetensors"))
}

/// Random valid blocks and ggml's quantization of a fixed input must dequantize to ggml's values, bit for bit.
pub fn check_dequantize(name: &str, dequantize: DequantizeFn) {
    let goldens = goldens();
    let mut checked = 0;
    for (bytes, values) in [("blocks", "values"), ("quant.bytes", "quant.values")] {
        let (Some(bytes), Some(values)) =
            (goldens.get(&format!("{name}.{bytes}")), goldens.get(&format!("{name}.{values}")))
        else {
            continue;
        };
        let expected = values.f32();
        let mut got = vec![f32::NAN; expected.len()];
        dequantize(&bytes.bytes, &mut got);
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert_eq!(got.to_bits(), expected.to_bits(), "{name}: value {i}: {got} instead of {expected}");
        }
        checked += 1;
    }
    assert!(checked > 0, "no goldens for {name}");
}

/// ggml's quantization (no importance matrix) of the fixed input must come out byte for byte.
pub fn check_quantize(name: &str, quantize: fn(&[f32], &mut [u8])) {
    let goldens = goldens();
    let input = goldens["quant.input"].f32();
    let expected = &goldens[&format!("{name}.quant.bytes")].bytes;
    let mut got = vec![0; expected.len()];
    quantize(&input, &mut got);
    assert!(got == *expected, "{name}: quantized bytes differ");
}
