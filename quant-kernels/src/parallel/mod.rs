//! The seam between kernels and threads: an embedding program can bring its own.

#[cfg(feature = "rayon")]
mod rayon_pool;
mod team;

#[cfg(feature = "rayon")]
pub use rayon_pool::RayonPool;
pub use team::Team;

/// Runs independent tasks on a number of workers.
///
/// Results never depend on which worker runs which task: kernels give each task output elements of its own.
pub trait Parallel: Sync {
    /// Workers there are; at least 1.
    fn threads(&self) -> usize;

    /// Calls `task(worker, index)` once for every index in `0..count`, `worker < self.threads()`; no two calls
    /// with the same worker overlap. Returns when all are done. A panic in a task reaches the caller; tasks that
    /// nobody has begun by then may be left out.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn all(threads: usize) -> Vec<Box<dyn Parallel>> {
        vec![
            Box::new(Serial),
            Box::new(Team::new(threads).expect("threads")),
            #[cfg(feature = "rayon")]
            Box::new(RayonPool::new(threads).expect("threads")),
        ]
    }

    #[test]
    fn every_task_runs_once_and_no_worker_overlaps_itself() {
        for threads in 1..=4 {
            for parallel in all(threads) {
                let busy: Vec<AtomicUsize> = (0..parallel.threads()).map(|_| AtomicUsize::new(0)).collect();
                for count in [0, 1, 2, 3, 7, 100] {
                    let hits: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                    parallel.run(count, &|worker, index| {
                        assert_eq!(busy[worker].fetch_add(1, Ordering::SeqCst), 0);
                        hits[index].fetch_add(1, Ordering::SeqCst);
                        busy[worker].fetch_sub(1, Ordering::SeqCst);
                    });
                    assert!(hits.iter().all(|hit| hit.load(Ordering::SeqCst) == 1));
                }
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_workers_live_on() {
        for threads in 1..=3 {
            for parallel in all(threads) {
                for bad in [0, 5, 63] {
                    let run = || parallel.run(64, &|_, index| assert_ne!(index, bad, "planted"));
                    assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
                    let sum = AtomicUsize::new(0);
                    parallel.run(10, &|_, index| {
                        sum.fetch_add(index, Ordering::Relaxed);
                    });
                    assert_eq!(sum.into_inner(), 45);
                }
            }
        }
    }

    #[test]
    fn a_run_inside_a_task_completes() {
        for parallel in all(2) {
            let sum = AtomicUsize::new(0);
            parallel.run(4, &|_, _| {
                parallel.run(8, &|_, index| {
                    sum.fetch_add(index, Ordering::Relaxed);
                });
            });
            assert_eq!(sum.into_inner(), 4 * 28);
        }
    }
}
