//! Few tokens of IQ1 and IQ2, whose codebooks have eight values of three levels to an entry: two blocks are decoded at a
//! time, value by value.
//!
//! A codebook gives the two bytes of 64 entries in two registers, four values in each byte. `vpermb` makes of these one
//! register for each of the four: a byte is an index of enough bits as it is. Values stay apart like this, activations are
//! arranged to meet them, and as the four bytes of a dword share a scale, sums need no more than one multiplication.

use super::linear::{Linear, Planes, Terms, Walk, X, from_block, load, request_now};
use super::load::Rows;
use super::panel::{self, Format, Panel, Steps};
use super::sums::{add_dword_twos, sixteen_halves};
use crate::isa::Avx512;
use crate::types::TileFn;
use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// 64 entries of two blocks.
#[derive(Clone, Copy)]
pub(super) struct Entries {
    /// Their low and their high bytes.
    pub halves: [__m512i; 2],
    /// A byte for each: its signs, or what else comes with its index.
    pub more: __m512i,
}

/// A type with such a codebook.
pub(super) trait Eights: 'static {
    /// Its way with many tokens.
    type Many: Format;
    /// Values that share a scale: 16 or 32.
    const SUB: usize;
    /// The values of an entry in the two bits from bit 0 on of its low byte, from bit 2 on, and so on; then those of its
    /// high byte.
    const ORDER: [usize; 8];
    /// Lines of 64 bytes that [`Eights::starts`] wants.
    const STARTS: usize;

    /// The entries of some pairs of blocks.
    ///
    /// # Safety
    /// The CPU has the tier; the bytes of the blocks can be read.
    unsafe fn entries<const V: usize>(blocks: [[*const u8; 2]; V]) -> [Entries; V];

    /// The weights as unsigned bytes: place `j` of half `h`. For sub-blocks of 16 both halves have been through
    /// [`mixed`].
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn weights(entries: Entries) -> [[__m512i; 4]; 2];

    /// What the sums begin with.
    ///
    /// # Safety
    /// As for [`Eights::entries`]; the lines that [`Eights::arrange_starts`] left can be read.
    unsafe fn starts(blocks: [*const u8; 2], entries: Entries, lines: *const u8) -> [__m512i; 2];

    /// Fills the lower halves of the lines of starts.
    fn arrange_starts(q: &[i8], sums: &[i16], lines: &mut [[u8; 64]]);

    /// The sums of both halves times the scales, added up to any dwords of each block's half of a register. Sub-blocks of
    /// 32 have a dword in each of the halves, in order; those of 16 have one, of lane `l` those from [`sub_block`] on.
    ///
    /// # Safety
    /// As for [`Eights::entries`].
    unsafe fn scaled(blocks: [*const u8; 2], sums: [__m512i; 2]) -> __m512i;

    /// Copies what the float scales of 16 consecutive blocks are made of.
    ///
    /// # Safety
    /// The blocks can be read.
    unsafe fn copy_d(w: *const u8, to: &mut Copied);

    /// The float scales of 16 blocks.
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn copied_d(copied: &Copied) -> __m512;
}

/// The bytes of 16 blocks that their float scales are made of, one block's after the other's.
///
/// They are copied long before they are needed: that costs less than to collect them in a register, and a wide load of
/// what has just been written in pieces would wait.
#[repr(align(64))]
pub(super) struct Copied([u8; 128]);

impl Copied {
    /// The `T` at byte `at` of each block.
    ///
    /// # Safety
    /// The blocks, `bytes` bytes each, can be read.
    #[inline]
    pub unsafe fn copy<T>(&mut self, w: *const u8, bytes: usize, at: usize) {
        const { assert!(16 * size_of::<T>() <= 128) };
        let to = self.0.as_mut_ptr().cast::<T>();
        for k in 0..16 {
            // Volatile: the compiler would collect them in a register.
            // SAFETY: as the caller promises; the array has room for 16 of this size.
            unsafe { to.add(k).write_volatile(w.add(bytes * k + at).cast::<T>().read_unaligned()) };
        }
    }

    /// 64 bytes from byte `64 * i` on.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn line(&self, i: usize) -> __m512i {
        // SAFETY: the slice has 64 bytes.
        unsafe { load(self.0[64 * i..][..64].as_ptr()) }
    }

    /// Of 16 f16, times `factor`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn f16(&self, factor: f32) -> __m512 {
        let halves = _mm512_castsi512_si256(self.line(0));
        _mm512_mul_ps(_mm512_cvtph_ps(halves), _mm512_set1_ps(factor))
    }
}

/// The matmul of such a type.
pub(super) fn tile<E: Eights>(_: Avx512) -> TileFn {
    // SAFETY: the argument proves the tier.
    |tile| unsafe { panel::tile::<Few<E>>(tile) }
}

struct Few<E>(PhantomData<E>);

impl<E: Eights> Format for Few<E> {
    const BYTES: usize = E::Many::BYTES;
    const STEPS: Steps = E::Many::STEPS;
    const OFFSET: Option<i16> = E::Many::OFFSET;
    const NARROW: Option<u16> = E::Many::NARROW;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, values: usize, panel: &mut Panel) {
        // SAFETY: as the caller promises.
        unsafe { E::Many::unpack(rows, values, panel) };
    }
}

/// Lines of codes of a block.
const CODES: usize = 8;
/// Pairs of blocks.
const PAIRS: usize = 8;
/// Pairs that are looked up together: they share the loads of the codebook.
const TOGETHER: usize = 2;

impl<E: Eights> Linear for Few<E> {
    const VALUES: usize = 256;
    const BYTES: usize = E::Many::BYTES;
    const MINIMA: bool = false;
    const PARTS: [usize; 3] = [64 * (CODES + E::STARTS), 0, 0];
    const PAIRS: bool = true;

    fn arrange(q: &[i8], sums: &[i16], [lines, ..]: [&mut [u8]; 3]) {
        let (codes, starts) = lines.as_chunks_mut::<64>().0.split_at_mut(CODES);
        for (i, q) in q.as_chunks::<64>().0.iter().enumerate() {
            // SAFETY: a type's matmul exists with a proof of the tier only.
            let turned = unsafe { permuted(q, const { &codes_order::<E>() }) };
            // Of sub-blocks of 16, these 64 values meet one half of the entries.
            if E::SUB == 16 {
                for (line, turned) in codes[4 * (i % 2)..].iter_mut().zip(turned.as_chunks::<16>().0) {
                    line[16 * (i / 2)..][..16].copy_from_slice(turned);
                }
            } else {
                for (line, turned) in codes.iter_mut().zip(turned.as_chunks::<8>().0) {
                    line[8 * i..][..8].copy_from_slice(turned);
                }
            }
        }
        E::arrange_starts(q, sums, starts);
    }

    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let mut out = [[0.0; 16]; T];
        // SAFETY: as the caller promises; a plane has 16 terms.
        unsafe { units::<E, T>(w, 1, &mut Walk::once(x), Planes::new(out.as_flattened_mut(), 16)) };
        // SAFETY: 16 floats.
        out.map(|terms| unsafe { [_mm512_loadu_ps(terms.as_ptr()), _mm512_setzero_ps()] })
    }

    unsafe fn all_terms<const T: usize>(w: *const u8, count: usize, walk: &mut Walk, planes: Planes) {
        // SAFETY: as the caller promises.
        unsafe { units::<E, T>(w, count, walk, planes) };
    }
}

/// [`Linear::all_terms`]: a function by itself, so that what its loops share is loaded once.
///
/// Decoding and multiplying take turns by way of memory: each by itself is a short loop without long waits whose values
/// stay in registers. Sums are made terms after the next blocks have been decoded, when they have long been there.
///
/// # Safety
/// As for [`Linear::all_terms`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn units<E: Eights, const T: usize>(w: *const u8, count: usize, walk: &mut Walk, planes: Planes) {
    let mut planes = planes;
    let mut entries = [const { MaybeUninit::<[Entries; TOGETHER]>::uninit() }; PAIRS / TOGETHER];
    let mut sums = [const { MaybeUninit::<[__m512i; T]>::uninit() }; PAIRS / TOGETHER];
    let mut copied = Copied([0; 128]);
    let mut before = None;
    for unit in 0..count {
        let w = w.wrapping_add(16 * E::Many::BYTES * unit);
        let pair = |i: usize| {
            let first = w.wrapping_add(2 * E::Many::BYTES * i);
            [first, first.wrapping_add(E::Many::BYTES)]
        };
        for (i, place) in entries.iter_mut().enumerate().take(unknown(PAIRS / TOGETHER)) {
            // SAFETY: four of the 16 blocks.
            place.write(unsafe { E::entries([pair(TOGETHER * i), pair(TOGETHER * i + 1)]) });
        }
        if let Some(x) = before {
            // SAFETY: all sums of the unit before have been written, and what `copy_d` copies.
            unsafe { planes.store::<Few<E>, T>(terms::<E, T>(&sums, &copied, x)) };
        }
        // SAFETY: 16 blocks.
        unsafe { E::copy_d(w, &mut copied) };
        let x = walk.next::<Few<E>>();
        let entries = entries.as_ptr().cast::<Entries>();
        for (i, place) in sums.iter_mut().enumerate().take(unknown(PAIRS / TOGETHER)) {
            let sums = |i: usize| {
                request_now::<Few<E>>(pair(i)[0], 2 * E::Many::BYTES);
                let x = from_block::<Few<E>>(x, 2 * i);
                // SAFETY: two of the blocks, their entries, which have been written, and their activations.
                unsafe { multiply::<E, T>(pair(i), *entries.add(i), x) }
            };
            let (mut joined, more) = (sums(TOGETHER * i), sums(TOGETHER * i + 1));
            for t in 0..T {
                joined[t] = add_dword_twos(joined[t], more[t]);
            }
            place.write(joined);
        }
        before = Some(x);
    }
    if let Some(x) = before {
        // SAFETY: as above.
        unsafe { planes.store::<Few<E>, T>(terms::<E, T>(&sums, &copied, x)) };
    }
}

/// The terms of 16 blocks.
///
/// # Safety
/// The CPU has the tier; all sums have been written; the scales of the activations can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn terms<E: Eights, const T: usize>(
    sums: &[MaybeUninit<[__m512i; T]>; PAIRS / TOGETHER],
    copied: &Copied,
    x: X,
) -> Terms<T> {
    // SAFETY: as the caller promises.
    let d = unsafe { E::copied_d(copied) };
    let mut terms = [[_mm512_setzero_ps(); 2]; T];
    for t in 0..T {
        // SAFETY: as the caller promises.
        let sum = |i: usize| unsafe { sums[i].assume_init() }[t];
        let sums = sixteen_halves([sum(0), sum(1), sum(2), sum(3)]);
        // SAFETY: as the caller promises.
        terms[t][0] = unsafe { x.term(t, d, sums) };
    }
    terms
}

/// The number, unknown to the compiler: loops remain loops. Unrolled, decoding runs out of registers.
#[inline]
fn unknown(number: usize) -> usize {
    let mut number = number;
    // SAFETY: touches nothing.
    unsafe { asm!("/* {number} */", number = inout(reg) number, options(nomem, nostack, preserves_flags)) };
    number
}

/// The sums of a pair of blocks.
///
/// # Safety
/// The CPU has the tier; the bytes of the blocks and their activations can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn multiply<E: Eights, const T: usize>(
    blocks: [*const u8; 2],
    entries: Entries,
    x: X,
) -> [__m512i; T] {
    // SAFETY: as the caller promises.
    let weights = unsafe { E::weights(entries) };
    let mut sums = [entries.more; T];
    for t in 0..T {
        let lines = x.part(0, t);
        // SAFETY: as the caller promises.
        let mut dots = unsafe { E::starts(blocks, entries, lines.wrapping_add(64 * CODES)) };
        for h in 0..2 {
            for j in 0..4 {
                // SAFETY: as above.
                let x = unsafe { load(lines.wrapping_add(64 * (4 * h + j))) };
                dots[h] = _mm512_dpbusd_epi32(dots[h], weights[h][j], x);
            }
        }
        // SAFETY: as above.
        sums[t] = unsafe { E::scaled(blocks, dots) };
    }
    sums
}

/// Where the codes of 64 values go: for sub-blocks of 32, eight values in the same place of an entry; for those of 16, 16
/// bytes as [`mixed`] has them of the places `j` of both halves.
const fn codes_order<E: Eights>() -> [u8; 64] {
    let mut order = [0; 64];
    let mut i = 0;
    while i < 64 {
        let (entry, place) =
            if E::SUB == 16 { (i % 16 / 4 * 2 + i % 2, i / 16 + 4 * (i % 4 / 2)) } else { (i % 8, i / 8) };
        order[i] = (8 * entry + E::ORDER[place]) as u8;
        i += 1;
    }
    order
}

/// Bytes in another order.
#[target_feature(enable = "avx512f,avx512vbmi")]
fn permuted(q: &[i8; 64], order: &[u8; 64]) -> [u8; 64] {
    let mut out = [0; 64];
    // SAFETY: 64 bytes each.
    unsafe {
        let (order, q) = (load(order.as_ptr()), load(q.as_ptr().cast()));
        _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_permutexvar_epi8(order, q));
    }
    out
}

/// Both bytes of two entries in a dword, first the low ones: result `h` has in its 128-bit lane `l` entries
/// `16 l + 8 h..16 l + 8 h + 8`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn mixed([low, high]: [__m512i; 2]) -> [__m512i; 2] {
    [_mm512_unpacklo_epi16(low, high), _mm512_unpackhi_epi16(low, high)]
}

/// Number of the first of the four sub-blocks of 16 of which half `h` has sums in lane `l`.
pub(super) const fn sub_block(h: usize, l: usize) -> usize {
    8 * (l % 2) + 4 * h
}

/// The products of `factor` and the sums of sub-blocks, for the lower halves of one line (of 32) or of two.
pub(super) fn arrange_products<const SUB: usize>(sums: &[i16], factor: i32, lines: &mut [[u8; 64]]) {
    for (h, line) in lines.iter_mut().take(32 / SUB).enumerate() {
        for (i, place) in line[..32].as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let sum = if SUB == 16 {
                i32::from(sums[sub_block(h, i / 4) + i % 4])
            } else {
                i32::from(sums[2 * i]) + i32::from(sums[2 * i + 1])
            };
            *place = (factor * sum).to_ne_bytes();
        }
    }
}
