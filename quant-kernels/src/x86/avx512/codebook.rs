//! Codebooks of the i-quants in registers: entries packed to 16 bits are looked up 64 at a time by byte permutations of
//! the whole book, then spread to bytes by `vpmultishiftqb`.

use crate::types::codebooks::even_signs;
use std::arch::asm;
use std::arch::x86_64::*;

/// A byte of each of `N` entries.
#[repr(C, align(64))]
pub(super) struct Plane<const N: usize>([u8; N]);

impl<const N: usize> Plane<N> {
    /// Byte `byte` of `N` packed entries from `first` on.
    pub const fn new(packed: &[u16], first: usize, byte: usize) -> Self {
        let mut plane = [0; N];
        let mut i = 0;
        while i < N {
            plane[i] = packed[first + i].to_le_bytes()[byte];
            i += 1;
        }
        Self(plane)
    }

    /// The bytes of `V` times 64 indices, given as their low bytes and masks of bits 8 and 9.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    pub fn of<const V: usize>(&self, low: [__m512i; V], bits: [[__mmask64; 2]; V]) -> [__m512i; V] {
        let mut masks = [[0; 3]; V];
        for v in 0..V {
            masks[v] = [_mm512_movepi8_mask(low[v]), bits[v][0], bits[v][1]];
        }
        Lookup { plane: &self.0, low, masks }.all()
    }
}

/// The same, to be loaded in every turn of a loop: before it, the compiler would load more than there are registers for,
/// and store it elsewhere.
#[inline]
pub(super) fn anew<T>(table: &T) -> &T {
    let mut table: *const T = table;
    // SAFETY: touches nothing; the address remains that of the reference.
    unsafe {
        asm!("/* {table} */", table = inout(reg) table, options(readonly, nostack, preserves_flags));
        &*table
    }
}

/// A codebook of `N` packed entries: their low bytes, their high bytes.
pub(super) struct Book<const N: usize>([Plane<N>; 2]);

impl<const N: usize> Book<N> {
    pub const fn new(packed: &[u16; N]) -> Self {
        Self([Plane::new(packed, 0, 0), Plane::new(packed, 0, 1)])
    }

    /// Entries of 8 values in another order: bits `2 i..2 i + 2` have value `order[i]`.
    pub const fn ordered(packed: &[u16; N], order: [usize; 8]) -> Self {
        let mut entries = [0; N];
        let mut i = 0;
        while i < N {
            let mut to = 0;
            while to < 8 {
                entries[i] |= (packed[i] >> (2 * order[to]) & 3) << (2 * to);
                to += 1;
            }
            i += 1;
        }
        Self::new(&entries)
    }

    /// The low and the high bytes of the entries of indices as [`Plane::of`] has them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    pub fn halves<const V: usize>(&self, low: [__m512i; V], bits: [[__mmask64; 2]; V]) -> [[__m512i; 2]; V] {
        let (first, second) = (self.0[0].of(low, bits), self.0[1].of(low, bits));
        let mut out = [[low[0]; 2]; V];
        for v in 0..V {
            out[v] = [first[v], second[v]];
        }
        out
    }
}

/// The high bytes of 2048 entries in ascending order, of which 16 from a multiple of 16 on never have more than two:
/// both, and the index of the first entry with the second one.
#[repr(C, align(64))]
pub(super) struct Stairs {
    bytes: [[u8; 128]; 2],
    from: [u8; 128],
}

impl Stairs {
    pub const fn new(packed: &[u16; 2048]) -> Self {
        let mut stairs = Self { bytes: [[0; 128]; 2], from: [0xff; 128] };
        let mut i = 0;
        while i < 2048 {
            let byte = packed[i].to_le_bytes()[1];
            let [first, second] = [&stairs.bytes[0][i / 16], &stairs.bytes[1][i / 16]];
            assert!(i % 16 == 0 || byte == *second || *first == *second, "a third byte");
            if i % 16 == 0 {
                stairs.bytes[0][i / 16] = byte;
            } else if byte != *second {
                stairs.from[i / 16] = i as u8;
            }
            stairs.bytes[1][i / 16] = byte;
            i += 1;
        }
        stairs
    }

    /// The bytes of 64 indices: their low bytes, and their upper bits in bits 4..7 of bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    pub fn of(&self, low: __m512i, upper: __m512i) -> __m512i {
        let step =
            _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi8(15), _mm512_srli_epi16::<4>(low), upper);
        // SAFETY: 128 bytes.
        let find = |table: &[u8; 128]| unsafe {
            let (a, b) = (table.as_ptr(), table.as_ptr().add(64));
            _mm512_permutex2var_epi8(_mm512_load_si512(a.cast()), step, _mm512_load_si512(b.cast()))
        };
        let later = _mm512_cmpge_epu8_mask(low, find(&self.from));
        _mm512_mask_blend_epi8(later, find(&self.bytes[0]), find(&self.bytes[1]))
    }
}

/// Low and high bytes to words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
pub(super) fn words([low, high]: [__m512i; 2]) -> [__m512i; 2] {
    [_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)]
}

/// Bytes of one plane by index: the low seven bits choose within 128 bytes, masks of the others between those.
///
/// Functions of a fixed depth instead of one loop, so that all intermediate results stay in registers.
struct Lookup<'a, const N: usize, const V: usize> {
    plane: &'a [u8; N],
    low: [__m512i; V],
    masks: [[__mmask64; 3]; V],
}

impl<const N: usize, const V: usize> Lookup<'_, N, V> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    fn all(&self) -> [__m512i; V] {
        const { assert!(N == 256 || N == 512 || N == 1024) };
        match N {
            256 => self.of_256(0),
            512 => self.of_512(0),
            _ => self.choose(2, self.of_512(0), self.of_512(1)),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    fn of_512(&self, i: usize) -> [__m512i; V] {
        self.choose(1, self.of_256(2 * i), self.of_256(2 * i + 1))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    fn of_256(&self, i: usize) -> [__m512i; V] {
        self.choose(0, self.of_128(2 * i), self.of_128(2 * i + 1))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    fn of_128(&self, i: usize) -> [__m512i; V] {
        let part = &self.plane[128 * i..][..128];
        // SAFETY: 128 bytes.
        let (a, b) = unsafe {
            (_mm512_loadu_si512(part.as_ptr().cast()), _mm512_loadu_si512(part[64..].as_ptr().cast()))
        };
        let mut out = self.low;
        for v in 0..V {
            out[v] = _mm512_permutex2var_epi8(a, self.low[v], b);
        }
        out
    }

    /// `b` where bit `7 + bit` of the index is set.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
    fn choose(&self, bit: usize, a: [__m512i; V], b: [__m512i; V]) -> [__m512i; V] {
        let mut out = a;
        for v in 0..V {
            out[v] = _mm512_mask_blend_epi8(self.masks[v][bit], a[v], b[v]);
        }
        out
    }
}

/// Entries of 8 values (as [`words`] has them) to bytes: register `r` has those of entries `8 r..8 r + 8`, value `i`
/// from bit `places[i]` of an entry on in bits `shift..shift + 2` of its byte, other bits whatever.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
pub(super) fn spread_eights(words: [__m512i; 2], places: [u8; 8], shift: u8) -> [__m512i; 8] {
    // An entry is four times in its qword, so a shift may wrap.
    let mut bits = places;
    for bit in &mut bits {
        *bit = (64 + *bit - shift) & 63;
    }
    let mut out = [words[0]; 8];
    for r in 0..8 {
        let first = _mm512_set1_epi16(8 * (r as i16 / 2));
        let entry = _mm512_add_epi16(
            first,
            _mm512_setr_epi64(0, ONES, 2 * ONES, 3 * ONES, 4 * ONES, 5 * ONES, 6 * ONES, 7 * ONES),
        );
        let entries = _mm512_permutexvar_epi16(entry, words[r % 2]);
        out[r] = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(i64::from_le_bytes(bits)), entries);
    }
    out
}

/// The registers of two blocks.
pub(super) fn by_blocks([a, b, c, d, e, f, g, h]: [__m512i; 8]) -> [[__m512i; 4]; 2] {
    [[a, b, c, d], [e, f, g, h]]
}

/// 1 in every word.
const ONES: i64 = 0x0001_0001_0001_0001;

/// Entries of 4 values of 3 bits (as [`words`] has them) to bytes: register `r` has those of entries
/// `16 r..16 r + 16`, each value in the lowest bits of its byte, other bits whatever.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
pub(super) fn spread_fours(words: [__m512i; 2]) -> [__m512i; 4] {
    let bits = u64::from_le_bytes([0, 3, 6, 9, 16, 19, 22, 25]);
    let mut out = [words[0]; 4];
    for r in 0..4 {
        // Two entries to a qword: 8 of the first register's lane r, then 8 of the second one's.
        let pairs = _mm512_setr_epi64(
            0x1_0000, 0x3_0002, 0x5_0004, 0x7_0006, 0x21_0020, 0x23_0022, 0x25_0024, 0x27_0026,
        );
        let pairs = _mm512_add_epi16(pairs, _mm512_set1_epi16(8 * r as i16));
        let entries = _mm512_permutex2var_epi16(words[0], pairs, words[1]);
        out[r] = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(bits as i64), entries);
    }
    out
}

/// Levels for `vpermb`, which regards the lower six bits of an index.
#[repr(align(64))]
pub(super) struct Levels([u8; 64]);

impl Levels {
    pub const fn new<const N: usize>(levels: [u8; N]) -> Self {
        let mut table = [0; 64];
        let mut i = 0;
        while i < 64 {
            table[i] = levels[i % N];
            i += 1;
        }
        Self(table)
    }

    /// Levels whose number is in two bits from `bit` on.
    pub const fn from_bit(levels: [u8; 4], bit: usize) -> Self {
        let mut table = [0; 64];
        let mut i = 0;
        while i < 64 {
            table[i] = levels[i >> bit & 3];
            i += 1;
        }
        Self(table)
    }

    /// Levels whose number is in two bits from `bit` on, negative where bit `sign` is set, plus `offset`.
    pub const fn signed(levels: [u8; 4], bit: usize, sign: usize, offset: u8) -> Self {
        let mut table = Self::from_bit(levels, bit).0;
        let mut i = 0;
        while i < 64 {
            table[i] = if i >> sign & 1 != 0 { offset - table[i] } else { offset + table[i] };
            i += 1;
        }
        Self(table)
    }

    /// The level of every byte.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vbmi")]
    pub fn of<const R: usize>(&self, numbers: [__m512i; R]) -> [__m512i; R] {
        // SAFETY: 64 bytes.
        let table = unsafe { _mm512_load_si512(self.0.as_ptr().cast()) };
        let mut out = numbers;
        for r in 0..R {
            out[r] = _mm512_permutexvar_epi8(numbers[r], table);
        }
        out
    }
}

#[repr(align(64))]
struct EvenSigns([u8; 128]);

static EVEN_SIGNS: EvenSigns = {
    let mut table = [0; 128];
    let mut i = 0;
    while i < 128 {
        table[i] = even_signs(i as u32);
        i += 1;
    }
    EvenSigns(table)
};

#[repr(align(64))]
struct Signs([[u64; 4]; 2]);

/// Eight signs from the lower seven bits of every byte.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi")]
pub(super) fn signs_of_seven(seven: __m512i) -> __m512i {
    // SAFETY: 128 bytes.
    let (a, b) = unsafe {
        let table = EVEN_SIGNS.0.as_ptr();
        (_mm512_load_si512(table.cast()), _mm512_load_si512(table.add(64).cast()))
    };
    _mm512_permutex2var_epi8(a, seven, b)
}

/// The signs of two blocks as masks.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn masks(signs: __m512i) -> [[u64; 4]; 2] {
    let mut masks = Signs([[0; 4]; 2]);
    // Masks come from memory at little cost, but the compiler would rather take them out of the register, one by one: it
    // must not know what memory holds.
    // SAFETY: 64 bytes.
    unsafe {
        _mm512_store_si512(masks.0.as_mut_ptr().cast(), signs);
        asm!("/* {masks} */", masks = in(reg) &raw mut masks, options(nostack, preserves_flags));
    }
    masks.0
}

/// 64 bytes at `at` in two blocks.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn load_pair(blocks: [*const u8; 2], at: usize) -> [__m512i; 2] {
    // SAFETY: as the caller promises.
    unsafe { [_mm512_loadu_si512(blocks[0].add(at).cast()), _mm512_loadu_si512(blocks[1].add(at).cast())] }
}

/// Two halves of 32 bytes, at `at` in two blocks, as one register.
///
/// # Safety
/// 32 bytes can be read at both places.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) unsafe fn load_halves(blocks: [*const u8; 2], at: usize) -> __m512i {
    // SAFETY: as the caller promises.
    let [a, b] = blocks.map(|block| unsafe { _mm256_loadu_si256(block.add(at).cast()) });
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b)
}

/// Two halves of 16 bytes, at `at` in two blocks, as one register.
///
/// # Safety
/// 16 bytes can be read at both places.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) unsafe fn load_quarters(blocks: [*const u8; 2], at: usize) -> __m256i {
    // SAFETY: as the caller promises.
    let [a, b] = blocks.map(|block| unsafe { _mm_loadu_si128(block.add(at).cast()) });
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b)
}

/// A qword at `at` in the first block, four times, then one in the second block.
///
/// # Safety
/// 8 bytes can be read at both places.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) unsafe fn broadcast_halves(blocks: [*const u8; 2], at: usize) -> __m512i {
    // SAFETY: as the caller promises.
    let [a, b] = blocks.map(|block| unsafe { block.add(at).cast::<i64>().read_unaligned() });
    _mm512_mask_set1_epi64(_mm512_set1_epi64(a), 0xf0, b)
}
