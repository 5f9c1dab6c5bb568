//! Few tokens: 16 rows at a time, lane = row, whose codes meet all tokens as they are decoded.
//!
//! A block is decoded once and its codes are never stored: four values of 16 rows are one register, and each token's four
//! activations are broadcast from memory into the product. Sums need not be added across a register. The rows after
//! these are fetched meanwhile in the order of the file.

use super::interleave::interleave;
use super::linear::bytes;
use super::load::Rows;
use super::sums::add_products;
use super::two_bits;
use crate::activations::{ActKind, Acts};
use crate::matmul::Tile;
use crate::types::TileFn;
use std::arch::asm;
use std::arch::x86_64::*;

/// A weight type that can be decoded so.
pub(super) trait Columns: 'static {
    /// Values in a block.
    const VALUES: usize;
    /// Bytes in a block.
    const BYTES: usize;
    /// Whether there are terms of minima.
    const MINIMA: bool = false;
    /// Values that share a scale of the activations.
    const SHARE: usize = Self::VALUES;
    /// Bytes before each [`Columns::SHARE`] codes that are transposed and multiplied along with them: the activations have
    /// zeros there.
    const BEFORE: usize = 0;

    /// Dwords that [`Quads::dot_sums`] and [`Quads::sums`] meet, from the sums of 16 activations of a block.
    fn words(sums: &[i16]) -> [[u8; 4]; 8];

    /// Multiplies the next block of 16 rows with the activations of `T` tokens.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of the block can be read in every row, and the activations of `T` tokens.
    unsafe fn columns<const T: usize>(rows: Rows, x: Quads<T>, ahead: Ahead, acc: &mut Acc<T>);
}

/// [`Columns::words`]: sums of `SUB` activations, two i16 to a dword.
pub(super) fn pairs<const SUB: usize>(sums: &[i16]) -> [[u8; 4]; 8] {
    let mut words = [[0; 4]; 8];
    for (word, pair) in words.iter_mut().zip(sums.chunks_exact(2 * SUB / 16)) {
        let (first, second) = pair.split_at(SUB / 16);
        let [a, b] = [first, second].map(|sums| sums.iter().sum::<i16>().to_ne_bytes());
        *word = [a[0], a[1], b[0], b[1]];
    }
    words
}

/// The f32 sums of 16 rows for each token.
pub(super) struct Acc<const T: usize> {
    sums: [__m512; T],
    minima: [__m512; T],
}

impl<const T: usize> Acc<T> {
    /// Adds the terms `(d * dx) * sum` with the activations' scales number `s` of this block.
    ///
    /// # Safety
    /// The CPU has the tier; the activations can be read, and have such scales.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub unsafe fn add(&mut self, x: Quads<T>, s: usize, d: __m512, sums: [__m512i; T]) {
        for t in 0..T {
            // SAFETY: as the caller promises.
            self.sums[t] = _mm512_add_ps(self.sums[t], unsafe { x.term(s, t, d, sums[t]) });
        }
    }

    /// The same for minima.
    ///
    /// # Safety
    /// As for [`Acc::add`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub unsafe fn subtract(&mut self, x: Quads<T>, s: usize, d: __m512, sums: [__m512i; T]) {
        for t in 0..T {
            // SAFETY: as the caller promises.
            self.minima[t] = _mm512_add_ps(self.minima[t], unsafe { x.term(s, t, d, sums[t]) });
        }
    }
}

/// The activations of a block: codes, [`Columns::words`] and scales of each token.
///
/// Four codes of a token stand beside those of the next one.
#[derive(Clone, Copy)]
pub(super) struct Quads<const T: usize> {
    codes: *const u8,
    words: *const u8,
    scales: *const u8,
}

impl<const T: usize> Quads<T> {
    /// The codes from values `4 k` on, at an address that the compiler will not derive from another one: distances to it
    /// are short, and so are instructions.
    #[inline]
    pub fn from(self, k: usize) -> Self {
        let mut codes = self.codes.wrapping_add(4 * T * k);
        // SAFETY: touches nothing; the address remains the same.
        unsafe {
            asm!("/* {codes} */", codes = inout(reg) codes, options(readonly, nostack, preserves_flags))
        };
        Self { codes, ..self }
    }

    /// Adds the products of values `4 k..4 k + 4` of each token with `codes`.
    ///
    /// # Safety
    /// The CPU has the tier; the block has so many values, and the activations can be read.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub unsafe fn dot(self, k: usize, codes: __m512i, sums: &mut [__m512i; T]) {
        for t in 0..T {
            // SAFETY: as the caller promises.
            let x = unsafe { self.codes.add(4 * (T * k + t)).cast::<i32>().read() };
            sums[t] = _mm512_dpbusd_epi32(sums[t], codes, _mm512_set1_epi32(x));
        }
    }

    /// Word `j` of each token.
    ///
    /// # Safety
    /// The CPU has the tier; there are so many words, and the activations can be read.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub unsafe fn sums(self, j: usize) -> [__m512i; T] {
        let mut sums = [_mm512_setzero_si512(); T];
        for t in 0..T {
            // SAFETY: as the caller promises.
            sums[t] = _mm512_set1_epi32(unsafe { self.words.add(4 * (T * j + t)).cast::<i32>().read() });
        }
        sums
    }

    /// The first (`i` is 0) or second i16 of word `j` of each token in the lower halves of dwords, the upper ones whatever.
    ///
    /// # Safety
    /// As for [`Quads::sums`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub unsafe fn starts(self, j: usize, i: usize) -> [__m512i; T] {
        let mut starts = [_mm512_setzero_si512(); T];
        for t in 0..T {
            // SAFETY: as the caller promises; two bytes after the words are of the scales.
            let dword = unsafe { self.words.add(4 * (T * j + t) + 2 * i).cast::<i32>().read_unaligned() };
            starts[t] = _mm512_set1_epi32(dword);
        }
        starts
    }

    /// Adds the products of two i16, `factors`, with those of word `j` of each token.
    ///
    /// # Safety
    /// As for [`Quads::sums`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    pub unsafe fn dot_sums(self, j: usize, factors: __m512i, sums: &mut [__m512i; T]) {
        // SAFETY: as the caller promises.
        let words = unsafe { self.sums(j) };
        for t in 0..T {
            sums[t] = add_products(sums[t], factors, words[t]);
        }
    }

    /// `(d * dx) * sum` with scale `s` of token `t`.
    ///
    /// # Safety
    /// There are so many scales, and the activations can be read.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn term(self, s: usize, t: usize, d: __m512, sum: __m512i) -> __m512 {
        // SAFETY: as the caller promises.
        let dx = _mm512_set1_ps(unsafe { self.scales.add(4 * (T * s + t)).cast::<f32>().read() });
        _mm512_mul_ps(_mm512_mul_ps(d, dx), _mm512_cvtepi32_ps(sum))
    }
}

/// Bytes of the arranged activations of a token in a block: codes, words, scales.
const fn parts<C: Columns>() -> [usize; 3] {
    let scales = C::VALUES / C::SHARE;
    [C::VALUES + scales * C::BEFORE, if C::VALUES == 256 { 32 } else { C::VALUES / 4 }, 4 * scales]
}

/// What is fetched during a block: from memory and, nearer, from the second-level cache.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    near: *const u8,
    far: *const u8,
}

impl Ahead {
    /// Requests the `BYTES` bytes number `part` of 16 blocks.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn request<const BYTES: usize>(self, part: usize) {
        let near = self.near.wrapping_add(BYTES * part);
        let far = self.far.wrapping_add(BYTES * part);
        for line in 0..const { BYTES.div_ceil(64) } {
            _mm_prefetch::<_MM_HINT_T1>(far.wrapping_add(64 * line).cast());
            _mm_prefetch::<_MM_HINT_T0>(near.wrapping_add(64 * line).cast());
        }
    }
}

/// The scales of 16 sub-blocks of 16 rows: signed bytes, four sub-blocks to a dword.
pub(super) struct ByteScales(pub [__m512i; 4]);

impl ByteScales {
    /// `-2^SHIFT` times the products of the scales and the activations' sums: what codes are too large by.
    ///
    /// # Safety
    /// The CPU has the tier, and the activations can be read.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    pub unsafe fn offsets<const T: usize, const SHIFT: u32>(&self, x: Quads<T>) -> [__m512i; T] {
        let zero = _mm512_setzero_si512();
        let mut sums = [zero; T];
        for j in 0..8 {
            // SAFETY: `j < 8`; the caller vouches for the activations.
            unsafe { x.dot_sums(j, self.pair(j), &mut sums) };
        }
        sums.map(|sum| _mm512_sub_epi32(zero, _mm512_slli_epi32::<SHIFT>(sum)))
    }

    /// The scales of sub-blocks `2 j` and `2 j + 1` as two i16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    fn pair(&self, j: usize) -> __m512i {
        // Two bytes of every dword as the upper halves of words.
        let pick = two_bits::pick(0x0180_0080 + 0x0200_0200 * (j as u32 % 2));
        _mm512_srai_epi16::<8>(_mm512_shuffle_epi8(self.0[j / 2], pick))
    }

    /// Adds the sums of sub-blocks `2 j` and `2 j + 1`, scaled. They must fit i16; their upper halves are ignored.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    pub fn add_pair<const T: usize>(&self, j: usize, dots: [[__m512i; T]; 2], sums: &mut [__m512i; T]) {
        let scales = self.pair(j);
        for t in 0..T {
            // (second << 16) | (first & 0xffff)
            let second = _mm512_slli_epi32::<16>(dots[1][t]);
            let pair = _mm512_ternarylogic_epi32::<0xf8>(second, dots[0][t], _mm512_set1_epi32(0xffff));
            sums[t] = add_products(sums[t], pair, scales);
        }
    }

    /// Adds the sums of sub-block `sub`, scaled.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub fn add<const T: usize>(&self, sub: usize, dots: [__m512i; T], sums: &mut [__m512i; T]) {
        let up = _mm512_sllv_epi32(self.0[sub / 4], _mm512_set1_epi32(24 - 8 * (sub as i32 % 4)));
        let scale = _mm512_srai_epi32::<24>(up);
        for t in 0..T {
            sums[t] = _mm512_add_epi32(sums[t], _mm512_mullo_epi32(dots[t], scale));
        }
    }
}

/// The next 16 rows are fetched from the second-level cache; memory is asked for those after them, or for so many bytes
/// of them if they are long.
const FAR: usize = 24 << 10;

/// The matmul of so many tokens, two to four.
pub(super) fn tile<C: Columns>(tokens: usize) -> Option<TileFn> {
    Some(match tokens {
        // SAFETY: a type's matmul exists with a proof of the tier only.
        2 => |tile| unsafe { run::<C, 2>(tile) },
        // SAFETY: a type's matmul exists with a proof of the tier only.
        3 => |tile| unsafe { run::<C, 3>(tile) },
        // SAFETY: a type's matmul exists with a proof of the tier only.
        4 => |tile| unsafe { run::<C, 4>(tile) },
        _ => return None,
    })
}

/// The matmul of one token.
pub(super) fn one<C: Columns>(tokens: usize) -> Option<TileFn> {
    // SAFETY: a type's matmul exists with a proof of the tier only.
    (tokens == 1).then_some(|tile| unsafe { run::<C, 1>(tile) })
}

/// The matmul of so many tokens, five to eight.
pub(super) fn more<C: Columns>(tokens: usize) -> Option<TileFn> {
    Some(match tokens {
        // SAFETY: a type's matmul exists with a proof of the tier only.
        5 | 6 => |tile| unsafe { run::<C, 6>(tile) },
        // SAFETY: a type's matmul exists with a proof of the tier only.
        7 | 8 => |tile| unsafe { run::<C, 8>(tile) },
        _ => return None,
    })
}

/// The matmul of a tile with at most `T` tokens.
///
/// # Safety
/// The CPU has the tier.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn run<C: Columns, const T: usize>(tile: &mut Tile<'_>) {
    let tokens = tile.acts.tokens;
    assert!(tokens <= T, "a kernel for another number of tokens");
    let blocks = tile.acts.cols / C::VALUES;
    assert!(tile.row_bytes == blocks * C::BYTES, "rows of another length than the activations");
    assert!(tile.weight.len() >= tile.rows * tile.row_bytes, "fewer rows than told");
    let mut arranged = std::mem::take(&mut tile.scratch.arranged);
    let mut staged = std::mem::take(&mut tile.scratch.panel);
    let sizes = parts::<C>().map(|bytes| T * bytes);
    let len = sizes.iter().sum::<usize>() * blocks;
    let fill = |all: &mut [u8]| arrange::<C, T>(tile.acts, all, sizes);
    let x = arranged.get::<(C, [u8; T])>(tile.acts.stamp, len, fill).as_ptr();
    let far = FAR.checked_div(tile.row_bytes).map_or(16, |rows| rows.min(16));
    for row in (0..tile.rows).step_by(16) {
        let here = tile.weight.as_ptr().wrapping_add(row * tile.row_bytes);
        let (next, after) = (tile.ahead(row + 16), tile.ahead(row + 16 + far));
        let live = (tile.rows - row).min(16);
        let mut rows = Rows { base: here, stride: tile.row_bytes };
        if live < 16 {
            staged.clear();
            staged.extend_from_slice(&tile.weight[row * tile.row_bytes..][..live * tile.row_bytes]);
            staged.resize(16 * tile.row_bytes, 0);
            rows.base = staged.as_ptr();
        }
        let zero = _mm512_setzero_ps();
        let mut acc = Acc { sums: [zero; T], minima: [zero; T] };
        let mut x = x;
        for b in 0..blocks {
            let [codes, words, scales] = sizes;
            let quads =
                Quads { codes: x, words: x.wrapping_add(codes), scales: x.wrapping_add(codes + words) };
            let at = 16 * b * C::BYTES;
            let ahead = Ahead { near: next.wrapping_add(at), far: after.wrapping_add(at) };
            // SAFETY: block `b` of 16 rows of the tile, or of the staging buffer, and of the arranged activations.
            unsafe { C::columns::<T>(rows, quads, ahead, &mut acc) };
            rows.base = rows.base.wrapping_add(C::BYTES);
            x = x.wrapping_add(codes + words + scales);
        }
        for t in 0..tokens {
            let mut out = [0.0; 16];
            let sum = if C::MINIMA { _mm512_sub_ps(acc.sums[t], acc.minima[t]) } else { acc.sums[t] };
            // SAFETY: 16 floats.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
            tile.store(t, row, &out[..live]);
        }
    }
    tile.scratch.panel = staged;
    tile.scratch.arranged = arranged;
}

/// Bytes of a block's codes, and of what comes before them, of one token at most.
const MOST: usize = 256 + 8 * 2;

/// Arranges the activations as [`Quads`] reads them; tokens that are not there are zero.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn arrange<C: Columns, const T: usize>(acts: &Acts, out: &mut [u8], sizes: [usize; 3]) {
    let len = acts.kind.map_or(1, ActKind::block_len);
    assert!(len == C::SHARE, "activations in blocks of another length");
    let per_block = C::VALUES / len;
    let mut lines = [[0; MOST]; T];
    for (b, out) in out.chunks_exact_mut(sizes.iter().sum()).enumerate() {
        let (codes, rest) = out.split_at_mut(sizes[0]);
        let (words, scales) = rest.split_at_mut(sizes[1]);
        let [codes, words, scales] = [codes, words, scales].map(|part| part.as_chunks_mut::<4>().0);
        words.fill([0; 4]);
        scales.fill([0; 4]);
        for t in 0..acts.tokens {
            let mut sums = [0; 16];
            for (i, part) in lines[t].chunks_exact_mut(C::BEFORE + len).take(per_block).enumerate() {
                let at = acts.place(b * per_block + i, t, len);
                part[C::BEFORE..].copy_from_slice(bytes(&acts.q[len * at..][..len]));
                sums[len / 16 * i..][..len / 16].copy_from_slice(&acts.sums[len / 16 * at..][..len / 16]);
                scales[T * i + t] = acts.d[at].to_ne_bytes();
            }
            let sums = C::words(&sums[..C::VALUES / 16]);
            for (place, word) in words.chunks_exact_mut(T).zip(sums) {
                place[t] = word;
            }
        }
        interleave(lines.each_ref().map(|line| line[..parts::<C>()[0]].as_chunks::<4>().0), codes);
    }
}
