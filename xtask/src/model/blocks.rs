//! Random weights of every type: random codes under small sane scales, so that values neither vanish nor explode. Minima
//! are as large as the mean of what they are taken from, as trained weights have it: with weights of one sign all
//! activations soon would be of one sign, too.

use half::f16;
use quant_kernels::GgmlType;

/// Where a block keeps its scales.
enum Scales {
    /// f16 at this byte.
    F16(usize),
    /// f16 at the first byte, and at the second byte the f16 of the minima, so many times as large.
    Minima(usize, usize, f32),
    /// Every 2 bytes are a float of 16 bits, or the upper half of every 4.
    Floats,
    /// One byte, a power of two.
    Exponent,
    /// Bytes of unsigned 8-bit floats from the start.
    Small(usize),
    /// IQ1_M: the upper nibbles of four 16-bit words at the end.
    Nibbles,
}

fn scales(ty: GgmlType) -> Scales {
    use GgmlType as T;
    match ty {
        T::F16 | T::BF16 | T::F32 => Scales::Floats,
        T::Q2_K => Scales::Minima(80, 82, 1.5),
        T::Q3_K => Scales::F16(108),
        T::Q4_K => Scales::Minima(0, 2, 7.5),
        T::Q5_K => Scales::Minima(0, 2, 15.5),
        T::Q4_1 => Scales::Minima(0, 2, -7.5),
        T::Q5_1 => Scales::Minima(0, 2, -15.5),
        T::Q6_K => Scales::F16(208),
        T::TQ1_0 => Scales::F16(52),
        T::TQ2_0 => Scales::F16(64),
        T::MXFP4 => Scales::Exponent,
        T::NVFP4 => Scales::Small(4),
        T::IQ1_M => Scales::Nibbles,
        _ => Scales::F16(0),
    }
}

/// `bytes` of whole blocks.
pub fn random(ty: GgmlType, bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut all = vec![0; bytes];
    for chunk in all.chunks_mut(8) {
        chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]);
    }
    // f16 magnitudes of about 2^-10: activations neither vanish nor explode over a few layers.
    let mut scale = move || 0x1400u16 + (next() % 0x400) as u16;
    let scales = scales(ty);
    for block in all.chunks_exact_mut(ty.block_bytes()) {
        match scales {
            Scales::F16(at) => block[at..at + 2].copy_from_slice(&scale().to_le_bytes()),
            Scales::Minima(at, minimum, times) => {
                let scale = f16::from_bits(scale());
                block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
                let minima = f16::from_f32(scale.to_f32() * times);
                block[minimum..minimum + 2].copy_from_slice(&minima.to_le_bytes());
            }
            // The exponent's byte: small and normal in f16, bf16 and f32 alike.
            Scales::Floats => {
                if let Some(last) = block.last_mut() {
                    *last = *last & 0x83 | 0x3c;
                }
            }
            Scales::Exponent => block[0] = 117,
            Scales::Small(count) => block[..count].fill(0x20),
            Scales::Nibbles => {
                let scale = scale();
                for (word, place) in (48..56).step_by(2).enumerate() {
                    let nibble = (scale >> (4 * word) & 15) as u8;
                    block[place + 1] = block[place + 1] & 15 | nibble << 4;
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use quant_kernels::{Isa, Kernels};

    #[test]
    fn values_of_every_type_are_finite_and_not_all_zero() {
        let kernels = Kernels::new(Isa::Scalar);
        for kernels in GgmlType::ALL.iter().filter_map(|&ty| kernels.of(ty)) {
            let bytes = random(kernels.ty, kernels.ty.row_bytes(2048) * 4, 7);
            let mut values = vec![0.0; 8192];
            (kernels.dequantize)(&bytes, &mut values);
            assert!(values.iter().all(|value: &f32| value.abs() < 1e3), "{}", kernels.ty);
            assert!(values.iter().any(|value| *value != 0.0), "{}", kernels.ty);
        }
    }
}
