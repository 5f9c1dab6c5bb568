//! Codes of 1 to 8 bits one after the other, lowest bit first: code `i` begins at bit `i * bits`.

/// Bytes of `count` codes.
pub(super) const fn packed_bytes(count: usize, bits: usize) -> usize {
    (count * bits).div_ceil(8)
}

/// Packs codes into `out`, whose length is [`packed_bytes`].
pub(super) fn pack(codes: impl Iterator<Item = u8>, bits: usize, out: &mut [u8]) {
    let (mut word, mut held) = (0u16, 0);
    let mut bytes = out.iter_mut();
    for code in codes {
        word |= u16::from(code) << held;
        held += bits;
        if held >= 8 {
            if let Some(byte) = bytes.next() {
                *byte = word as u8;
            }
            word >>= 8;
            held -= 8;
        }
    }
    if let Some(byte) = bytes.next() {
        *byte = word as u8;
    }
}

/// The codes of `packed`; the caller takes as many as there are.
pub(super) fn unpack(packed: &[u8], bits: usize) -> impl Iterator<Item = u8> + '_ {
    let mask = ((1u16 << bits) - 1) as u8;
    (0..packed.len() * 8 / bits).map(move |i| {
        let at = i * bits;
        let low = u16::from(packed[at / 8]);
        let high = packed.get(at / 8 + 1).map_or(0, |byte| u16::from(*byte));
        ((low | high << 8) >> (at % 8)) as u8 & mask
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_return() {
        for bits in 1..=8 {
            for count in [1, 7, 8, 20, 128] {
                let codes: Vec<u8> =
                    (0..count).map(|i| (i * 37 + i / 3) as u8 & ((1u16 << bits) - 1) as u8).collect();
                let mut packed = vec![0; packed_bytes(count, bits)];
                pack(codes.iter().copied(), bits, &mut packed);
                assert!(unpack(&packed, bits).take(count).eq(codes), "{bits} bits, {count} codes");
            }
        }
    }
}
