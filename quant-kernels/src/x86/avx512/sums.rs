//! Sums across a register and over blocks: partial sums in all lanes become one sum to a block, in order.

use super::linear::Linear;
use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// `vpdpwssd`: adds products of pairs of words. It stays where it is written: the compiler would make all sums of four
/// products first and run out of registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn add_products(sum: __m512i, words: __m512i, scales: __m512i) -> __m512i {
    let mut sum = sum;
    // SAFETY: touches registers only.
    unsafe {
        asm!(
            "vpdpwssd {sum}, {words}, {scales}",
            sum = inout(zmm_reg) sum,
            words = in(zmm_reg) words,
            scales = in(zmm_reg) scales,
            options(nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// `[f(0), f(1), f(2), f(3)]`, where `f` reads four blocks of `L` each: [`Linear::UNROLLED`] of them one after the other,
/// in a loop.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn fours<L: Linear, R: Copy>(f: impl Fn(usize) -> R) -> [R; 4] {
    const { assert!(matches!(L::UNROLLED, 1 | 2 | 4)) };
    if L::UNROLLED == 4 {
        return [f(0), f(1), f(2), f(3)];
    }
    let mut out = [MaybeUninit::uninit(); 4];
    let mut i = 0;
    while i < 4 {
        out[i].write(f(i));
        if L::UNROLLED == 2 {
            out[i + 1].write(f(i + 1));
        }
        i += L::UNROLLED;
        // SAFETY: touches nothing. The compiler would unroll the loop.
        unsafe { asm!("/* {i} */", i = inout(reg) i, options(nomem, nostack, preserves_flags)) };
    }
    // SAFETY: all four have been written.
    out.map(|four| unsafe { four.assume_init() })
}

/// The sums of four blocks for each token, from partial sums in all lanes: 128-bit lane `k` has those of block `k`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn four_blocks<const T: usize>(block: impl Fn(usize) -> [__m512i; T]) -> [__m512i; T] {
    let ab = join_blocks(block(0), block(1));
    let cd = join_blocks(block(2), block(3));
    join_blocks(ab, cd)
}

/// The sums of four blocks for each token, from partial sums in all lanes: dword `k` of each 128-bit lane has those of the
/// lane in block `k`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn four_columns<const T: usize>(block: impl Fn(usize) -> [__m512i; T]) -> [__m512i; T] {
    let (ab, cd) = (join_columns(block(0), block(1)), join_columns(block(2), block(3)));
    let mut out = ab;
    for t in 0..T {
        out[t] = add_qword_twos(ab[t], cd[t]);
    }
    out
}

/// [`add_dword_twos`] for each token.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn join_columns<const T: usize>(a: [__m512i; T], b: [__m512i; T]) -> [__m512i; T] {
    let mut out = a;
    for t in 0..T {
        out[t] = add_dword_twos(a[t], b[t]);
    }
    out
}

/// In each 128-bit lane: (a0 + a2, b0 + b2, a1 + a3, b1 + b3).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn add_dword_twos(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b))
}

/// In each 128-bit lane: (a0 + a2, a1 + a3, b0 + b2, b1 + b3).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn add_qword_twos(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
}

/// The sums of 16 blocks in order, for token `t`, from four times those of [`four_columns`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn sixteen_columns<const T: usize>(quads: &[[__m512i; T]; 4], t: usize) -> __m512i {
    add_lanes([quads[0][t], quads[1][t], quads[2][t], quads[3][t]])
}

/// [`add_lane_pairs`] for each token.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn join_blocks<const T: usize>(a: [__m512i; T], b: [__m512i; T]) -> [__m512i; T] {
    let mut out = a;
    for t in 0..T {
        out[t] = add_lane_pairs(a[t], b[t]);
    }
    out
}

/// The sums of 16 blocks in order, for token `t`, from four times those of four, a block per 128-bit lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn sixteen_blocks<const T: usize>(quads: &[[__m512i; T]; 4], t: usize) -> __m512i {
    add_dwords([quads[0][t], quads[1][t], quads[2][t], quads[3][t]])
}

/// Adds the 128-bit lanes of four registers: lane `i` of the result is the sum of the lanes of argument `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn add_lanes(v: [__m512i; 4]) -> __m512i {
    let (ab, cd) = (add_lane_pairs(v[0], v[1]), add_lane_pairs(v[2], v[3]));
    add_lane_pairs(ab, cd)
}

/// Adds neighbouring 128-bit lanes: (a0 + a1, a2 + a3, b0 + b1, b2 + b3).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn add_lane_pairs(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b))
}

/// Two registers of eight blocks, two dwords for each, to the sums of the 16 blocks in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn add_dword_pairs(a: __m512i, b: __m512i) -> __m512i {
    let (a, b) = (_mm512_castsi512_ps(a), _mm512_castsi512_ps(b));
    let (even, odd) = (_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xdd>(a, b));
    let sums = _mm512_add_epi32(_mm512_castps_si512(even), _mm512_castps_si512(odd));
    // A lane has two sums of `a`, then two of `b`.
    _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15), sums)
}

/// Four registers, a block per 128-bit lane, to the sums of the 16 blocks in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn add_dwords(v: [__m512i; 4]) -> __m512i {
    in_order(add_lane_dwords(v))
}

/// Adds the dwords of each 128-bit lane of four registers: dword `i` of a lane is the sum of that lane of argument `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn add_lane_dwords(v: [__m512i; 4]) -> __m512i {
    add_qword_twos(add_dword_twos(v[0], v[1]), add_dword_twos(v[2], v[3]))
}

/// Eight registers, two blocks in the halves of each and two of them joined by [`add_dword_twos`], to the sums of the 16
/// blocks in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn sixteen_halves(v: [__m512i; 4]) -> __m512i {
    let (low, high) = (add_qword_twos(v[0], v[1]), add_qword_twos(v[2], v[3]));
    // Lanes 0 and 1 have sums of the first blocks of pairs, lanes 2 and 3 those of the second ones.
    let even = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 16, 24, 17, 25, 18, 26, 19, 27);
    let odd = _mm512_setr_epi32(4, 12, 5, 13, 6, 14, 7, 15, 20, 28, 21, 29, 22, 30, 23, 31);
    _mm512_add_epi32(_mm512_permutex2var_epi32(low, even, high), _mm512_permutex2var_epi32(low, odd, high))
}

/// Dword 0 of every lane of four registers, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn first_dwords(v: [__m512i; 4]) -> __m512i {
    let (ab, cd) = (_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpacklo_epi32(v[2], v[3]));
    in_order(_mm512_unpacklo_epi64(ab, cd))
}

/// Dword 3 of every lane of four registers, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn last_dwords(v: [__m512i; 4]) -> __m512i {
    let (ab, cd) = (_mm512_unpackhi_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[2], v[3]));
    in_order(_mm512_unpackhi_epi64(ab, cd))
}

/// Element `4l + e` to place `4e + l`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn in_order(v: __m512i) -> __m512i {
    _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), v)
}
