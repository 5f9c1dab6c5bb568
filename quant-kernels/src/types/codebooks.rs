//! The values behind indices: codebooks of the i-quants (expanded at compile time), sign patterns, and the 16
//! levels of the 4-bit types.

use super::iq_grids;
use super::scale_search::Uneven;

/// The codebooks packed: an entry holds the numbers of its values among the levels, the first value lowest; 2 bits for
/// each of 8 values, or 3 bits for each of 4. (Of the tiers only AVX-512 looks values up in registers.)
#[cfg(target_arch = "x86_64")]
pub(crate) mod packed {
    pub(crate) use super::super::iq_grids::{IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
}

/// Levels of IQ2_XXS, IQ2_XS and IQ2_S.
pub(crate) const IQ2_LEVELS: [u8; 4] = [8, 25, 43, 0];
/// Levels of IQ3_XXS.
pub(crate) const IQ3_XXS_LEVELS: [u8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
/// Levels of IQ3_S.
pub(crate) const IQ3_S_LEVELS: [u8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

/// Magnitudes of IQ2_XXS: 8 values to an entry.
pub(crate) static IQ2_XXS: [[u8; 8]; 256] = expand(&iq_grids::IQ2_XXS, IQ2_LEVELS);
/// Magnitudes of IQ2_XS: 8 values to an entry.
pub(crate) static IQ2_XS: [[u8; 8]; 512] = expand(&iq_grids::IQ2_XS, IQ2_LEVELS);
/// Magnitudes of IQ2_S: 8 values to an entry.
pub(crate) static IQ2_S: [[u8; 8]; 1024] = expand(&iq_grids::IQ2_S, IQ2_LEVELS);
/// Magnitudes of IQ3_XXS: 4 values to an entry.
pub(crate) static IQ3_XXS: [[u8; 4]; 256] = expand(&iq_grids::IQ3_XXS, IQ3_XXS_LEVELS);
/// Magnitudes of IQ3_S: 4 values to an entry.
pub(crate) static IQ3_S: [[u8; 4]; 512] = expand(&iq_grids::IQ3_S, IQ3_S_LEVELS);
/// Ternary values of IQ1_S and IQ1_M plus one: 0, 1, 2; 8 values to an entry.
pub(crate) static IQ1: [[u8; 8]; 2048] = expand(&iq_grids::IQ1_S, [0, 1, 2, 0]);

/// Levels of IQ4_NL and IQ4_XS.
pub(crate) const IQ4_LEVELS: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the values of E2M1, the 4-bit float of MXFP4 and NVFP4.
pub(crate) const FP4_LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// [`FP4_LEVELS`] in order, for the search.
pub(super) const FP4_SEARCH: Uneven<14> =
    Uneven::new(&[-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12]);

/// Code of the E2M1 value nearest to `x` times `over`, the inverse of its (halved) scale.
pub(crate) fn fp4_code(x: f32, over: f32) -> u8 {
    let index = FP4_SEARCH.index(x * over);
    if index < 7 { 15 - index } else { index - 7 }
}

/// Replaces the indices of each entry by `levels`; an index has as many bits as `LEVELS` asks for.
const fn expand<const N: usize, const VALUES: usize, const LEVELS: usize>(
    packed: &[u16; N],
    levels: [u8; LEVELS],
) -> [[u8; VALUES]; N] {
    let mut grid = [[0; VALUES]; N];
    let mut entry = 0;
    while entry < N {
        let mut i = 0;
        while i < VALUES {
            let index = packed[entry] >> (i as u32 * LEVELS.ilog2()) & (LEVELS - 1) as u16;
            grid[entry][i] = levels[index as usize];
            i += 1;
        }
        entry += 1;
    }
    grid
}

/// Eight sign bits of which seven are stored: the eighth makes their number even.
pub(crate) const fn even_signs(seven: u32) -> u8 {
    let seven = (seven & 127) as u8;
    seven | ((seven.count_ones() as u8 & 1) << 7)
}

/// Writes `magnitudes` with the signs of the low bits of `signs` (set: negative). Magnitudes are at most 62.
pub(crate) fn signed(magnitudes: &[u8], signs: u8, out: &mut [i8]) {
    for (i, (out, &magnitude)) in out.iter_mut().zip(magnitudes).enumerate() {
        let negative = signs >> i & 1 != 0;
        *out = if negative { -(magnitude as i8) } else { magnitude as i8 };
    }
}

/// Code of the E2M1 value nearest to `x` with the (halved) scale `d`, the lowest code on a tie.
pub(crate) fn nearest_fp4(x: f32, d: f32) -> u8 {
    let error = |code: usize| (f32::from(FP4_LEVELS[code]) * d - x).abs();
    (1..16).fold(0, |best, code| if error(code) < error(best) { code } else { best }) as u8
}

/// Eight times (ternary value plus or minus 1/8): the integer codes of IQ1_S and IQ1_M.
pub(crate) fn shifted_ternary(entry: &[u8; 8], negative: bool) -> [i8; 8] {
    let shift = if negative { -1 } else { 1 };
    entry.map(|ternary| (ternary as i8 - 1) * 8 + shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_signs_are_even() {
        assert!((0..128).all(|s| even_signs(s).count_ones().is_multiple_of(2)));
        assert_eq!([even_signs(1), even_signs(3), even_signs(127)], [129, 3, 255]);
    }

    #[test]
    fn magnitudes_fit_signed_bytes() {
        let top = IQ3_XXS.iter().flatten().chain(IQ2_S.iter().flatten()).max();
        assert_eq!(top, Some(&62));
    }
}
