//! How fast this machine reads memory: the limit that decoding is measured against.

use std::hint::black_box;
use std::time::Instant;

/// Far more than any cache holds.
const BYTES: usize = 512 << 20;
const PASSES: usize = 5;

/// The best rate of several passes of `threads` threads over a large buffer of ordinary pages, in bytes per second.
pub fn read_rate(threads: usize) -> f64 {
    let free = usize::try_from(quant_runtime::memory::available_bytes()).unwrap_or(usize::MAX);
    let words = (BYTES.min(free / 4) / 8).max(1 << 16);
    let buffer: Vec<u64> = (0..words as u64).collect();
    let part = words.div_ceil(threads.max(1));
    let pass = || {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for part in buffer.chunks(part) {
                scope.spawn(|| black_box(sum(black_box(part))));
            }
        });
        (words * 8) as f64 / started.elapsed().as_secs_f64()
    };
    (0..PASSES).map(|_| pass()).fold(0.0, f64::max)
}

/// A sum in so many lanes that only memory is waited for.
fn sum(words: &[u64]) -> u64 {
    let (blocks, rest) = words.as_chunks::<32>();
    let mut lanes = [0u64; 32];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.iter().chain(rest).fold(0, |sum, word| sum.wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn every_word_is_read_once() {
        let words: Vec<u64> = (0..1000).collect();
        assert_eq!(sum(&words), 999 * 500);
    }
}
