//! Two to eight tokens: 16 rows at a time, lane = row, whose codes meet all tokens as they are decoded.
//!
//! A block is decoded once and its codes are never stored: four values of 16 rows are one register, and each token's four
//! activations are broadcast from memory into the product. Sums need not be added across a register. The rows after
//! these are fetched meanwhile in the order of the file.

use super::linear::{Linear, add_products};
use super::load::Rows;
use super::two_bits;
use crate::activations::Acts;
use crate::matmul::Tile;
use crate::types::TileFn;
use std::arch::x86_64::*;

/// A weight type of 256 values to a block that can be decoded so.
pub(super) trait Columns: Linear {
    /// Values in the sums of activations that minima or offsets meet: 16 or 32.
    const SUB: usize;

    /// Multiplies the next block of 16 rows with the activations of `T` tokens.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of the block can be read in every row, and the activations of `T` tokens.
    unsafe fn columns<const T: usize>(rows: Rows, x: Quads<T>, ahead: Ahead) -> Sums<T>;
}

/// The integer sums of a block of 16 rows, and their scales.
pub(super) struct Sums<const T: usize> {
    pub d: __m512,
    pub sums: [__m512i; T],
    /// Scale and sums of the minima, for types that have them.
    pub dmin: __m512,
    pub minima: [__m512i; T],
}

/// The activations of a block: codes, sums and scale of each token.
///
/// Four codes of a token stand beside those of the next one: tokens' blocks one after the other would all lie in the
/// same bank of the first-level cache, which then loads one instead of two in a cycle.
#[derive(Clone, Copy)]
pub(super) struct Quads<const T: usize>(*const u8);

impl<const T: usize> Quads<T> {
    /// Bytes of a block of all tokens.
    const BYTES: usize = (T * (256 + 32 + 4)).next_multiple_of(64);

    /// Adds the products of values `4 k..4 k + 4` of each token with `codes`.
    ///
    /// # Safety
    /// The CPU has the tier; `k < 64`, and the activations can be read.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub unsafe fn dot(self, k: usize, codes: __m512i, sums: &mut [__m512i; T]) {
        for t in 0..T {
            // SAFETY: as the caller promises.
            let x = unsafe { self.0.add(4 * (T * k + t)).cast::<i32>().read() };
            sums[t] = _mm512_dpbusd_epi32(sums[t], codes, _mm512_set1_epi32(x));
        }
    }

    /// Adds the products of two i16, `factors`, with sums `2 j` and `2 j + 1` of [`Columns::SUB`] activations.
    ///
    /// # Safety
    /// The CPU has the tier; there are so many sums, and the activations can be read.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    pub unsafe fn dot_sums(self, j: usize, factors: __m512i, sums: &mut [__m512i; T]) {
        for t in 0..T {
            // SAFETY: as the caller promises.
            let x = unsafe { self.0.add(256 * T + 4 * (T * j + t)).cast::<i32>().read() };
            sums[t] = add_products(sums[t], factors, _mm512_set1_epi32(x));
        }
    }

    /// The scale of token `t`.
    ///
    /// # Safety
    /// The activations can be read.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn d(self, t: usize) -> __m512 {
        // SAFETY: as the caller promises.
        _mm512_set1_ps(unsafe { self.0.add(288 * T + 4 * t).cast::<f32>().read() })
    }
}

/// What is fetched during a block: from memory and, nearer, from the second-level cache.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    near: *const u8,
    far: *const u8,
}

impl Ahead {
    /// Requests part `part` of four of 16 blocks of `BYTES` bytes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn request<const BYTES: usize>(self, part: usize) {
        let near = self.near.wrapping_add(4 * BYTES * part);
        let far = self.far.wrapping_add(4 * BYTES * part);
        for line in 0..const { (4 * BYTES).div_ceil(64) } {
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
            // Two bytes of every dword as the upper halves of words.
            let pick = two_bits::pick(0x0180_0080 + 0x0200_0200 * (j as u32 % 2));
            let pair = _mm512_srai_epi16::<8>(_mm512_shuffle_epi8(self.0[j / 2], pick));
            // SAFETY: `j < 8`; the caller vouches for the activations.
            unsafe { x.dot_sums(j, pair, &mut sums) };
        }
        sums.map(|sum| _mm512_sub_epi32(zero, _mm512_slli_epi32::<SHIFT>(sum)))
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

/// The first block of 16 rows reaches as far as the last one: memory is asked for the rows after the next ones if those
/// are at most so many bytes.
const FAR: usize = 64 << 10;

/// The matmul of so many tokens, if it is done this way.
pub(super) fn tile<C: Columns>(tokens: usize) -> Option<TileFn> {
    // SAFETY: a type's matmul exists with a proof of the tier only.
    Some(match tokens {
        2 => |tile| unsafe { run::<C, 2>(tile) },
        3 => |tile| unsafe { run::<C, 3>(tile) },
        4 => |tile| unsafe { run::<C, 4>(tile) },
        5 | 6 => |tile| unsafe { run::<C, 6>(tile) },
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
    let blocks = tile.acts.cols / 256;
    assert!(tile.row_bytes == blocks * C::BYTES, "rows of another length than the activations");
    assert!(tile.weight.len() >= tile.rows * tile.row_bytes, "fewer rows than told");
    let mut arranged = std::mem::take(&mut tile.scratch.arranged);
    let mut staged = std::mem::take(&mut tile.scratch.panel);
    let len = blocks * Quads::<T>::BYTES;
    let x =
        arranged.get::<(C, [u8; T])>(tile.acts.stamp, len, |all| arrange::<C, T>(tile.acts, all)).as_ptr();
    let far = 16 * tile.row_bytes;
    let far = if far <= FAR { far } else { 0 };
    for row in (0..tile.rows).step_by(16) {
        let here = tile.weight.as_ptr().wrapping_add(row * tile.row_bytes);
        let next = here.wrapping_add(16 * tile.row_bytes);
        let live = (tile.rows - row).min(16);
        let mut rows = Rows { base: here, stride: tile.row_bytes };
        if live < 16 {
            staged.clear();
            staged.extend_from_slice(&tile.weight[row * tile.row_bytes..][..live * tile.row_bytes]);
            staged.resize(16 * tile.row_bytes, 0);
            rows.base = staged.as_ptr();
        }
        let zero = _mm512_setzero_ps();
        let (mut acc, mut accm) = ([zero; T], [zero; T]);
        for b in 0..blocks {
            let x = Quads::<T>(x.wrapping_add(b * Quads::<T>::BYTES));
            let near = next.wrapping_add(16 * b * C::BYTES);
            let ahead = Ahead { near, far: near.wrapping_add(far) };
            // SAFETY: block `b` of 16 rows of the tile, or of the staging buffer, and of the arranged activations.
            unsafe {
                let got = C::columns::<T>(rows, x, ahead);
                for t in 0..T {
                    let dx = x.d(t);
                    let term = |d, sum| _mm512_mul_ps(_mm512_mul_ps(d, dx), _mm512_cvtepi32_ps(sum));
                    acc[t] = _mm512_add_ps(acc[t], term(got.d, got.sums[t]));
                    if C::MINIMA {
                        accm[t] = _mm512_add_ps(accm[t], term(got.dmin, got.minima[t]));
                    }
                }
            }
            rows.base = rows.base.wrapping_add(C::BYTES);
        }
        for t in 0..tokens {
            let mut out = [0.0; 16];
            let sum = if C::MINIMA { _mm512_sub_ps(acc[t], accm[t]) } else { acc[t] };
            // SAFETY: 16 floats.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
            tile.store(t, row, &out[..live]);
        }
    }
    tile.scratch.panel = staged;
    tile.scratch.arranged = arranged;
}

/// Arranges the activations as [`Quads`] reads them; tokens that are not there are zero.
fn arrange<C: Columns, const T: usize>(acts: &Acts, out: &mut [u8]) {
    for (b, out) in out.chunks_exact_mut(Quads::<T>::BYTES).enumerate() {
        out.fill(0);
        let (codes, rest) = out.split_at_mut(256 * T);
        let (sums, scales) = rest.split_at_mut(32 * T);
        for t in 0..acts.tokens {
            let at = b * acts.tokens + t;
            let quads = acts.q[256 * at..][..256].as_chunks::<4>().0;
            let places = codes.as_chunks_mut::<4>().0.chunks_exact_mut(T);
            for (place, quad) in places.zip(quads) {
                place[t] = quad.map(|q| q as u8);
            }
            let pairs = acts.sums[16 * at..][..16].chunks_exact(2 * C::SUB / 16);
            let places = sums.as_chunks_mut::<4>().0.chunks_exact_mut(T);
            for (place, pair) in places.zip(pairs) {
                let (first, second) = pair.split_at(C::SUB / 16);
                let [a, b] = [first, second].map(|sums| sums.iter().sum::<i16>().to_ne_bytes());
                place[t] = [a[0], a[1], b[0], b[1]];
            }
            scales[4 * t..][..4].copy_from_slice(&acts.d[at].to_ne_bytes());
        }
    }
}
