//! Unpacking by hand, equal to the types' own: those whose codes a compiler does not vectorize well.

use super::{Vec128, sixteen};
use crate::types::blocks32::{CodeBlock, nibbles};
use crate::types::blocks256::{Block256, MinBlock256};
use crate::types::codebooks::{FP4_LEVELS, IQ4_LEVELS};
use crate::types::mxfp4::half_scale;
use crate::types::nvfp4::{self, Nvfp4Block};

/// The f16 at byte `at`.
#[inline(always)]
fn half<S: Vec128>(s: S, block: &[u8], at: usize) -> f32 {
    s.widen_half(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// The low and the high nibbles of sixteen bytes.
#[inline(always)]
fn split<S: Vec128>(s: S, bytes: &[u8; 16]) -> [S::B; 2] {
    let bytes = s.load_u8(bytes);
    [s.and(bytes, s.splat_u8(15)), s.shr::<4>(bytes)]
}

/// 32 codes from two registers.
#[inline(always)]
fn codes32<S: Vec128>(s: S, codes: [S::B; 2]) -> [i8; 32] {
    let mut q = [0; 32];
    for (q, codes) in q.as_chunks_mut().0.iter_mut().zip(codes) {
        *q = s.bytes(codes);
    }
    q
}

#[inline(always)]
pub(super) fn q4_0<S: Vec128>(s: S, block: &[u8; 18]) -> CodeBlock<32> {
    let (codes, eight) = (split(s, sixteen(block, 2)), s.splat_u8(8));
    let codes = [s.sub_bytes(codes[0], eight), s.sub_bytes(codes[1], eight)];
    CodeBlock { d: half(s, block, 0), q: codes32(s, codes) }
}

#[inline(always)]
pub(super) fn q8_0<S: Vec128>(s: S, block: &[u8; 34]) -> CodeBlock<32> {
    let codes = [s.load_u8(sixteen(block, 2)), s.load_u8(sixteen(block, 18))];
    CodeBlock { d: half(s, block, 0), q: codes32(s, codes) }
}

#[inline(always)]
pub(super) fn iq4_nl<S: Vec128>(s: S, block: &[u8; 18]) -> CodeBlock<32> {
    CodeBlock { d: half(s, block, 0), q: levels(s, &IQ4_LEVELS, sixteen(block, 2)) }
}

#[inline(always)]
pub(super) fn mxfp4<S: Vec128>(s: S, block: &[u8; 17]) -> CodeBlock<32> {
    CodeBlock { d: half_scale(block[0]), q: levels(s, &FP4_LEVELS, sixteen(block, 1)) }
}

/// The levels of 32 indices, low nibbles first.
#[inline(always)]
fn levels<S: Vec128>(s: S, levels: &[i8; 16], indices: &[u8; 16]) -> [i8; 32] {
    let levels = s.load_i8(levels);
    let indices = split(s, indices);
    codes32(s, [s.lookup(levels, indices[0]), s.lookup(levels, indices[1])])
}

#[inline(always)]
pub(super) fn nvfp4<S: Vec128>(s: S, block: &[u8; 36]) -> Nvfp4Block {
    let table = s.load_i8(&FP4_LEVELS);
    Nvfp4Block {
        d: nvfp4::half_scales(block),
        q: four!(i => {
            let indices = nibbles::<16>(&block[4 + 8 * i..][..8]);
            s.bytes(s.lookup(table, s.load_u8(&indices)))
        }),
    }
}

#[inline(always)]
pub(super) fn iq4_xs<S: Vec128>(s: S, block: &[u8; 136]) -> Block256 {
    let mut q = [0; 256];
    for (i, q) in q.as_chunks_mut().0.iter_mut().enumerate() {
        *q = levels(s, &IQ4_LEVELS, sixteen(block, 8 + 16 * i));
    }
    let high = u16::from_le_bytes([block[2], block[3]]);
    let scales = std::array::from_fn(|i| {
        let k = i / 2;
        let low = block[4 + k / 2] >> (k % 2 * 4) & 15;
        (low | ((high >> (2 * k) & 3) as u8) << 4) as i8 - 32
    });
    Block256 { d: half(s, block, 0), scales, q }
}

/// The 6-bit scales and minima of Q4_K and Q5_K, four at a time in the bytes of a word: the low four lie in six
/// bits, the upper four in a nibble of the last word and the two top bits of the others.
#[inline(always)]
fn scales_and_mins(packed: &[u8; 12]) -> ([i8; 16], [u8; 16]) {
    const SIX: u32 = 0x3f3f_3f3f;
    const FOUR: u32 = 0x0f0f_0f0f;
    const TWO: u32 = 0x0303_0303;
    let words = packed.as_chunks::<4>().0;
    let [a, b, c] = [0, 1, 2].map(|i| u32::from_le_bytes(words[i]));
    let bytes = |low: u32, high: u32| (u64::from(low) | u64::from(high) << 32).to_le_bytes();
    let scales = bytes(a & SIX, c & FOUR | (a >> 6 & TWO) << 4);
    let mins = bytes(b & SIX, c >> 4 & FOUR | (b >> 6 & TWO) << 4);
    (std::array::from_fn(|i| scales[i / 2] as i8), std::array::from_fn(|i| mins[i / 2]))
}

#[inline(always)]
pub(super) fn q4_k<S: Vec128>(s: S, block: &[u8; 144]) -> MinBlock256 {
    let mut q = [0; 256];
    for (g, q) in q.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        for half in 0..2 {
            let [low, high] = split(s, sixteen(block, 16 + 32 * g + 16 * half));
            q[16 * half..][..16].copy_from_slice(&s.bytes(low));
            q[32 + 16 * half..][..16].copy_from_slice(&s.bytes(high));
        }
    }
    let (scales, mins) = scales_and_mins(&block[4..].as_chunks().0[0]);
    MinBlock256 { scaled: Block256 { d: half(s, block, 0), scales, q }, dmin: half(s, block, 2), mins }
}

#[inline(always)]
pub(super) fn q5_k<S: Vec128>(s: S, block: &[u8; 176]) -> MinBlock256 {
    let one = s.splat_u8(1);
    // The fifth bits of the next 32 codes are the lowest.
    let mut fifth = [s.load_u8(sixteen(block, 16)), s.load_u8(sixteen(block, 32))];
    let mut q = [0; 256];
    for (g, q) in q.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        for half in 0..2 {
            let codes = split(s, sixteen(block, 48 + 32 * g + 16 * half));
            for (i, low) in codes.into_iter().enumerate() {
                let code = s.or(low, s.shl::<4>(s.and(fifth[half], one)));
                fifth[half] = s.shr::<1>(fifth[half]);
                q[32 * i + 16 * half..][..16].copy_from_slice(&s.bytes(code));
            }
        }
    }
    let (scales, mins) = scales_and_mins(&block[4..].as_chunks().0[0]);
    MinBlock256 { scaled: Block256 { d: half(s, block, 0), scales, q }, dmin: half(s, block, 2), mins }
}

#[inline(always)]
pub(super) fn q6_k<S: Vec128>(s: S, block: &[u8; 210]) -> Block256 {
    let (three, offset) = (s.splat_u8(3), s.splat_u8(32));
    let mut q = [0; 256];
    for (half, q) in q.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        for i in 0..2 {
            let mut upper = s.load_u8(sixteen(block, 128 + 32 * half + 16 * i));
            let first = split(s, sixteen(block, 64 * half + 16 * i));
            let second = split(s, sixteen(block, 64 * half + 32 + 16 * i));
            for (r, low) in [first[0], second[0], first[1], second[1]].into_iter().enumerate() {
                let code = s.or(low, s.shl::<4>(s.and(upper, three)));
                upper = s.shr::<2>(upper);
                q[32 * r + 16 * i..][..16].copy_from_slice(&s.bytes(s.sub_bytes(code, offset)));
            }
        }
    }
    let scales = sixteen(block, 192).map(|scale| scale as i8);
    Block256 { d: half(s, block, 208), scales, q }
}
