//! Weights mapped ahead of their first use.

use crate::memory;
use quant_gguf::Bytes;
use quant_models::Decoder;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that one call asks for: others that change the process's mappings wait for a fraction of a millisecond.
const PIECE: usize = 4 << 20;

/// A thread that has the system map a model's weights while the vocabulary is read and the first pass begins. A pass
/// that meets hundreds of thousands of pages one by one takes longer; pages that the thread has not reached yet come
/// in that way. It ends when it is through, or when this is dropped.
#[derive(Debug)]
pub(crate) struct Prefault {
    stop: Arc<AtomicBool>,
}

impl Prefault {
    /// Begins with the weights that every pass reads, unless they could drive other things out of memory.
    pub(crate) fn start(decoder: &Decoder) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let weights: Vec<Bytes> =
            decoder.dense_weights().filter(|weights| weights.is_mapped()).cloned().collect();
        let bytes = weights.iter().map(|weights| weights.len() as u64).sum::<u64>();
        if bytes > 0 && bytes <= memory::available_bytes() / 2 {
            let stopped = Arc::clone(&stop);
            let run = move || {
                let mut pieces = weights.iter().flat_map(pieces);
                while let Some(piece) = pieces.next().filter(|_| !stopped.load(Ordering::Relaxed)) {
                    piece.prefault();
                }
            };
            // Where the system grants no thread, pages come at their first use.
            let thread = std::thread::Builder::new().name("quant-prefault".to_owned()).spawn(run);
            tracing::debug!(bytes, started = thread.is_ok(), "mapping weights");
        }
        Self { stop }
    }
}

impl Drop for Prefault {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn pieces(bytes: &Bytes) -> impl Iterator<Item = Bytes> {
    let starts = (0..bytes.len()).step_by(PIECE);
    starts.filter_map(|start| bytes.slice(start..bytes.len().min(start.saturating_add(PIECE))))
}

#[cfg(test)]
mod tests {
    use super::{PIECE, pieces};
    use quant_gguf::Bytes;

    #[test]
    fn pieces_cover_all_bytes() {
        for len in [0, 1, PIECE, PIECE + 1, 2 * PIECE + 7] {
            let bytes = Bytes::from(vec![0; len]);
            let lens: Vec<usize> = pieces(&bytes).map(|piece| piece.len()).collect();
            assert_eq!(lens.iter().sum::<usize>(), len);
            assert!(lens.iter().all(|&len| 0 < len && len <= PIECE));
        }
    }
}
