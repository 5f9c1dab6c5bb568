//! Float weights times many tokens: panels of weights and of tokens in the order in which the micro-kernel reads them.
//!
//! ```text
//! weights  [row / R][column / 16][R][16]      stream from L2, once per group of tokens
//! tokens   [column / 16][T][16]               stay in L1 meanwhile
//! ```
//!
//! One stream each: rows as they lie, a power of two apart, would drive one another out of the same cache sets.

use super::float::{LANES, Load, padded};
use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

/// Columns of a panel: the tokens of a micro-tile stay in L1 while the panel's rows stream from L2.
pub(super) const COLS: usize = 1024;
/// Bytes of a panel of weights: nearly half of a common L2. Its rows' sums, 64 bytes each, are no multiple of 4 KiB: those of
/// the tokens of a micro-tile would drive one another out of the same sets of the first-level cache.
const PANEL: usize = 480 << 10;

/// Bytes of weights that are fetched from the second-level cache ahead of their use.
const AHEAD: usize = 2048;

/// Rows of a panel whose values have so many bytes.
pub(super) const fn panel_rows(bytes: usize) -> usize {
    PANEL / (COLS * bytes)
}

/// Rows of tokens as they lie.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub x: &'a [f32],
    /// Values between tokens.
    pub stride: usize,
    pub cols: usize,
    pub tokens: usize,
}

/// The operands of a call: some groups of rows times a group of tokens.
pub(super) struct Panels<'a> {
    /// Panel of weights.
    pub weight: &'a [u8],
    /// Groups of rows.
    pub groups: usize,
    /// Panel of tokens.
    pub x: &'a [f32],
    /// Tokens; as many as the micro-tile has.
    pub tokens: usize,
    /// Columns / 16.
    pub steps: usize,
    /// Accumulators, `[token][row][16]`.
    pub acc: &'a mut [f32],
    /// Values between tokens in `acc`.
    pub acc_stride: usize,
    /// Whether `acc` holds the sums of earlier columns instead of nothing.
    pub resume: bool,
    /// The next panel of tokens, which is fetched meanwhile.
    pub next: &'a [f32],
}

/// Lays a row of weights into a panel, `BYTES` bytes (16 values) every `every` times that, the last ones filled up with
/// +0.0; what lies `ahead` bytes after them is fetched. Compiled into its caller, for its instructions.
#[inline(always)]
pub(super) fn copy_row<const BYTES: usize>(weights: &[u8], out: &mut [u8], every: usize, ahead: usize) {
    let (whole, rest) = weights.as_chunks::<BYTES>();
    let mut out = out.as_chunks_mut::<BYTES>().0.iter_mut().step_by(every);
    for (weights, out) in whole.iter().zip(&mut out) {
        // SAFETY: a hint; it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(weights.as_ptr().wrapping_add(ahead).cast()) };
        *out = *weights;
    }
    if let (false, Some(out)) = (rest.is_empty(), out.next()) {
        out.fill(0);
        out[..rest.len()].copy_from_slice(rest);
    }
}

/// [`copy_row`] to f32.
///
/// # Safety
/// The CPU has the tier of `L`, for which the caller is compiled.
#[inline(always)]
pub(super) unsafe fn widen_row<L: Load<PARTS>, const PARTS: usize>(
    weights: &[u8],
    out: &mut [u8],
    every: usize,
) {
    let out = out.as_chunks_mut::<{ LANES * 4 }>().0.iter_mut().step_by(every);
    for (weights, out) in weights.chunks(LANES * L::BYTES).zip(out) {
        let bytes;
        let from = if weights.len() == LANES * L::BYTES {
            weights.as_ptr()
        } else {
            bytes = padded(weights);
            bytes.as_ptr()
        };
        for part in 0..PARTS {
            let at = part * (LANES / PARTS);
            // SAFETY: 16 weights (the padded copy is 64 bytes long), and `out` has room for 16 floats.
            unsafe { L::store(out.as_mut_ptr().cast::<f32>().add(at), L::weights(from.add(at * L::BYTES))) };
        }
    }
}

/// Lays tokens into a panel, the last columns filled up with +0.0. Compiled into its caller, for its instructions.
#[inline(always)]
pub(super) fn pack_tokens(from: Source<'_>, out: &mut [f32]) {
    for token in 0..from.tokens {
        let (whole, rest) = from.x[token * from.stride..][..from.cols].as_chunks::<LANES>();
        let mut out = out.as_chunks_mut::<LANES>().0[token..].iter_mut().step_by(from.tokens);
        for (x, out) in whole.iter().zip(&mut out) {
            *out = *x;
        }
        if let (false, Some(out)) = (rest.is_empty(), out.next()) {
            out.fill(0.0);
            out[..rest.len()].copy_from_slice(rest);
        }
    }
}

/// All groups of `R` rows times `T` tokens.
///
/// # Safety
/// The CPU has the tier of `L`, for which the caller is compiled.
#[inline(always)]
pub(super) unsafe fn multiply<L: Load<PARTS>, const PARTS: usize, const R: usize, const T: usize>(
    mut panels: Panels<'_>,
) {
    let Panels { groups, steps, acc_stride, .. } = panels;
    assert_eq!(panels.tokens, T, "tokens of a micro-tile");
    assert!(groups * steps * R * LANES * L::BYTES <= panels.weight.len(), "weight panel too short");
    assert!(steps * T * LANES <= panels.x.len(), "token panel too short");
    assert!(
        groups > 0 && (T - 1) * acc_stride + groups * R * LANES <= panels.acc.len(),
        "accumulators too short"
    );
    let lines = panels.next.len().div_ceil(LANES * groups);
    for group in 0..groups {
        let next = panels.next.as_ptr().wrapping_add(group * lines * LANES);
        for line in 0..lines {
            // SAFETY: a hint; it reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(line * LANES).cast()) };
        }
        if panels.resume {
            // The sums of the next rows, or of the next tokens' first rows, which rest in the last-level cache.
            let (token, row) = if group + 1 < groups { (0, group + 1) } else { (T, 0) };
            let at = panels.acc.as_ptr().wrapping_add(token * acc_stride + row * R * LANES);
            for t in 0..T {
                for r in 0..R {
                    // SAFETY: a hint; it reads nothing.
                    unsafe {
                        _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(t * acc_stride + r * LANES).cast())
                    };
                }
            }
        }
        // SAFETY: the panels and accumulators are long enough, checked.
        unsafe { micro::<L, PARTS, R, T>(&mut panels, group) };
    }
}

/// One group of rows.
///
/// # Safety
/// The CPU has the tier of `L`, for which the caller is compiled; the panels have `group + 1` groups and `T` tokens.
#[inline(always)]
unsafe fn micro<L: Load<PARTS>, const PARTS: usize, const R: usize, const T: usize>(
    panels: &mut Panels<'_>,
    group: usize,
) {
    let width = LANES / PARTS;
    let (stride, resume) = (panels.acc_stride, panels.resume);
    let row_bytes = LANES * L::BYTES;
    let sums = panels.acc[group * R * LANES..].as_mut_ptr();
    let mut w = panels.weight[group * panels.steps * R * row_bytes..].as_ptr();
    let mut x = panels.x.as_ptr();
    // SAFETY: as the caller promises.
    unsafe {
        let mut acc = [[[L::zero(); PARTS]; T]; R];
        if resume {
            for r in 0..R {
                for t in 0..T {
                    for part in 0..PARTS {
                        acc[r][t][part] = L::load(sums.add(t * stride + r * LANES + part * width));
                    }
                }
            }
        }
        for _ in 0..panels.steps {
            for line in (0..R * row_bytes).step_by(64) {
                _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(AHEAD + line).cast());
            }
            for part in 0..PARTS {
                let mut weights = [L::zero(); R];
                for r in 0..R {
                    weights[r] = L::weights(w.add(r * row_bytes + part * width * L::BYTES));
                }
                for t in 0..T {
                    let token = L::load(x.add(t * LANES + part * width));
                    for r in 0..R {
                        acc[r][t][part] = L::mul_add(weights[r], token, acc[r][t][part]);
                    }
                }
            }
            (w, x) = (w.add(R * row_bytes), x.add(T * LANES));
        }
        for r in 0..R {
            for t in 0..T {
                for part in 0..PARTS {
                    L::store(sums.add(t * stride + r * LANES + part * width), acc[r][t][part]);
                }
            }
        }
    }
}
