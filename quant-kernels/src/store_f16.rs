//! Stores to half precision, as KV pages hold them, and back.

use crate::Isa;
use crate::simd::{self, Kernel, LANES, Simd};
use half::f16;

/// Rounds to nearest, ties to even. NaN stays NaN, infinity stays infinity.
///
/// # Errors
/// The index of the first finite value beyond the range of f16 (from 65520 on); the output is then partly written.
///
/// # Panics
/// If the lengths differ.
pub fn store_f16(isa: Isa, x: &[f32], out: &mut [f16]) -> Result<(), usize> {
    assert!(x.len() == out.len(), "store_f16: the lengths differ");
    simd::dispatch(isa, Store { x, out })
}

/// Widens halves, exactly.
///
/// # Panics
/// If the lengths differ.
pub fn load_f16(isa: Isa, x: &[f16], out: &mut [f32]) {
    assert!(x.len() == out.len(), "load_f16: the lengths differ");
    simd::dispatch(isa, Load { x, out });
}

struct Load<'a> {
    x: &'a [f16],
    out: &'a mut [f32],
}

impl Kernel for Load<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (chunks, tail) = self.x.as_chunks::<LANES>();
        let (out_chunks, out_tail) = self.out.as_chunks_mut::<LANES>();
        for (x, out) in chunks.iter().zip(out_chunks) {
            s.store(s.load_f16(x), out);
        }
        for (x, out) in tail.iter().zip(out_tail) {
            *out = x.to_f32();
        }
    }
}

struct Store<'a> {
    x: &'a [f32],
    out: &'a mut [f16],
}

impl Kernel for Store<'_> {
    type Output = Result<(), usize>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Result<(), usize> {
        let (chunks, tail) = self.x.as_chunks::<LANES>();
        let (out_chunks, out_tail) = self.out.as_chunks_mut::<LANES>();
        for (i, (x, out)) in chunks.iter().zip(out_chunks).enumerate() {
            s.store_f16(s.load(x), out);
            if let Some(lane) = overflow(x, out) {
                return Err(i * LANES + lane);
            }
        }
        for (x, out) in tail.iter().zip(out_tail.iter_mut()) {
            *out = f16::from_f32(*x);
        }
        overflow(tail, out_tail).map_or(Ok(()), |lane| Err(chunks.len() * LANES + lane))
    }
}

/// The first finite value that became infinite.
#[inline(always)]
fn overflow(x: &[f32], out: &[f16]) -> Option<usize> {
    let is_overflow = |x: f32, h: f16| (h.to_bits() & 0x7fff == 0x7c00) & (x.abs() < f32::INFINITY);
    let any = x.iter().zip(out).fold(false, |any, (x, h)| any | is_overflow(*x, *h));
    if !any {
        return None;
    }
    x.iter().zip(out).position(|(x, h)| is_overflow(*x, *h))
}
