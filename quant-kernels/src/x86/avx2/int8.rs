//! Matmul of quantized weights with int8 activations: the loops that all formats share.
//!
//! Eight rows at a time, each a lane of the float accumulators. One token: every row's codes meet the token in
//! registers, and the 8 rows' partial sums are summed side by side once per block. More tokens: a block of the 8
//! rows is unpacked once into a [`Panel`] where each 32-bit lane is a row, so that nothing is summed across lanes
//! and a token costs a broadcast, a product and an addition per 32 weights.
//!
//! Products of unsigned codes with int8 activations are summed in pairs in i16, which is exact: 63 * 127 * 2 fits.

use crate::activations::Acts;
use crate::matmul::Tile;
use std::arch::x86_64::*;

/// Rows of a group.
const ROWS: usize = 8;
/// Tokens that share the loads of a panel.
const TOKENS: usize = 4;
/// Bytes that a weight stream is fetched ahead of its use.
const AHEAD: usize = 768;

/// Scales and minima of a block, one per 16 values.
pub(super) struct Scales {
    /// 16 x i16.
    pub scales: __m256i,
    /// 16 x i16; zero without minima.
    pub mins: __m256i,
}

/// How a type is unpacked.
pub(super) trait Format {
    /// Values in a block: 32 or 256.
    const LEN: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Where the f16 scale lies.
    const D: usize;
    /// Where the f16 scale of the minima lies, if there are any.
    const DMIN: Option<usize> = None;
    /// What is subtracted from each code.
    const OFFSET: i32 = 0;
    /// Codes are i8 with all 256 values, not small unsigned ones.
    const SIGNED: bool = false;
    /// Whether each 16 values have an own sub-scale (else each 32, if the block is that of a K-quant).
    const SCALE_PER_16: bool = false;
    /// How many sums of two products with codes of this format can be added in i16; a divisor of 8.
    const PAIRS: usize;

    /// The codes of a block in order, 32 in a register. Blocks of 32 fill the first alone.
    ///
    /// # Safety
    /// The CPU has AVX2; a whole block can be read.
    unsafe fn codes(block: *const u8) -> [__m256i; 8];

    /// The integer scales of a block of 256.
    ///
    /// # Safety
    /// The CPU has AVX2; a whole block can be read.
    unsafe fn scales(block: *const u8) -> Scales;
}

/// A block of 8 rows, each 32-bit lane a row.
struct Panel {
    /// Four codes of each row: values `4 * i..4 * i + 4`.
    codes: [__m256i; 64],
    /// The scale of each row twice: of sub-block `i` of 16 ([`Format::SCALE_PER_16`]) or 32 values.
    scales: [__m256i; 16],
    /// The sub-scales of values `32 * i..` and `32 * i + 16..` (for the offset), or the minimum of `32 * i..` twice.
    pairs: [__m256i; 8],
}

/// One block of one token.
#[derive(Clone, Copy)]
struct Token {
    x: *const i8,
    sums: *const i16,
    d: f32,
}

/// Runs a tile.
///
/// # Safety
/// The CPU has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,f16c")]
pub(super) unsafe fn run<F: Format>(tile: &mut Tile<'_>) {
    let acts = tile.acts;
    let blocks = acts.cols / F::LEN;
    assert!(blocks * F::BYTES <= tile.row_bytes, "rows shorter than the activations");
    assert!(
        acts.q.len() >= blocks * acts.tokens * F::LEN
            && acts.sums.len() >= blocks * acts.tokens * (F::LEN / 16)
            && acts.d.len() >= blocks * acts.tokens,
        "activations of another form"
    );
    let mut acc = std::mem::take(&mut tile.scratch.acc);
    for first in (0..tile.rows).step_by(ROWS) {
        let count = ROWS.min(tile.rows - first);
        let mut rows = [std::ptr::null::<u8>(); ROWS];
        for (r, row) in rows.iter_mut().enumerate() {
            // A short group repeats its last row.
            *row = tile.row(first + r.min(count - 1)).as_ptr();
        }
        if acts.tokens == 1 {
            // SAFETY: the rows have `blocks` blocks, and the activations are those of `blocks` blocks.
            let sums = unsafe { one_token::<F>(rows, acts, blocks) };
            tile.store(0, first, &sums[..count]);
            continue;
        }
        acc.clear();
        acc.resize(2 * ROWS * acts.tokens, 0.0);
        // SAFETY: as above; there are two accumulators of 8 rows for each token.
        unsafe { many_tokens::<F>(rows, acts, blocks, &mut acc) };
        for (token, acc) in acc.as_chunks::<{ 2 * ROWS }>().0.iter().enumerate() {
            let mut sums = [0f32; ROWS];
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = if F::DMIN.is_some() { acc[r] - acc[ROWS + r] } else { acc[r] };
            }
            tile.store(token, first, &sums[..count]);
        }
    }
    tile.scratch.acc = acc;
}

/// Block `b` of token `t`.
#[inline]
fn token<F: Format>(acts: &Acts, b: usize, t: usize) -> Token {
    let at = b * acts.tokens + t;
    Token { x: acts.q[at * F::LEN..].as_ptr(), sums: acts.sums[at * (F::LEN / 16)..].as_ptr(), d: acts.d[at] }
}

/// The f16 at `at` of each row, widened.
///
/// # Safety
/// Two bytes can be read there.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn halves(rows: [*const u8; ROWS], at: usize) -> __m256 {
    let mut bits = [0u16; ROWS];
    for (bits, row) in bits.iter_mut().zip(rows) {
        // SAFETY: the caller vouches for two bytes.
        *bits = unsafe { row.add(at).cast::<u16>().read_unaligned() };
    }
    // SAFETY: 16 bytes.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bits.as_ptr().cast()) })
}

/// `acc + (d * dx) * isum`: multiply, then add.
#[inline]
#[target_feature(enable = "avx2")]
fn fold(acc: __m256, d: __m256, dx: f32, isum: __m256i) -> __m256 {
    let scale = _mm256_mul_ps(d, _mm256_set1_ps(dx));
    _mm256_add_ps(acc, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(isum)))
}

/// The sum of the codes of a block of 32 activations, from its two sums of 16, times [`Format::OFFSET`].
///
/// # Safety
/// Two values can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn offset_of<F: Format>(token: Token) -> __m256i {
    // SAFETY: the caller vouches for two values.
    let (a, b) = unsafe { (*token.sums, *token.sums.add(1)) };
    _mm256_set1_epi32(F::OFFSET * (i32::from(a) + i32::from(b)))
}

/// 8 rows with the only token.
///
/// # Safety
/// Each row has `blocks` blocks; the activations are checked.
#[target_feature(enable = "avx2,f16c")]
unsafe fn one_token<F: Format>(mut rows: [*const u8; ROWS], acts: &Acts, blocks: usize) -> [f32; ROWS] {
    let (mut acc, mut accm) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    for b in 0..blocks {
        let token = token::<F>(acts, b, 0);
        let mut isums = [_mm256_setzero_si256(); ROWS];
        let mut msums = [_mm256_setzero_si256(); ROWS];
        for ((isum, msum), row) in isums.iter_mut().zip(&mut msums).zip(rows) {
            for line in (0..F::BYTES).step_by(64) {
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(AHEAD + line).cast());
            }
            // SAFETY: the row has this block; the activations are checked.
            (*isum, *msum) = unsafe { row_sums::<F>(row, token) };
        }
        // SAFETY: the rows have this block; the activations are checked.
        unsafe {
            let mut isum = across(isums);
            if F::LEN == 32 && F::OFFSET != 0 {
                isum = _mm256_sub_epi32(isum, offset_of::<F>(token));
            }
            acc = fold(acc, halves(rows, F::D), token.d, isum);
            if let Some(at) = F::DMIN {
                accm = fold(accm, halves(rows, at), token.d, across(msums));
            }
        }
        for row in &mut rows {
            *row = row.wrapping_add(F::BYTES);
        }
    }
    if F::DMIN.is_some() {
        acc = _mm256_sub_ps(acc, accm);
    }
    let mut sums = [0f32; ROWS];
    // SAFETY: 8 values.
    unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), acc) };
    sums
}

/// Partial sums of one block of a row: 8 lanes each of the codes' sum and of the minima's.
///
/// # Safety
/// The block and the token's values can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn row_sums<F: Format>(block: *const u8, token: Token) -> (__m256i, __m256i) {
    let zero = _mm256_setzero_si256();
    // SAFETY: the caller vouches for the block.
    let codes = unsafe { F::codes(block) };
    let x = token.x.cast::<__m256i>();
    if F::LEN == 32 {
        // SAFETY: the token's block has 32 values.
        let pairs = products::<F>(codes[0], unsafe { _mm256_loadu_si256(x) });
        return (_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)), zero);
    }
    // SAFETY: the caller vouches for the block.
    let Scales { scales, mins } = unsafe { F::scales(block) };
    let mut isum = zero;
    for (chunk, codes) in codes.into_iter().enumerate() {
        // SAFETY: the token's block has 256 values.
        let pairs = products::<F>(codes, unsafe { _mm256_loadu_si256(x.add(chunk)) });
        let mut scale = _mm256_permutevar8x32_epi32(scales, _mm256_set1_epi32(chunk as i32));
        if F::SCALE_PER_16 {
            // The lower half of the products belongs to the first scale of the pair, the upper to the second.
            let (low, high) = (_mm_set1_epi16(0x0100), _mm_set1_epi16(0x0302));
            scale = _mm256_shuffle_epi8(scale, _mm256_set_m128i(high, low));
        }
        isum = _mm256_add_epi32(isum, _mm256_madd_epi16(pairs, scale));
    }
    // SAFETY: a block of 256 values has 16 sums.
    let sums = unsafe { _mm256_loadu_si256(token.sums.cast()) };
    if F::OFFSET != 0 {
        let offset = _mm256_mullo_epi32(_mm256_madd_epi16(scales, sums), _mm256_set1_epi32(F::OFFSET));
        isum = _mm256_sub_epi32(isum, offset);
    }
    let msum = if F::DMIN.is_some() { _mm256_madd_epi16(mins, sums) } else { zero };
    (isum, msum)
}

/// Products of 32 codes and activations, summed in pairs in i16.
#[inline]
#[target_feature(enable = "avx2")]
fn products<F: Format>(codes: __m256i, x: __m256i) -> __m256i {
    if F::SIGNED {
        // |code| is at most 128 (as u8) and |x| at most 127: 2 * 128 * 127 fits.
        _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
    } else {
        _mm256_maddubs_epi16(codes, x)
    }
}

/// The sum of the lanes of each of 8 registers.
#[inline]
#[target_feature(enable = "avx2")]
fn across(v: [__m256i; ROWS]) -> __m256i {
    let low = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    let high = _mm256_hadd_epi32(_mm256_hadd_epi32(v[4], v[5]), _mm256_hadd_epi32(v[6], v[7]));
    _mm256_add_epi32(
        _mm256_permute2x128_si256::<0x20>(low, high),
        _mm256_permute2x128_si256::<0x31>(low, high),
    )
}

/// 8 rows with every token; `acc` is `[token][sums of 8 rows, minima of 8 rows]`.
///
/// # Safety
/// Each row has `blocks` blocks; the activations are checked.
#[target_feature(enable = "avx2,f16c")]
unsafe fn many_tokens<F: Format>(mut rows: [*const u8; ROWS], acts: &Acts, blocks: usize, acc: &mut [f32]) {
    let zero = _mm256_setzero_si256();
    let mut panel = Panel { codes: [zero; 64], scales: [zero; 16], pairs: [zero; 8] };
    for b in 0..blocks {
        // SAFETY: the rows have this block.
        let (d, dmin) = unsafe {
            unpack::<F>(rows, &mut panel);
            let dmin = match F::DMIN {
                Some(at) => halves(rows, at),
                None => _mm256_setzero_ps(),
            };
            (halves(rows, F::D), dmin)
        };
        let mut t = 0;
        let mut groups = acc.chunks_exact_mut(2 * ROWS * TOKENS);
        for acc in &mut groups {
            let tokens: [Token; TOKENS] = std::array::from_fn(|i| token::<F>(acts, b, t + i));
            // SAFETY: the activations are checked; the accumulators are those of the tokens.
            unsafe { panel_sums::<F, TOKENS>(&panel, tokens, d, dmin, acc) };
            t += TOKENS;
        }
        for acc in groups.into_remainder().chunks_exact_mut(2 * ROWS) {
            // SAFETY: as above.
            unsafe { panel_sums::<F, 1>(&panel, [token::<F>(acts, b, t)], d, dmin, acc) };
            t += 1;
        }
        for row in &mut rows {
            *row = row.wrapping_add(F::BYTES);
        }
    }
}

/// Unpacks the next block of 8 rows.
///
/// # Safety
/// The rows have this block.
#[target_feature(enable = "avx2")]
unsafe fn unpack<F: Format>(rows: [*const u8; ROWS], panel: &mut Panel) {
    let zero = _mm256_setzero_si256();
    let mut codes = [[zero; 8]; ROWS];
    for (codes, row) in codes.iter_mut().zip(rows) {
        for line in (0..F::BYTES).step_by(64) {
            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(AHEAD + line).cast());
        }
        // SAFETY: the caller vouches for the block.
        *codes = unsafe { F::codes(row) };
    }
    for chunk in 0..F::LEN / 32 {
        let mut group = [zero; ROWS];
        for (group, codes) in group.iter_mut().zip(&codes) {
            *group = codes[chunk];
        }
        panel.codes[8 * chunk..8 * chunk + 8].copy_from_slice(&transposed(group));
    }
    if F::LEN == 32 {
        return;
    }
    let (mut scales, mut mins) = ([zero; ROWS], [zero; ROWS]);
    for ((scales, mins), row) in scales.iter_mut().zip(&mut mins).zip(rows) {
        // SAFETY: the caller vouches for the block.
        let of_row = unsafe { F::scales(row) };
        (*scales, *mins) = (of_row.scales, of_row.mins);
    }
    let scales = transposed(scales);
    if F::SCALE_PER_16 {
        for (two, pair) in panel.scales.as_chunks_mut::<2>().0.iter_mut().zip(scales) {
            let (low, high) = (_mm256_slli_epi32::<16>(pair), _mm256_srli_epi32::<16>(pair));
            two[0] = _mm256_blend_epi16::<0b1010_1010>(pair, low);
            two[1] = _mm256_blend_epi16::<0b1010_1010>(high, pair);
        }
    } else {
        panel.scales[..8].copy_from_slice(&scales);
    }
    panel.pairs = if F::DMIN.is_some() { transposed(mins) } else { scales };
}

/// Transposes 8 registers of 8 x i32.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(v: [__m256i; 8]) -> [__m256i; 8] {
    let mut twos = [v[0]; 8];
    for i in 0..4 {
        twos[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        twos[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    let mut fours = [v[0]; 8];
    for i in 0..2 {
        for j in 0..2 {
            fours[4 * i + 2 * j] = _mm256_unpacklo_epi64(twos[4 * i + j], twos[4 * i + 2 + j]);
            fours[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(twos[4 * i + j], twos[4 * i + 2 + j]);
        }
    }
    let mut out = [v[0]; 8];
    for i in 0..4 {
        out[i] = _mm256_permute2x128_si256::<0x20>(fours[i], fours[4 + i]);
        out[4 + i] = _mm256_permute2x128_si256::<0x31>(fours[i], fours[4 + i]);
    }
    out
}

/// A panel with `T` tokens: folds one block into their accumulators.
///
/// # Safety
/// The tokens' values can be read; `acc` has 16 values for each.
#[target_feature(enable = "avx2")]
unsafe fn panel_sums<F: Format, const T: usize>(
    panel: &Panel,
    tokens: [Token; T],
    d: __m256,
    dmin: __m256,
    acc: &mut [f32],
) {
    let zero = _mm256_setzero_si256();
    let ones = _mm256_set1_epi16(1);
    let mut isums = [zero; T];
    for (group, codes) in panel.codes[..F::LEN / 4].chunks_exact(F::PAIRS).enumerate() {
        let mut pairs = [zero; T];
        for (i, codes) in codes.iter().enumerate() {
            let at = 4 * (group * F::PAIRS + i);
            for (pairs, token) in pairs.iter_mut().zip(tokens) {
                // SAFETY: `at + 4` is at most LEN, the values of the token's block.
                let x = _mm256_set1_epi32(unsafe { token.x.add(at).cast::<i32>().read_unaligned() });
                *pairs = _mm256_add_epi16(*pairs, products::<F>(*codes, x));
            }
        }
        let scale = match (F::LEN, F::SCALE_PER_16) {
            (32, _) => ones,
            (_, true) => panel.scales[group * F::PAIRS / 4],
            (_, false) => panel.scales[group * F::PAIRS / 8],
        };
        for (isum, pairs) in isums.iter_mut().zip(pairs) {
            *isum = _mm256_add_epi32(*isum, _mm256_madd_epi16(pairs, scale));
        }
    }
    for ((isum, token), acc) in isums.into_iter().zip(tokens).zip(acc.chunks_exact_mut(2 * ROWS)) {
        let mut isum = isum;
        let mut msum = zero;
        if F::LEN == 256 && (F::OFFSET != 0 || F::DMIN.is_some()) {
            for (i, pair) in panel.pairs.iter().enumerate() {
                // SAFETY: a block of 256 values has 16 sums.
                let sums = unsafe { token.sums.add(2 * i).cast::<i32>().read_unaligned() };
                msum = _mm256_add_epi32(msum, _mm256_madd_epi16(*pair, _mm256_set1_epi32(sums)));
            }
        }
        if F::OFFSET != 0 {
            let offset = if F::LEN == 256 {
                _mm256_mullo_epi32(msum, _mm256_set1_epi32(F::OFFSET))
            } else {
                // SAFETY: a block of 32 values has two sums.
                unsafe { offset_of::<F>(token) }
            };
            isum = _mm256_sub_epi32(isum, offset);
        }
        let at = acc.as_mut_ptr();
        // SAFETY: 16 values.
        unsafe {
            _mm256_storeu_ps(at, fold(_mm256_loadu_ps(at), d, token.d, isum));
            if F::DMIN.is_some() {
                let at = at.add(ROWS);
                _mm256_storeu_ps(at, fold(_mm256_loadu_ps(at), dmin, token.d, msum));
            }
        }
    }
}
