//! The inner loops of the many-token matmul: `P` panels of 16 rows times `T` tokens over up to 256 values.
//!
//! Multiplications bound these loops (two a cycle on the widest CPUs, whatever their kind), so as few as can be are spent
//! on scales and offsets ([`super_blocks`], [`blocks`]); everything else goes to other units.

use super::panel::{Format, Panel, Steps};
use super::{blocks, super_blocks};
use crate::activations::{Acts, Reach};
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
    /// Where the integer sums of its sub-blocks begin, and those of the tokens after it ([`starts`]).
    pub starts: &'a [Starts],
}

impl<'a> Tokens<'a> {
    /// `values` values from `first` on of the tokens from `token` on.
    pub fn new(acts: &'a Acts, first: usize, values: usize, token: usize) -> Self {
        assert!(values <= 256, "a step has at most 256 values");
        Self { acts, first, values, token, starts: &[] }
    }

    /// The tokens from the `count`-th of these on.
    #[inline]
    pub fn skip(self, count: usize) -> Self {
        Self { token: self.token + count, starts: &self.starts[count..], ..self }
    }

    /// The bounds of these tokens' blocks of 256, where there are such.
    #[inline]
    pub fn reach(self) -> &'a [Reach] {
        self.acts.reach.get(self.acts.place(self.first / 256, self.token, 256)..).unwrap_or_default()
    }

    /// The lanes in which accumulators hold sums of earlier values: none, or all.
    #[inline]
    pub fn earlier(self) -> __mmask16 {
        if self.first == 0 { 0 } else { !0 }
    }

    /// Where the blocks of `LEN` values are; `count` tokens are checked to be there.
    #[inline]
    pub fn blocks<const LEN: usize>(self, count: usize) -> Blocks<LEN> {
        // Whole steps but for the last columns, which are a group of their own too.
        let stride = self.values / LEN;
        let at = self.first / LEN * self.acts.tokens + self.token * stride;
        let end = at + count * stride;
        assert!(
            end * LEN <= self.acts.q.len()
                && end * (LEN / 16) <= self.acts.sums.len()
                && (LEN == 16 || end <= self.acts.d.len()),
            "activations too short"
        );
        Blocks {
            q: self.acts.q.as_ptr().wrapping_add(at * LEN),
            sums: self.acts.sums.as_ptr().wrapping_add(at * (LEN / 16)),
            d: self.acts.d.as_ptr().wrapping_add(at),
            stride,
        }
    }
}

/// Pointers to the first block of the first token of a step.
#[derive(Clone, Copy)]
pub(super) struct Blocks<const LEN: usize> {
    q: *const i8,
    sums: *const i16,
    d: *const f32,
    /// Blocks from one token to the next.
    stride: usize,
}

impl<const LEN: usize> Blocks<LEN> {
    /// Codes of a block of a token.
    #[inline]
    pub fn q(self, block: usize, token: usize) -> *const i8 {
        self.q.wrapping_add((block + token * self.stride()) * LEN)
    }

    /// Sums of 16 codes.
    #[inline]
    pub fn sums(self, block: usize, token: usize) -> *const i16 {
        self.sums.wrapping_add((block + token * self.stride()) * (LEN / 16))
    }

    /// The scale.
    #[inline]
    pub fn d(self, block: usize, token: usize) -> *const f32 {
        self.d.wrapping_add(block + token * self.stride())
    }

    /// The same of the token `count` tokens on.
    #[inline]
    pub fn after(self, count: usize) -> Self {
        let blocks = count * self.stride();
        Self {
            q: self.q.wrapping_add(blocks * LEN),
            sums: self.sums.wrapping_add(blocks * (LEN / 16)),
            d: self.d.wrapping_add(blocks),
            ..self
        }
    }

    /// Blocks from one token to the next.
    #[inline]
    pub fn stride(self) -> usize {
        if LEN == 256 { 1 } else { self.stride }
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

/// What accumulators hold, where `earlier` says that they hold something; else +0.0.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn resume(earlier: __mmask16, acc: &[f32; 16]) -> __m512 {
    // SAFETY: 64 bytes.
    unsafe { _mm512_maskz_loadu_ps(earlier, acc.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_f32(v: &mut [f32; 16], value: __m512) {
    // SAFETY: 64 bytes.
    unsafe { _mm512_storeu_ps(v.as_mut_ptr(), value) }
}

/// Up to 256 values of `T` tokens.
#[derive(Clone, Copy)]
pub(super) struct Chunk<'a, const LEN: usize, const T: usize> {
    pub at: Blocks<LEN>,
    /// How many values.
    pub values: usize,
    /// Where the integer sums of sub-blocks begin.
    pub starts: &'a [Starts; T],
    /// The lanes in which accumulators hold sums of earlier values: none, or all.
    pub earlier: __mmask16,
    /// Bounds of each token's block of 256, where there are such.
    pub reach: &'a [Reach],
}

/// Calls a kernel for every `T` tokens, and with single ones for those left: no function, so that what all calls share is
/// found out once.
macro_rules! by_tokens {
    ($LEN:literal, $T:ident, $kernel:ident::<$($generic:tt),+>, $panels:ident, $x:ident, $fetch:ident, $acc:ident) => {{
        let mut at = $x.blocks::<$LEN>($acc.len());
        let (values, earlier) = ($x.values, $x.earlier());
        let mut reach = $x.reach();
        let (starts, last_starts) = $x.starts[..$acc.len()].as_chunks::<$T>();
        let (acc, last) = $acc.as_chunks_mut::<$T>();
        for (acc, starts) in acc.iter_mut().zip(starts) {
            $kernel::<$($generic),+, $T>($panels, Chunk { at, values, starts, earlier, reach }, $fetch, acc);
            (at, reach) = (at.after($T), reach.get($T..).unwrap_or_default());
        }
        for (acc, starts) in last.as_chunks_mut::<1>().0.iter_mut().zip(last_starts.as_chunks::<1>().0) {
            $kernel::<$($generic),+, 1>($panels, Chunk { at, values, starts, earlier, reach }, $fetch, acc);
            (at, reach) = (at.after(1), reach.get(1..).unwrap_or_default());
        }
    }};
}
pub(super) use by_tokens;

/// Adds up to 256 values of tokens, `T` at a time, to their accumulators, `[token][P]`; minima are left to [`minima`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn step<F: Format, const P: usize, const T: usize>(
    panels: &[Panel; P],
    x: Tokens<'_>,
    fetch: &mut Fetch,
    acc: &mut [[[f32; 16]; P]],
) {
    match F::STEPS {
        Steps::Blocks { sub: 16, .. } => blocks::step::<P, 16, T>(panels, x, fetch, acc),
        Steps::Blocks { .. } => blocks::step::<P, 32, T>(panels, x, fetch, acc),
        Steps::Super { sub: 16, .. } => super_blocks::pair_steps::<F, P, 16, T>(panels, x, fetch, acc),
        Steps::Super { sub: 256, .. } => super_blocks::scaled_codes::<F, P, T>(panels, x, fetch, acc),
        Steps::Super { .. } => super_blocks::pair_steps::<F, P, 32, T>(panels, x, fetch, acc),
        Steps::Wide => super_blocks::wide_steps::<F, P, 32, T>(panels, x, fetch, acc),
    }
}

/// Values in a sub-block, and what its codes are too large by, for types that have [`starts`].
const fn offset<F: Format>() -> Option<(usize, i16)> {
    match (F::STEPS, F::OFFSET) {
        (Steps::Blocks { offset: 0, .. } | Steps::Super { sub: 256, .. }, _) => None,
        (Steps::Blocks { sub, offset, .. }, _) | (Steps::Super { sub, .. }, Some(offset)) => {
            Some((sub, offset))
        }
        (Steps::Wide, Some(offset)) => Some((32, offset)),
        (_, None) => None,
    }
}

/// Whether there are [`starts`]; without them all sums begin at zero.
pub(super) const fn has_starts<F: Format>() -> bool {
    offset::<F>().is_some()
}

/// Where the integer sums of tokens' sub-blocks begin, for types whose codes have an offset: they take off what the offset
/// adds too much.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn starts<F: Format>(x: Tokens<'_>, out: &mut [Starts]) {
    let Some((sub, offset)) = (const { offset::<F>() }) else { return };
    let count = x.values / 16;
    let at = x.blocks::<16>(out.len());
    for (t, out) in out.iter_mut().enumerate() {
        // SAFETY: `blocks` has checked the sums.
        *out = unsafe {
            let sums = at.sums(0, t);
            if sub == 16 {
                starts_of::<16>(sums, count, offset)
            } else {
                starts_of::<32>(sums, count, offset)
            }
        };
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

/// Where the integer sums of a token's sub-blocks of up to 256 values begin.
pub(super) type Starts = [i32; 16];

/// [`starts`] of one token, from `count` sums of 16 activations, at most 16.
///
/// # Safety
/// The sums can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn starts_of<const SUB: usize>(sums: *const i16, count: usize, offset: i16) -> Starts {
    let mut lanes = [0; 16];
    // SAFETY: the caller vouches for the sums; stores of 64 bytes.
    unsafe {
        let sums = _mm256_maskz_loadu_epi16(((1u32 << count) - 1) as u16, sums);
        let products = if SUB == 32 {
            _mm512_zextsi256_si512(_mm256_madd_epi16(sums, _mm256_set1_epi16(-offset)))
        } else {
            _mm512_mullo_epi32(_mm512_cvtepi16_epi32(sums), _mm512_set1_epi32((-offset).into()))
        };
        _mm512_storeu_si512(lanes.as_mut_ptr().cast(), products);
    }
    lanes
}

/// A product instruction, kept as and where it is written: the compiler would order products by accumulator, one waiting
/// for another, and split those of words into two instructions.
macro_rules! product {
    ($name:ident, $instruction:literal) => {
        #[doc = concat!("`", $instruction, "`: the sum, with the products of `a` and `b` added.")]
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
        pub(super) fn $name(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
            let mut sum = sum;
            // SAFETY: touches registers only.
            unsafe {
                asm!(
                    concat!($instruction, " {sum}, {a}, {b}"),
                    sum = inout(zmm_reg) sum,
                    a = in(zmm_reg) a,
                    b = in(zmm_reg) b,
                    options(nomem, nostack, preserves_flags),
                );
            }
            sum
        }
    };
}

product!(dpbusd, "vpdpbusd");
product!(dpwssd, "vpdpwssd");

/// Writes `$body` out for `$k` from 0 to 3: the compiler leaves loops around assembly as they are.
macro_rules! four_times {
    ($k:ident, $body:expr) => {
        four_times!(@ $k, $body, 0, 1, 2, 3)
    };
    (@ $k:ident, $body:expr, $($value:literal),+) => {
        $({
            let $k = $value;
            $body
        })+
    };
}
pub(super) use four_times;

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
