//! The seam between kernels and threads: an embedding program can bring its own.

/// Runs independent tasks on a number of workers.
///
/// Results never depend on which worker runs which task: kernels give each task output elements of its own.
pub trait Parallel: Sync {
    /// Workers there are; at least 1.
    fn threads(&self) -> usize;

    /// Calls `task(worker, index)` once for every index in `0..count`, `worker < self.threads()`; no two calls
    /// with the same worker overlap. Returns when all are done. A panic in a task reaches the caller.
    fn run(&self, count: usize, task: &(dyn Fn(usize, usize) + Sync));
}

/// Everything on the calling thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Serial;

impl Parallel for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, count: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        for index in 0..count {
            task(0, index);
        }
    }
}
