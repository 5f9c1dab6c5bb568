//! The inner loops of the many-token matmul: `P` panels of 16 rows times `T` tokens over up to 256 values.
//!
//! Multiplications bound these loops (two a cycle on the widest CPUs, whatever their kind), so as few as can be are spent
//! on scales and offsets ([`super_blocks`], [`blocks`]); everything else goes to other units.

use super::panel::{Format, Panel, Steps};
use super::{blocks, super_blocks};
use crate::activations::Acts;
use std::arch::asm;
use std::arch::x86_64::*;

/// Activations of a step: up to 256 values of some tokens.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    acts: &'a Acts,
    /// Values before these, and how many they are.
    first: usize,
    pub values: usize,
    /// The first token.
    token: usize,
}

impl<'a> Tokens<'a> {
    /// `values` values from `first` on of the tokens from `token` on.
    pub fn new(acts: &'a Acts, first: usize, values: usize, token: usize) -> Self {
        assert!(values <= 256, "a step has at most 256 values");
        Self { acts, first, values, token }
    }

    /// Where the blocks of `LEN` values are; `count` tokens are checked to be there.
    #[inline]
    pub fn blocks<const LEN: usize>(self, count: usize) -> Blocks<LEN> {
        let tokens = self.acts.tokens;
        let at = self.first / LEN * tokens + self.token;
        let end = at + (self.values / LEN).saturating_sub(1) * tokens + count;
        assert!(
            end * LEN <= self.acts.q.len()
                && end * (LEN / 16) <= self.acts.sums.len()
                && end <= self.acts.d.len(),
            "activations too short"
        );
        Blocks {
            q: self.acts.q.as_ptr().wrapping_add(at * LEN),
            sums: self.acts.sums.as_ptr().wrapping_add(at * (LEN / 16)),
            d: self.acts.d.as_ptr().wrapping_add(at),
            tokens,
        }
    }
}

/// Pointers to the first block of the first token of a step.
#[derive(Clone, Copy)]
pub(super) struct Blocks<const LEN: usize> {
    q: *const i8,
    sums: *const i16,
    d: *const f32,
    /// Blocks from one block of a token to its next.
    tokens: usize,
}

impl<const LEN: usize> Blocks<LEN> {
    /// Codes of a block of a token; a token's block is `LEN` values after that of the token before it.
    #[inline]
    pub fn q(self, block: usize, token: usize) -> *const i8 {
        self.q.wrapping_add((block * self.tokens + token) * LEN)
    }

    /// Sums of 16 codes.
    #[inline]
    pub fn sums(self, block: usize, token: usize) -> *const i16 {
        self.sums.wrapping_add((block * self.tokens + token) * (LEN / 16))
    }

    /// The scale.
    #[inline]
    pub fn d(self, block: usize, token: usize) -> *const f32 {
        self.d.wrapping_add(block * self.tokens + token)
    }
}

/// Lines of memory that will be read soon, requested a few at a time between products: many requests at once would
/// wait for each other.
pub(super) struct Fetch {
    at: *const u8,
    left: usize,
    /// Bytes of a row, from one row to the next, and rows after this one.
    row: usize,
    stride: usize,
    rows: usize,
    /// Lines at a time.
    count: usize,
}

impl Fetch {
    /// `bytes` bytes of each of `rows` rows, `stride` bytes apart, spread over `steps` steps.
    pub fn new(at: *const u8, bytes: usize, rows: usize, stride: usize, steps: usize) -> Self {
        // A row may begin anywhere in a line.
        let row = bytes.next_multiple_of(64) + if rows > 1 { 64 } else { 0 };
        let count = (rows * row / 64).div_ceil((steps * PARTS).max(1));
        Self { at, left: row, row, stride, rows, count }
    }

    /// Requests the next lines.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn some(&mut self) {
        for _ in 0..self.count {
            if self.left == 0 {
                if self.rows <= 1 {
                    return;
                }
                self.rows -= 1;
                // A row rounded up to lines may be longer than the stride.
                self.at = self.at.wrapping_sub(self.row).wrapping_add(self.stride);
                self.left = self.row;
            }
            _mm_prefetch::<_MM_HINT_T1>(self.at.cast());
            self.at = self.at.wrapping_add(64);
            self.left -= 64;
        }
    }
}

/// Parts of a step after each of which lines are fetched.
pub(super) const PARTS: usize = 4;

/// Four codes, or two sums, in every lane.
///
/// # Safety
/// Four bytes can be read.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn broadcast<T>(p: *const T) -> __m512i {
    // SAFETY: as the caller promises.
    _mm512_set1_epi32(unsafe { p.cast::<i32>().read_unaligned() })
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_f32(v: &[f32; 16]) -> __m512 {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_ps(v.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_f32(v: &mut [f32; 16], value: __m512) {
    // SAFETY: 64 bytes.
    unsafe { _mm512_storeu_ps(v.as_mut_ptr(), value) }
}

/// Adds up to 256 values of `T` tokens to their accumulators, `[T][P]`; minima are left to [`minima`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn step<F: Format, const P: usize, const T: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]; T],
) {
    match F::STEPS {
        Steps::Blocks { sub: 16, offset, .. } => blocks::step::<P, T, 16>(panels, x, fetch, acc, offset),
        Steps::Blocks { offset, .. } => blocks::step::<P, T, 32>(panels, x, fetch, acc, offset),
        Steps::Super { sub: 16, .. } => super_blocks::step::<F, P, T, 16>(panels, x, fetch, acc),
        Steps::Super { sub: 256, .. } => super_blocks::scaled_codes::<F, P, T>(panels, x, fetch, acc),
        Steps::Super { .. } => super_blocks::step::<F, P, T, 32>(panels, x, fetch, acc),
        Steps::Wide => super_blocks::wide_step::<F, P, T>(panels, x, fetch, acc),
    }
}

/// Whether there are accumulators of minima.
pub(super) const fn has_minima<F: Format>() -> bool {
    matches!(F::STEPS, Steps::Super { minima: true, .. } | Steps::Blocks { minima: true, .. })
}

/// Adds the terms of the minima, for all tokens whose accumulators are given.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn minima<F: Format, const P: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    acc: &mut [[[f32; 16]; P]],
) {
    match F::STEPS {
        Steps::Blocks { .. } => blocks::minima(panels, x, acc),
        Steps::Super { sub: 32, .. } => super_blocks::minima::<P, 32>(panels, x, acc),
        Steps::Super { .. } => super_blocks::minima::<P, 16>(panels, x, acc),
        Steps::Wide => {}
    }
}

/// `vpdpbusd`, kept where it is written: the compiler would order products by accumulator, one waiting for another.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn dpbusd(sum: __m512i, codes: __m512i, x: __m512i) -> __m512i {
    let mut sum = sum;
    // SAFETY: touches registers only.
    unsafe {
        asm!(
            "vpdpbusd {sum}, {codes}, {x}",
            sum = inout(zmm_reg) sum,
            codes = in(zmm_reg) codes,
            x = in(zmm_reg) x,
            options(nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Adds the products of four values, quad `k` of the panels and the codes at `q` of tokens that are `stride` apart.
///
/// # Safety
/// The codes can be read, and `k < 64`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn dot<const P: usize, const T: usize>(
    panels: &[Panel; P],
    k: usize,
    q: *const i8,
    stride: usize,
    dots: &mut [[__m512i; P]; T],
) {
    let mut x = [_mm512_setzero_si512(); T];
    for t in 0..T {
        // SAFETY: as the caller promises.
        x[t] = unsafe { broadcast(q.add(t * stride)) };
    }
    for p in 0..P {
        // SAFETY: `k < 64`: 64 bytes.
        let w = unsafe { _mm512_load_si512(panels[p].codes.as_ptr().add(k).cast()) };
        for t in 0..T {
            dots[t][p] = dpbusd(dots[t][p], w, x[t]);
        }
    }
}

/// `(d * dx) * isum`
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn term(d: &[f32; 16], dx: __m512, isum: __m512i) -> __m512 {
    _mm512_mul_ps(_mm512_mul_ps(load_f32(d), dx), _mm512_cvtepi32_ps(isum))
}
