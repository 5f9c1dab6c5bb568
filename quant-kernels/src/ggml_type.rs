//! The type table: ggml's tensor types with their ids, names and block geometry (ggml 0.26, `ggml.h`).

use std::fmt;

macro_rules! ggml_types {
    ($($(#[$doc:meta])* $id:literal $variant:ident $name:literal $len:literal $bytes:literal;)*) => {
        /// A tensor type of ggml. The discriminant is the id in GGUF files.
        #[allow(non_camel_case_types, reason = "the field's own spelling")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[repr(u32)]
        pub enum GgmlType { $($(#[$doc])* $variant = $id,)* }

        impl GgmlType {
            /// Every type, in the order of ids.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The type with this id in GGUF files.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }

            /// ggml's name: `q4_K`, `iq2_xxs`, `f16`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Values in a block.
            pub const fn block_len(self) -> usize {
                match self { $(Self::$variant => $len,)* }
            }

            /// Bytes of a block.
            pub const fn block_bytes(self) -> usize {
                match self { $(Self::$variant => $bytes,)* }
            }
        }
    };
}

ggml_types! {
    /// 32-bit float.
    0 F32 "f32" 1 4;
    /// 16-bit float.
    1 F16 "f16" 1 2;
    /// 4 bits, scale.
    2 Q4_0 "q4_0" 32 18;
    /// 4 bits, scale and minimum.
    3 Q4_1 "q4_1" 32 20;
    /// 5 bits, scale.
    6 Q5_0 "q5_0" 32 22;
    /// 5 bits, scale and minimum.
    7 Q5_1 "q5_1" 32 24;
    /// 8 bits, scale.
    8 Q8_0 "q8_0" 32 34;
    /// 8 bits, scale and sum: an activation format.
    9 Q8_1 "q8_1" 32 36;
    /// 2 bits, K-quant.
    10 Q2_K "q2_K" 256 84;
    /// 3 bits, K-quant.
    11 Q3_K "q3_K" 256 110;
    /// 4 bits, K-quant.
    12 Q4_K "q4_K" 256 144;
    /// 5 bits, K-quant.
    13 Q5_K "q5_K" 256 176;
    /// 6 bits, K-quant.
    14 Q6_K "q6_K" 256 210;
    /// 8 bits, f32 scale and sums: an activation format.
    15 Q8_K "q8_K" 256 292;
    /// 2.06 bits, codebook.
    16 IQ2_XXS "iq2_xxs" 256 66;
    /// 2.31 bits, codebook.
    17 IQ2_XS "iq2_xs" 256 74;
    /// 3.06 bits, codebook.
    18 IQ3_XXS "iq3_xxs" 256 98;
    /// 1.56 bits, codebook.
    19 IQ1_S "iq1_s" 256 50;
    /// 4.5 bits, non-linear levels.
    20 IQ4_NL "iq4_nl" 32 18;
    /// 3.44 bits, codebook.
    21 IQ3_S "iq3_s" 256 110;
    /// 2.5 bits, codebook.
    22 IQ2_S "iq2_s" 256 82;
    /// 4.25 bits, non-linear levels.
    23 IQ4_XS "iq4_xs" 256 136;
    /// 8-bit integer.
    24 I8 "i8" 1 1;
    /// 16-bit integer.
    25 I16 "i16" 1 2;
    /// 32-bit integer.
    26 I32 "i32" 1 4;
    /// 64-bit integer.
    27 I64 "i64" 1 8;
    /// 64-bit float.
    28 F64 "f64" 1 8;
    /// 1.75 bits, codebook.
    29 IQ1_M "iq1_m" 256 56;
    /// The upper half of an f32.
    30 BF16 "bf16" 1 2;
    /// Ternary, base-3 packed.
    34 TQ1_0 "tq1_0" 256 54;
    /// Ternary, 2 bits.
    35 TQ2_0 "tq2_0" 256 66;
    /// OCP microscaling 4-bit float.
    39 MXFP4 "mxfp4" 32 17;
    /// NVIDIA 4-bit float, scale per 16.
    40 NVFP4 "nvfp4" 64 36;
    /// Sign bits with a scale.
    41 Q1_0 "q1_0" 128 18;
    /// 2 bits with a scale.
    42 Q2_0 "q2_0" 64 18;
}

impl GgmlType {
    /// The id in GGUF files.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The type with this name, letter case aside.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|ty| ty.name().eq_ignore_ascii_case(name))
    }

    /// Bytes of `values` consecutive values; `None` if they are not whole blocks or overflow.
    pub const fn bytes_of(self, values: u64) -> Option<u64> {
        let len = self.block_len() as u64;
        if !values.is_multiple_of(len) {
            return None;
        }
        (values / len).checked_mul(self.block_bytes() as u64)
    }

    /// Bytes of a row of `cols` values that is already known to fit in memory.
    pub const fn row_bytes(self, cols: usize) -> usize {
        cols / self.block_len() * self.block_bytes()
    }

    /// Storage in bits per value.
    pub fn bits_per_value(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block_len() as f64
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_round_trip() {
        for &ty in GgmlType::ALL {
            assert_eq!(GgmlType::from_id(ty.id()), Some(ty));
            assert_eq!(GgmlType::from_name(ty.name()), Some(ty));
        }
        assert_eq!(GgmlType::from_id(4), None);
    }

    #[test]
    fn bytes_of_checks_blocks_and_overflow() {
        assert_eq!(GgmlType::Q4_K.bytes_of(512), Some(288));
        assert_eq!(GgmlType::Q4_K.bytes_of(100), None);
        assert_eq!(GgmlType::F64.bytes_of(u64::MAX), None);
    }
}
