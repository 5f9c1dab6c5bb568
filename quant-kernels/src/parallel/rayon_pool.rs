//! [`Parallel`] on a rayon pool of its own, for programs that use rayon elsewhere.

use super::Parallel;
use crate::Error;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A rayon thread pool. Entering it costs some ten microseconds a region: [`Team`](super::Team) is faster.
#[derive(Debug)]
pub struct RayonPool {
    pool: rayon::ThreadPool,
}

impl RayonPool {
    /// A pool of `threads` threads (at least one).
    ///
    /// # Errors
    /// [`Error::Threads`] if the system refuses a thread.
    pub fn new(threads: usize) -> Result<Self, Error> {
        let wanted = threads.max(1);
        rayon::ThreadPoolBuilder::new()
            .num_threads(wanted)
            .build()
            .map(|pool| Self { pool })
            .map_err(|error| Error::Threads { wanted, reason: error.to_string() })
    }
}

impl Parallel for RayonPool {
    fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    fn run(&self, count: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        let next = AtomicUsize::new(0);
        self.pool.broadcast(|context| {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return;
                }
                task(context.index(), index);
            }
        });
    }
}
