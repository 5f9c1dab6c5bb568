//! Dwords of several tokens, side by side.

use std::arch::x86_64::*;

/// Dwords `i` of all `T` sources, which are of the same length, become dwords `T i..T i + T` of `out`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn interleave<const T: usize>(sources: [&[[u8; 4]]; T], out: &mut [[u8; 4]]) {
    let len = sources[0].len();
    assert!(sources.iter().all(|source| source.len() == len) && out.len() == T * len, "another length");
    let lanes: [Lanes<T>; T] = const { Lanes::all() };
    for first in (0..len).step_by(16) {
        let count = (len - first).min(16);
        let mut from = [_mm512_setzero_si512(); T];
        for t in 0..T {
            // SAFETY: `count` dwords of the source from `first` on.
            from[t] = unsafe {
                _mm512_maskz_loadu_epi32(first_lanes(count), sources[t].as_ptr().add(first).cast())
            };
        }
        for (o, lanes) in lanes.iter().enumerate() {
            let Some(rest @ 1..) = (T * count).checked_sub(16 * o) else { break };
            // SAFETY: 64 bytes.
            let index = unsafe { _mm512_loadu_si512(lanes.index.as_ptr().cast()) };
            let mut dwords = _mm512_setzero_si512();
            for t in 0..T {
                dwords = _mm512_mask_permutexvar_epi32(dwords, lanes.tokens[t], index, from[t]);
            }
            // SAFETY: at most `rest` dwords, of which `16 o` are before these, of the `T count` from `T first` on.
            unsafe {
                let place = out.as_mut_ptr().add(T * first + 16 * o);
                _mm512_mask_storeu_epi32(place.cast(), first_lanes(rest.min(16)), dwords);
            }
        }
    }
}

/// The first `count` of 16 lanes.
fn first_lanes(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as u16
}

/// Where the lanes of a register of results come from.
struct Lanes<const T: usize> {
    /// The dword of its source.
    index: [u32; 16],
    /// The lanes that come from each source.
    tokens: [__mmask16; T],
}

impl<const T: usize> Lanes<T> {
    /// Those of the `T` registers that 16 dwords of `T` sources fill.
    const fn all() -> [Self; T] {
        let mut all = [const { Self { index: [0; 16], tokens: [0; T] } }; T];
        let mut i = 0;
        while i < 16 * T {
            all[i / 16].index[i % 16] = (i / T) as u32;
            all[i / 16].tokens[i % T] |= 1 << (i % 16);
            i += 1;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    fn check<const T: usize>() {
        for len in [0, 1, 7, 8, 16, 24, 64, 67] {
            let sources: [Vec<[u8; 4]>; T] =
                std::array::from_fn(|t| (0..len).map(|i| [t as u8, i as u8, 3, 4]).collect());
            let mut out = vec![[9; 4]; T * len];
            // SAFETY: only called where the tier is.
            unsafe { interleave::<T>(std::array::from_fn(|t| sources[t].as_slice()), &mut out) };
            for (i, dword) in out.iter().enumerate() {
                assert_eq!(dword, &sources[i % T][i / T], "{T} sources of {len}");
            }
        }
    }

    #[test]
    fn dwords_stand_side_by_side() {
        if Isa::available().into_iter().any(|isa| matches!(isa, Isa::Avx512(_))) {
            check::<1>();
            check::<2>();
            check::<3>();
            check::<4>();
            check::<6>();
            check::<8>();
        }
    }
}
