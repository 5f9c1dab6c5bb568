//! Blocks of 32 nibbles under a header: Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL and MXFP4 differ in what a nibble and a
//! header mean.
//!
//! ```text
//! header (1 to 4 bytes) | fifth bits (4 bytes, or none) | nibbles (16 bytes)
//! ```

use super::fields::vector;
use super::linear::{Linear, Terms, X, bytes, first_dwords, fours, load, request, sixteen_blocks};
use super::load::{Rows, high_nibbles, low_nibbles};
use super::panel::{Format, Panel, Steps};
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// What a type's nibbles and headers mean.
pub(super) trait Codes {
    /// What the unsigned codes are too large by.
    const OFFSET: i16;
    /// Whether headers hold minima.
    const MINIMA: bool = false;
    /// Unsigned codes, [`repeated`], where nibbles are indices.
    const LEVELS: Option<[u8; 64]> = None;

    /// Scale and minimum from the header in the low bytes of every dword; what follows it there is arbitrary.
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn scales(headers: __m512i) -> [__m512; 2];
}

/// The unsigned codes of the low and of the high nibbles, without fifth bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
fn codes<C: Codes>(nibbles: __m512i) -> [__m512i; 2] {
    match C::LEVELS {
        Some(table) => levels(nibbles, table),
        None => [low_nibbles(nibbles), high_nibbles(nibbles)],
    }
}

/// The codes of nibbles that are indices into 16 levels: entries of `table`, which is [`repeated`]. Its permutation
/// reads six bits of a byte, of which two may be anything.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn levels(nibbles: __m512i, table: [u8; 64]) -> [__m512i; 2] {
    let table = vector(table);
    let high = _mm512_srli_epi16::<4>(nibbles);
    [_mm512_permutexvar_epi8(nibbles, table), _mm512_permutexvar_epi8(high, table)]
}

/// Levels plus `offset`, four times.
pub(super) const fn repeated(levels: [i8; 16], offset: i16) -> [u8; 64] {
    let mut table = [0; 64];
    let mut i = 0;
    while i < 64 {
        table[i] = (levels[i % 16] as i16 + offset) as u8;
        i += 1;
    }
    table
}

/// The kernels of a type with blocks of `BYTES` bytes that begin with `HEADER` bytes of scales.
pub(super) struct Blocks<C, const BYTES: usize, const HEADER: usize>(PhantomData<C>);

impl<C, const BYTES: usize, const HEADER: usize> Blocks<C, BYTES, HEADER> {
    /// Whether there are fifth bits.
    const FIFTH: bool = match BYTES - HEADER {
        16 => false,
        20 => true,
        _ => panic!("a block has its header, maybe 4 bytes of fifth bits, and 16 bytes of nibbles"),
    };
}

impl<C: Codes, const BYTES: usize, const HEADER: usize> Format for Blocks<C, BYTES, HEADER> {
    const BYTES: usize = 8 * BYTES;
    const STEPS: Steps = Steps::Blocks { sub: 32, offset: C::OFFSET, minima: C::MINIMA };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn unpack(rows: Rows, values: usize, panel: &mut Panel) {
        for j in 0..values / 32 {
            let at = j * BYTES;
            // SAFETY: the caller vouches for the `BYTES` bytes, at least 17, of block `j` in every row.
            let (head, nibbles) = unsafe { (rows.dwords4(at), rows.dwords4(at + BYTES - 16)) };
            // SAFETY: the caller vouches for the tier.
            let [d, m] = unsafe { C::scales(head[0]) };
            panel.set_d(j, d);
            if C::MINIMA {
                panel.set_d(8 + j, m);
            }
            let fifth = if HEADER == 4 {
                head[1]
            } else {
                _mm512_or_si512(_mm512_srli_epi32::<16>(head[0]), _mm512_slli_epi32::<16>(head[1]))
            };
            for i in 0..4 {
                let [mut low, mut high] = codes::<C>(nibbles[i]);
                if Self::FIFTH {
                    let places = const {
                        let mut places = [[0; 64]; 8];
                        let mut i = 0;
                        while i < 8 {
                            places[i] = fifth_places(4, 4 * i);
                            i += 1;
                        }
                        places
                    };
                    low = join(low, _mm512_multishift_epi64_epi8(vector(places[i]), fifth));
                    high = join(high, _mm512_multishift_epi64_epi8(vector(places[4 + i]), fifth));
                }
                panel.set_codes(j * 8 + i, low);
                panel.set_codes(j * 8 + 4 + i, high);
            }
        }
    }
}

/// `nibble | (bits & 16)`
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn join(nibbles: __m512i, bits: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xf8>(nibbles, bits, _mm512_set1_epi8(16))
}

/// For each byte, from which bit of its qword on eight bits are to be taken so that its fifth bit comes to place 4.
/// `run` consecutive bytes have consecutive bits from `first` on; the next run of 4 has those 32 bits further.
const fn fifth_places(run: usize, first: usize) -> [u8; 64] {
    let mut places = [0; 64];
    let mut i = 0;
    while i < 64 {
        places[i] = ((first + i % run + if run == 4 { i / run * 32 } else { 0 } + 64 - 4) % 64) as u8;
        i += 1;
    }
    places
}

impl<C: Codes, const BYTES: usize, const HEADER: usize> Blocks<C, BYTES, HEADER> {
    /// Four blocks from `p` on, one per 128-bit lane: their codes, and in the first dword of the lane their header.
    ///
    /// # Safety
    /// The CPU has the tier; the blocks can be read.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn four_blocks(p: *const u8) -> ([__m512i; 2], __m512i) {
        const { assert!(4 * BYTES >= 64 && 2 * BYTES + 16 <= 64) };
        // 64 bytes have the nibbles of three blocks.
        let from = const { if Self::FIFTH { BYTES - 16 } else { 0 } };
        let order = vector(const { lanes(BYTES, BYTES - 16 - if Self::FIFTH { BYTES - 16 } else { 0 }) });
        // SAFETY: 64 bytes from there on are within the four blocks, and so are the nibbles of the last one.
        let (near, last) = unsafe { (load(p.add(from)), _mm_loadu_si128(p.add(4 * BYTES - 16).cast())) };
        let nibbles = _mm512_mask_broadcast_i32x4(_mm512_permutexvar_epi8(order, near), 0xf000, last);
        let [low, high] = codes::<C>(nibbles);
        if !Self::FIFTH {
            // They have all headers, too.
            const { assert!(Self::FIFTH || 3 * BYTES + HEADER <= 64) };
            let heads = _mm512_permutexvar_epi8(vector(const { lanes(BYTES, 0) }), near);
            return ([low, high], heads);
        }
        // The first eight bytes of each block, header and fifth bits, in both qwords of its lane.
        const { assert!(!Self::FIFTH || 3 * BYTES >= 64) };
        let order = vector(const { qwords(BYTES) });
        // SAFETY: eight bytes of the first block, and 64 bytes that begin with the second one.
        let (first, others) = unsafe { (p.cast::<i64>().read_unaligned(), load(p.add(BYTES))) };
        let heads = _mm512_mask_set1_epi64(_mm512_permutexvar_epi8(order, others), 0b11, first);
        let places = const { [fifth_places(16, 8 * HEADER), fifth_places(16, 8 * HEADER + 16)] };
        let low = join(low, _mm512_multishift_epi64_epi8(vector(places[0]), heads));
        let high = join(high, _mm512_multishift_epi64_epi8(vector(places[1]), heads));
        ([low, high], heads)
    }
}

/// Where the bytes of each 128-bit lane lie that begin `first` bytes into a block of `bytes` bytes. What lies beyond 64
/// bytes is arbitrary.
const fn lanes(bytes: usize, first: usize) -> [u8; 64] {
    let mut order = [0; 64];
    let mut i = 0;
    while i < 64 {
        order[i] = ((bytes * (i / 16) + first + i % 16) % 64) as u8;
        i += 1;
    }
    order
}

/// Where the first eight bytes of the blocks before the first lane's, the second lane's and so on lie; those of the
/// first lane are arbitrary.
const fn qwords(bytes: usize) -> [u8; 64] {
    let mut order = [0; 64];
    let mut i = 16;
    while i < 64 {
        order[i] = (bytes * (i / 16 - 1) + i % 8) as u8;
        i += 1;
    }
    order
}

impl<C: Codes + 'static, const BYTES: usize, const HEADER: usize> Linear for Blocks<C, BYTES, HEADER> {
    const VALUES: usize = 32;
    const BYTES: usize = BYTES;
    const MINIMA: bool = C::MINIMA;
    const PARTS: [usize; 3] = [16, 16, 4];

    /// The codes that meet low nibbles, those that meet high ones, and what the offset adds too much, or what minima
    /// are multiplied with.
    #[inline]
    fn arrange(q: &[i8], sums: &[i16], [low, high, sum]: [&mut [u8]; 3]) {
        let (first, last) = q.split_at(16);
        low.copy_from_slice(bytes(first));
        high.copy_from_slice(bytes(last));
        let factor = if C::MINIMA { 1 } else { -i32::from(C::OFFSET) };
        sum.copy_from_slice(&(factor * (i32::from(sums[0]) + i32::from(sums[1]))).to_ne_bytes());
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn terms<const T: usize>(w: *const u8, x: X) -> Terms<T> {
        let zero = _mm512_setzero_si512();
        let quads = fours::<Self, _>(|i| {
            // SAFETY: blocks `4i..4i + 4` of 16.
            let ([low, high], head) = unsafe { Self::four_blocks(w.add(4 * i * BYTES)) };
            let (from, half) = (4 * i * BYTES, 2 * BYTES);
            let low = request::<Self>(w, from, from + half, low);
            let high = request::<Self>(w, from + half, from + 2 * half, high);
            let mut dots = [zero; T];
            for t in 0..T {
                // SAFETY: 64 bytes of each part.
                let (x0, x1) = unsafe { (load(x.part(0, t).add(64 * i)), load(x.part(1, t).add(64 * i))) };
                dots[t] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, low, x0), high, x1);
            }
            (head, dots)
        });
        // SAFETY: the caller vouches for the tier.
        let [d, m] = unsafe { C::scales(first_dwords([quads[0].0, quads[1].0, quads[2].0, quads[3].0])) };
        let dots = quads.map(|quad| quad.1);
        let mut terms = [[_mm512_setzero_ps(); 2]; T];
        for t in 0..T {
            let dots = sixteen_blocks(&dots, t);
            // SAFETY: 16 sums of 4 bytes, and the scales of these terms.
            unsafe {
                let sums = load(x.part(2, t));
                if C::MINIMA {
                    terms[t] = [x.term(t, d, dots), x.term(t, m, sums)];
                } else {
                    terms[t][0] = x.term(t, d, _mm512_add_epi32(dots, sums));
                }
            }
        }
        terms
    }
}
