//! What a quantized type brings to the 256-bit matmul: its codes, integer scales and float scales. The loops are in
//! `linear.rs` (one token) and `panel.rs` (more).

use std::arch::x86_64::*;

/// Rows of a panel, blocks of a unit: the 32-bit lanes of a register.
pub(super) const LANES: usize = 8;
/// Most registers of 32 codes, and most blocks of 32 values, in 256 values.
pub(super) const CHUNKS: usize = 8;

/// Eight blocks: one of each row of a panel, or eight in a line.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    /// The first.
    pub base: *const u8,
    /// Bytes from one to the next.
    pub stride: usize,
}

impl Blocks {
    /// Block `i`.
    #[inline(always)]
    pub fn at(self, i: usize) -> *const u8 {
        self.base.wrapping_add(i * self.stride)
    }

    /// The block after each of these, for blocks of `bytes` bytes.
    #[inline(always)]
    pub fn next(self, bytes: usize) -> Self {
        Self { base: self.base.wrapping_add(bytes), ..self }
    }

    /// Something of each block: `of(block)`.
    #[inline(always)]
    pub fn each<T: Copy + Default>(self, of: impl Fn(*const u8) -> T) -> [T; LANES] {
        let mut out = [T::default(); LANES];
        for (i, out) in out.iter_mut().enumerate() {
            *out = of(self.at(i));
        }
        out
    }
}

/// When integer sums become floats.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Steps {
    /// A float step for each run of this many values, 16 or 32; no integer scales.
    Float(usize),
    /// A float step for each 256 values; integer scales for runs of this many, 16 or 32.
    Super(usize),
}

impl Steps {
    /// Values that share a scale.
    pub const fn run(self) -> usize {
        match self {
            Self::Float(run) | Self::Super(run) => run,
        }
    }

    /// Whether scales are integers.
    pub const fn is_super(self) -> bool {
        matches!(self, Self::Super(_))
    }
}

/// How a type is unpacked. Codes are bytes: unsigned ones from which an offset is to be subtracted, or signed ones.
pub(super) trait Format {
    /// Values in a block: 32, 64, 128 or 256.
    const VALUES: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Form of the sums.
    const STEPS: Steps;
    /// The largest code; 127 stands for signed codes with all 256 values.
    const TOP: u16;
    /// What is subtracted from each code.
    const OFFSET: i16 = 0;
    /// Codes are i8.
    const SIGNED: bool = false;
    /// Whether there are minima.
    const MINIMA: bool = false;
    /// Where the f16 scale lies.
    const D: usize = 0;
    /// What the scale is multiplied by, a power of two.
    const D_FACTOR: f32 = 1.0;

    /// The codes of a block in order, 32 in a register; those after the first `VALUES / 32` are not used.
    ///
    /// # Safety
    /// The CPU has AVX2; a whole block can be read.
    unsafe fn codes(block: *const u8) -> [__m256i; CHUNKS];

    /// The integer scale of each 16 values of a block of 256, as i8.
    ///
    /// # Safety
    /// The CPU has AVX2; a whole block can be read.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(_block: *const u8) -> __m128i {
        _mm_set1_epi8(1)
    }

    /// The minimum of each 16 values of a block of 256, as u8.
    ///
    /// # Safety
    /// The CPU has AVX2; a whole block can be read.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn mins(_block: *const u8) -> __m128i {
        _mm_setzero_si128()
    }

    /// The float scales of eight blocks: the first alone if all steps of a block share it, else one for each step.
    ///
    /// # Safety
    /// The CPU has AVX2 and F16C; whole blocks can be read.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn d(blocks: Blocks) -> [__m256; 4] {
        // SAFETY: the scale lies in the block.
        let d = unsafe { halves(blocks, Self::D) };
        [if Self::D_FACTOR == 1.0 { d } else { _mm256_mul_ps(d, _mm256_set1_ps(Self::D_FACTOR)) }; 4]
    }

    /// The float scales of the minima of eight blocks.
    ///
    /// # Safety
    /// The CPU has AVX2 and F16C; whole blocks can be read.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn dmin(_blocks: Blocks) -> __m256 {
        _mm256_setzero_ps()
    }
}

/// Float steps in a block.
pub(super) const fn steps<F: Format>() -> usize {
    match F::STEPS {
        Steps::Super(_) => 1,
        Steps::Float(run) => F::VALUES / run,
    }
}

/// How many products of pairs of codes can be added in i16, among 1, 2, 4 and 8.
pub(super) const fn pairs<F: Format>() -> usize {
    let most = i16::MAX as usize / (2 * 127 * F::TOP as usize);
    let run = F::STEPS.run() / 4;
    let most = if most < run { most } else { run };
    assert!(most > 0);
    1 << most.ilog2()
}

/// The f16 at byte `at` of each block, widened.
///
/// # Safety
/// Two bytes can be read there in each block.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) unsafe fn halves(blocks: Blocks, at: usize) -> __m256 {
    // SAFETY: the caller vouches for two bytes.
    widened(blocks.each(|block| unsafe { block.add(at).cast::<i16>().read_unaligned() }))
}

/// Eight f16, given as their bits, widened.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn widened([a, b, c, d, e, f, g, h]: [i16; LANES]) -> __m256 {
    _mm256_cvtph_ps(_mm_setr_epi16(a, b, c, d, e, f, g, h))
}

/// A byte of each block, widened.
///
/// # Safety
/// The byte can be read in each block.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn bytes(blocks: Blocks, at: usize) -> __m256i {
    // SAFETY: the caller vouches for the byte.
    let [a, b, c, d, e, f, g, h] = blocks.each(|block| i32::from(unsafe { *block.add(at) }));
    _mm256_setr_epi32(a, b, c, d, e, f, g, h)
}

/// Transposes 8 registers of 8 x i32.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn transposed(v: [__m256i; LANES]) -> [__m256i; LANES] {
    let mut twos = [v[0]; 8];
    for i in 0..4 {
        twos[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        twos[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    let mut fours = [v[0]; 8];
    for i in 0..2 {
        for j in 0..2 {
            fours[4 * i + 2 * j] = _mm256_unpacklo_epi64(twos[4 * i + j], twos[4 * i + 2 + j]);
            fours[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(twos[4 * i + j], twos[4 * i + 2 + j]);
        }
    }
    let mut out = [v[0]; 8];
    for i in 0..4 {
        out[i] = _mm256_permute2x128_si256::<0x20>(fours[i], fours[4 + i]);
        out[4 + i] = _mm256_permute2x128_si256::<0x31>(fours[i], fours[4 + i]);
    }
    out
}
