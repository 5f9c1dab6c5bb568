//! Pieces of unpacking that several types share.

use std::arch::x86_64::*;

/// 16 bytes.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load16(at: *const u8) -> __m128i {
    // SAFETY: the caller vouches for 16 bytes.
    unsafe { _mm_loadu_si128(at.cast()) }
}

/// 8 bytes, the first lowest.
///
/// # Safety
/// They can be read.
#[inline(always)]
pub(super) unsafe fn word64(at: *const u8) -> u64 {
    // SAFETY: the caller vouches for 8 bytes.
    unsafe { at.cast::<u64>().read_unaligned() }
}

/// 4 bytes, the first lowest.
///
/// # Safety
/// They can be read.
#[inline(always)]
pub(super) unsafe fn word32(at: *const u8) -> u32 {
    // SAFETY: the caller vouches for 4 bytes.
    unsafe { at.cast::<u32>().read_unaligned() }
}

/// Bytes in the low half of a register, the lowest first.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn low8(bytes: u64) -> __m128i {
    _mm_cvtsi64_si128(bytes.cast_signed())
}

/// Both halves of a register.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn both(low: __m128i, high: __m128i) -> __m256i {
    _mm256_set_m128i(high, low)
}

/// The low and the high nibbles of 32 bytes.
///
/// # Safety
/// 32 bytes can be read.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn nibbles64(at: *const u8) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(15);
    // SAFETY: the caller vouches for 32 bytes.
    let bytes = unsafe { _mm256_loadu_si256(at.cast()) };
    [_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask)]
}

/// The nibbles of 16 bytes: the low ones are the first 16 codes, the high ones the others.
///
/// # Safety
/// 16 bytes can be read.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn nibbles32(at: *const u8) -> __m256i {
    // SAFETY: the caller vouches for 16 bytes.
    let bytes = unsafe { load16(at) };
    _mm256_and_si256(both(bytes, _mm_srli_epi16::<4>(bytes)), _mm256_set1_epi8(15))
}

/// Nibbles plus fifth bits, bit `j` of a word belonging to code `j`.
///
/// # Safety
/// 4 bytes and 16 bytes after them can be read.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn five_bits(at: *const u8) -> __m256i {
    // SAFETY: the caller vouches for 20 bytes.
    let (fifth, low) = unsafe { (word32(at), nibbles32(at.add(4))) };
    _mm256_or_si256(low, _mm256_and_si256(set_bits(fifth), _mm256_set1_epi8(16)))
}

/// The entries of a table of 16 bytes at the given indices.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn entries(table: [i8; 16], indices: __m256i) -> __m256i {
    // SAFETY: 16 bytes.
    let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), indices)
}

/// Byte `j` is 0xFF if bit `j` is set, else 0.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn set_bits(bits: u32) -> __m256i {
    let spread = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    bits_of_bytes(_mm256_shuffle_epi8(_mm256_set1_epi32(bits.cast_signed()), spread))
}

/// Byte `j` becomes 0xFF if its bit `j % 8` is set, else 0.
#[inline]
#[target_feature(enable = "avx2")]
fn bits_of_bytes(bytes: __m256i) -> __m256i {
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
    _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit)
}

/// Sign masks of 32 codes from four times seven bits, which begin at these bits of `word`; the eighth sign makes their
/// number even.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn even_signs(word: u64, [a, b, c, d]: [i64; 4]) -> __m256i {
    let words = _mm256_srlv_epi64(_mm256_set1_epi64x(word.cast_signed()), _mm256_setr_epi64x(a, b, c, d));
    let seven = _mm256_and_si256(words, _mm256_set1_epi64x(127));
    // The eighth bit for each nibble: set if the nibble has an odd number of bits.
    const ODD: i8 = i8::MIN;
    let odd = [0, ODD, ODD, 0, ODD, 0, 0, ODD, ODD, 0, 0, ODD, 0, ODD, ODD, 0];
    let low = entries(odd, _mm256_and_si256(seven, _mm256_set1_epi64x(15)));
    let high = entries(odd, _mm256_srli_epi64::<4>(seven));
    let eight = _mm256_or_si256(seven, _mm256_xor_si256(low, high));
    let first = _mm256_setr_epi64x(0, 0x0808_0808_0808_0808, 0, 0x0808_0808_0808_0808);
    bits_of_bytes(_mm256_shuffle_epi8(eight, first))
}

/// `offset` plus magnitudes, minus where the sign mask is set.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn offset_signed(magnitudes: __m256i, negative: __m256i, offset: i16) -> __m256i {
    let flipped = _mm256_xor_si256(magnitudes, negative);
    _mm256_add_epi8(flipped, _mm256_sub_epi8(_mm256_set1_epi8(offset as i8), negative))
}

/// Four entries of 8 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn four(entries: [[u8; 8]; 4]) -> __m256i {
    let [a, b, c, d] = entries.map(i64::from_le_bytes);
    _mm256_setr_epi64x(a, b, c, d)
}

/// Eight entries of 4 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn eight(entries: [[u8; 4]; 8]) -> __m256i {
    let [a, b, c, d, e, f, g, h] = entries.map(i32::from_le_bytes);
    _mm256_setr_epi32(a, b, c, d, e, f, g, h)
}

/// 256 two-bit codes: each 32 bytes hold 128 values, bit pair `j` of byte `l` being value `32 j + l`.
///
/// # Safety
/// 64 bytes can be read.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn two_bits(at: *const u8) -> [__m256i; 8] {
    let mask = _mm256_set1_epi8(3);
    // SAFETY: the caller vouches for 64 bytes.
    let (a, b) = unsafe { (_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())) };
    [
        _mm256_and_si256(a, mask),
        _mm256_and_si256(_mm256_srli_epi16::<2>(a), mask),
        _mm256_and_si256(_mm256_srli_epi16::<4>(a), mask),
        _mm256_and_si256(_mm256_srli_epi16::<6>(a), mask),
        _mm256_and_si256(b, mask),
        _mm256_and_si256(_mm256_srli_epi16::<2>(b), mask),
        _mm256_and_si256(_mm256_srli_epi16::<4>(b), mask),
        _mm256_and_si256(_mm256_srli_epi16::<6>(b), mask),
    ]
}

/// Eight bytes, each twice: scales of 32 values as scales of 16.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn twice(bytes: __m128i) -> __m128i {
    _mm_unpacklo_epi8(bytes, bytes)
}

/// The nibbles of 8 bytes, low nibbles first in each byte.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn nibbles16(bytes: u64) -> __m128i {
    let (bytes, mask) = (low8(bytes), _mm_set1_epi8(15));
    let high = _mm_and_si128(_mm_srli_epi16::<4>(bytes), mask);
    _mm_unpacklo_epi8(_mm_and_si128(bytes, mask), high)
}

/// Scales with half a step added, in half steps: `2 s + 1`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn odd(scales: __m128i) -> __m128i {
    _mm_add_epi8(_mm_add_epi8(scales, scales), _mm_set1_epi8(1))
}

/// Eight words as bytes in the low half.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn narrowed(words: __m256i) -> __m128i {
    let words = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
    _mm_packs_epi16(words, words)
}

/// The 6-bit scales and minima of Q4_K and Q5_K, four at a time in the bytes of a word: the low four lie in six
/// bits, the upper four in a nibble of the last word and the two top bits of the others.
///
/// # Safety
/// 12 bytes can be read.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn six_bit_scales(packed: *const u8) -> __m128i {
    // SAFETY: the caller vouches for 12 bytes.
    let [a, _, c] = unsafe { packed.cast::<[u32; 3]>().read_unaligned() };
    twice(low8(u64::from(a & SIX) | u64::from(c & FOUR | (a >> 6 & TWO) << 4) << 32))
}

/// The minima beside [`six_bit_scales`].
///
/// # Safety
/// 12 bytes can be read.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn six_bit_mins(packed: *const u8) -> __m128i {
    // SAFETY: the caller vouches for 12 bytes.
    let [_, b, c] = unsafe { packed.cast::<[u32; 3]>().read_unaligned() };
    twice(low8(u64::from(b & SIX) | u64::from(c >> 4 & FOUR | (b >> 6 & TWO) << 4) << 32))
}

const SIX: u32 = 0x3f3f_3f3f;
const FOUR: u32 = 0x0f0f_0f0f;
const TWO: u32 = 0x0303_0303;
