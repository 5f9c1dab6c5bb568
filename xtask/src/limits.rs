//! What the machine can do at most: read bandwidth of a stretch of memory, products per second in registers. Kernels
//! are quoted in percent of these, measured in the same run.

use quant_kernels::{Isa, Parallel};
use std::time::{Duration, Instant};

/// A ceiling of arithmetic.
pub struct Peak {
    /// The instruction that it is made of.
    pub instruction: &'static str,
    /// Multiplications and additions, both counted, in 10^9 per second.
    pub gops: f64,
}

/// GB/s of reading `bytes` once on all workers: the best of several loops, for what reads fastest differs from machine
/// to machine (one stream or many, with software prefetch or without).
pub fn read_bandwidth(parallel: &dyn Parallel, bytes: &[u8]) -> f64 {
    let chunk = (bytes.len() / parallel.threads() / CHUNKS) & !(STEP - 1);
    let count = bytes.len().checked_div(chunk).unwrap_or(0);
    let pass = |read: fn(&[u8]) -> u64| {
        let start = Instant::now();
        parallel.run(count, &|_, index| {
            std::hint::black_box(read(&bytes[index * chunk..][..chunk]));
        });
        start.elapsed().as_secs_f64()
    };
    let rounds = std::iter::repeat_n(loops(), ROUNDS);
    let best = rounds.flatten().map(pass).fold(f64::MAX, f64::min);
    (chunk * count) as f64 / 1e9 / best
}

/// Times that each loop is tried: a neighbour may disturb one.
const ROUNDS: usize = 3;
/// Chunks per worker of a pass.
const CHUNKS: usize = 8;
/// Chunks are multiples of this, which is a multiple of what a turn of any loop reads.
const STEP: usize = 16 << 10;

/// The reading loops that this CPU has.
fn loops() -> Vec<fn(&[u8]) -> u64> {
    let mut loops: Vec<fn(&[u8]) -> u64> = vec![portable];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        loops.extend(x86::AVX512);
    } else if is_x86_feature_detected!("avx2") {
        loops.extend(x86::AVX2);
    }
    loops
}

fn portable(bytes: &[u8]) -> u64 {
    let lanes = bytes.as_chunks::<256>().0.iter().fold([0u64; 32], |mut lanes, block| {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane ^= u64::from_le_bytes(*word);
        }
        lanes
    });
    lanes.iter().fold(0, |all, lane| all ^ lane)
}

/// int8 products of the tier on all workers: its dot-product instruction on registers alone. `None` where it has none
/// that we know.
pub fn int8_peak(isa: Isa, parallel: &dyn Parallel) -> Option<Peak> {
    #[cfg(target_arch = "x86_64")]
    {
        let found = match isa {
            Isa::Avx512(_) => ("vpdpbusd zmm", x86::dpbusd512 as fn(u64), 128.0),
            Isa::Avx2(_) if is_x86_feature_detected!("avxvnni") => {
                ("vpdpbusd ymm", x86::dpbusd256 as fn(u64), 64.0)
            }
            Isa::Avx2(_) => ("vpmaddubsw ymm", x86::maddubs256 as fn(u64), 64.0),
            _ => return None,
        };
        Some(peak(parallel, found))
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (isa, parallel);
        None
    }
}

/// f32 fused multiply-adds of the tier on all workers, on registers alone.
pub fn f32_peak(isa: Isa, parallel: &dyn Parallel) -> Option<Peak> {
    #[cfg(target_arch = "x86_64")]
    {
        let found = match isa {
            Isa::Avx512(_) => ("vfmadd231ps zmm", x86::fma512 as fn(u64), 32.0),
            Isa::Avx2(_) => ("vfmadd231ps ymm", x86::fma256 as fn(u64), 16.0),
            _ => return None,
        };
        Some(peak(parallel, found))
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (isa, parallel);
        None
    }
}

/// Times a register loop on every worker at once: best of some runs of about a millisecond.
#[cfg(target_arch = "x86_64")]
fn peak(parallel: &dyn Parallel, (instruction, turns, ops): (&'static str, fn(u64), f64)) -> Peak {
    const TURNS: u64 = 200_000;
    let pass = || {
        let start = Instant::now();
        parallel.run(parallel.threads(), &|_, _| turns(TURNS));
        start.elapsed()
    };
    let best = (0..8).map(|_| pass()).min().unwrap_or(Duration::MAX);
    let count = TURNS as f64 * x86::CHAINS as f64 * parallel.threads() as f64;
    Peak { instruction, gops: count * ops / 1e9 / best.as_secs_f64() }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! The loops in x86 intrinsics.

    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Independent chains of a register loop: more than latency times throughput of any of these instructions.
    pub const CHAINS: usize = 12;

    /// A loop over `STREAMS` streams, `AHEAD` bytes prefetched in front of each (0: none).
    macro_rules! reads {
        ($name:ident, $feature:literal, $vector:ty, $zero:ident, $load:ident, $xor:ident) => {
            fn $name<const STREAMS: usize, const AHEAD: usize>(bytes: &[u8]) -> u64 {
                #[target_feature(enable = $feature)]
                fn run<const STREAMS: usize, const AHEAD: usize>(bytes: &[u8]) -> u64 {
                    const WIDTH: usize = size_of::<$vector>();
                    let lines = if STREAMS == 1 { 4 } else { 1 };
                    let stream = bytes.len() / STREAMS;
                    let mut lanes = [[$zero(); 4]; STREAMS];
                    let mut at = 0;
                    while at + lines * WIDTH <= stream {
                        for (number, lanes) in lanes.iter_mut().enumerate() {
                            for (line, lane) in lanes.iter_mut().enumerate().take(lines) {
                                let offset = number * stream + at + line * WIDTH;
                                // SAFETY: a vector at `offset` ends within the stream, which ends within `bytes`; a
                                // prefetch may point anywhere.
                                unsafe {
                                    let from = bytes.as_ptr().add(offset);
                                    if AHEAD > 0 {
                                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD).cast());
                                    }
                                    *lane = $xor(*lane, $load(from.cast()));
                                }
                            }
                        }
                        at += lines * WIDTH;
                    }
                    black_box(lanes);
                    0
                }
                // SAFETY: `loops` lists this only where the CPU has the feature.
                unsafe { run::<STREAMS, AHEAD>(bytes) }
            }
        };
    }

    reads!(read512, "avx512f", __m512i, _mm512_setzero_si512, _mm512_loadu_si512, _mm512_xor_si512);
    reads!(read256, "avx2", __m256i, _mm256_setzero_si256, _mm256_loadu_si256, _mm256_xor_si256);

    pub const AVX512: [fn(&[u8]) -> u64; 6] = [
        read512::<1, 0>,
        read512::<1, 1024>,
        read512::<1, 4096>,
        read512::<4, 0>,
        read512::<8, 0>,
        read512::<16, 0>,
    ];
    pub const AVX2: [fn(&[u8]) -> u64; 5] =
        [read256::<1, 0>, read256::<1, 1024>, read256::<1, 4096>, read256::<4, 0>, read256::<8, 0>];

    /// A loop of `turns` times [`CHAINS`] instructions on registers.
    macro_rules! registers {
        ($name:ident, $feature:literal, $start:expr, $factor:expr, |$acc:ident, $u:ident, $v:ident| $step:expr) => {
            pub fn $name(turns: u64) {
                #[target_feature(enable = $feature)]
                fn run(turns: u64) {
                    let ($u, $v) = (black_box($factor), black_box($factor));
                    let mut chains = [black_box($start); CHAINS];
                    for _ in 0..turns {
                        for $acc in &mut chains {
                            *$acc = $step;
                        }
                    }
                    let _ = (black_box(chains), $u, $v);
                }
                // SAFETY: the callers above name this only where the CPU has the feature.
                unsafe { run(turns) }
            }
        };
    }

    registers!(dpbusd512, "avx512f,avx512vnni", _mm512_setzero_si512(), _mm512_set1_epi8(3), |acc, u, v| {
        _mm512_dpbusd_epi32(*acc, u, v)
    });
    registers!(dpbusd256, "avx2,avxvnni", _mm256_setzero_si256(), _mm256_set1_epi8(3), |acc, u, v| {
        _mm256_dpbusd_avx_epi32(*acc, u, v)
    });
    registers!(maddubs256, "avx2", _mm256_set1_epi8(2), _mm256_set1_epi8(3), |acc, u, v| {
        _mm256_maddubs_epi16(*acc, u)
    });
    registers!(fma512, "avx512f", _mm512_set1_ps(1.0), _mm512_set1_ps(0.5), |acc, u, v| {
        _mm512_fmadd_ps(u, v, *acc)
    });
    registers!(fma256, "avx2,fma", _mm256_set1_ps(1.0), _mm256_set1_ps(0.5), |acc, u, v| {
        _mm256_fmadd_ps(u, v, *acc)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use quant_kernels::Serial;

    #[test]
    fn every_loop_measures_something() {
        let bytes = vec![1u8; 4 << 20];
        assert!(loops().iter().all(|read| read(&bytes) == 0));
        assert!(read_bandwidth(&Serial, &bytes) > 0.0);
        for isa in Isa::available() {
            for peak in [int8_peak(isa, &Serial), f32_peak(isa, &Serial)].into_iter().flatten() {
                assert!(peak.gops > 0.0, "{}", peak.instruction);
            }
        }
    }
}
