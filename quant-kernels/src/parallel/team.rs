//! [`Parallel`] on workers of our own that wait by spinning for a moment: a region costs less than a microsecond.
//!
//! A token is some hundred short regions, so workers must begin at once. Between regions a worker spins, then
//! yields its core, then sleeps. Workers *join* a region; one that comes late (asleep, or its core lent to a
//! neighbour) finds it closed and nobody has waited for it.
//!
//! A worker claims the tasks of its own share in order, so what it reads of a matrix is one stretch of memory, and the
//! end of one task fetches the beginning of the next; then it helps the others.

use super::Parallel;
use crate::Error;
use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a worker spins for the next region before it yields its core between looks.
const SPIN: Duration = Duration::from_micros(30);
/// How long it waits in all before it sleeps.
const AWAKE: Duration = Duration::from_micros(100);
/// Looks between two readings of the clock.
const LOOKS: u32 = 64;

/// A team of threads; the calling thread is worker 0.
///
/// A call to [`run`](Parallel::run) while the team is busy (from inside a task, or from another thread) does its
/// tasks on the thread that calls.
pub struct Team {
    shared: Arc<Region>,
    /// Held for the length of a region.
    busy: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// What a region's tasks are.
#[derive(Clone, Copy)]
struct Job {
    task: &'static Task<'static>,
    count: usize,
}

/// The next of a worker's tasks, in a cache line of its own (two, for neighbours are fetched in pairs).
#[derive(Default)]
#[repr(align(128))]
struct Share(AtomicUsize);

/// The state that callers and workers share.
struct Region {
    /// Number of the region in the upper half, [`OPEN`], and below it how many workers are inside.
    state: AtomicU64,
    /// Written by the caller only while the region is closed and empty, read by workers only while inside.
    job: UnsafeCell<Option<Job>>,
    /// What is left of each worker's share.
    shares: Box<[Share]>,
    /// The first panic of the region.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    stop: AtomicBool,
}

// SAFETY: every field but `job` is Sync. `job` is written only by the thread that holds `busy` while the region is
// closed and no worker is inside, and read only by workers that joined (their acquire of `state` follows the caller's
// release); what it holds is a reference to a Sync closure.
unsafe impl Sync for Region {}
// SAFETY: as for Sync; the references inside may be used from any thread.
unsafe impl Send for Region {}

/// Workers may join.
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;

fn number(state: u64) -> u64 {
    state >> 32
}

impl Team {
    /// A team of `threads` workers (at least one): the calling thread and `threads - 1` of its own. Where a target
    /// has no threads (WebAssembly without atomics), the calling thread alone.
    ///
    /// # Errors
    /// [`Error::Threads`] if the system refuses a thread.
    pub fn new(threads: usize) -> Result<Self, Error> {
        let single = cfg!(all(target_family = "wasm", not(target_feature = "atomics")));
        let wanted = if single { 1 } else { threads.max(1) };
        let shared = Arc::new(Region {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            shares: (0..wanted).map(|_| Share::default()).collect(),
            panic: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let mut team = Self { shared, busy: Mutex::new(()), workers: Vec::new() };
        for worker in 1..wanted {
            let shared = Arc::clone(&team.shared);
            let thread = std::thread::Builder::new()
                .name(format!("quant-{worker}"))
                .spawn(move || shared.serve(worker))
                .map_err(|error| Error::Threads { wanted, reason: error.to_string() })?;
            team.workers.push(thread);
        }
        Ok(team)
    }
}

impl Region {
    /// A worker's life.
    fn serve(&self, worker: usize) {
        let mut seen = 0;
        while let Some(state) = self.next_region(seen) {
            seen = number(state);
            // Joining fails when the region was closed meanwhile or another worker joined: then look again.
            let mut current = state;
            while number(current) == seen && current & OPEN != 0 {
                match self.state.compare_exchange_weak(
                    current,
                    current + 1,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        // SAFETY: this worker is inside, so the caller neither writes the job nor returns.
                        if let Some(job) = unsafe { *self.job.get() } {
                            self.work(worker, job);
                        }
                        self.state.fetch_sub(1, Ordering::Release);
                        break;
                    }
                    Err(now) => current = now,
                }
            }
        }
    }

    /// The first task of worker `share`, and, of the one after the last, the end.
    fn start(&self, share: usize, count: usize) -> usize {
        let (each, more) = (count / self.shares.len(), count % self.shares.len());
        each * share + more.min(share)
    }

    /// Claims and runs tasks until none are left, this worker's own first; keeps the first panic.
    fn work(&self, worker: usize, job: Job) {
        let shares = self.shares.len();
        let claims = || {
            for share in (worker..shares).chain(0..worker) {
                let end = self.start(share + 1, job.count);
                loop {
                    let index = self.shares[share].0.fetch_add(1, Ordering::Relaxed);
                    if index >= end {
                        break;
                    }
                    (job.task)(worker, index);
                }
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(claims)) {
            self.shares.iter().for_each(|share| share.0.store(job.count, Ordering::Relaxed));
            let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
            if first.is_none() {
                *first = Some(panic);
            } else {
                // Dropping it could panic again, and this function must not unwind.
                std::mem::forget(panic);
            }
        }
    }

    /// Waits for an open region after number `seen`; `None` when the team ends.
    fn next_region(&self, seen: u64) -> Option<u64> {
        let start = Instant::now();
        loop {
            for _ in 0..LOOKS {
                let state = self.state.load(Ordering::SeqCst);
                if number(state) != seen && state & OPEN != 0 {
                    return Some(state);
                }
                if self.stop.load(Ordering::Relaxed) {
                    return None;
                }
                std::hint::spin_loop();
            }
            let waited = start.elapsed();
            if waited > AWAKE {
                self.doze(seen);
            } else if waited > SPIN {
                std::thread::yield_now();
            }
        }
    }

    /// Sleeps until a region after `seen` opens or the team ends.
    fn doze(&self, seen: u64) {
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        // The caller opens the region, then reads `sleepers`; this adds to `sleepers`, then reads the region. In the
        // one order of sequentially consistent operations at least one of the two sees the other.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let state = self.state.load(Ordering::SeqCst);
            if (number(state) != seen && state & OPEN != 0) || self.stop.load(Ordering::SeqCst) {
                break;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake_sleepers(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_all();
        }
    }
}

impl Parallel for Team {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&self, count: usize, task: &Task<'_>) {
        let busy = if count > 1 && !self.workers.is_empty() { self.busy.try_lock().ok() } else { None };
        let Some(_busy) = busy else {
            return super::Serial.run(count, task);
        };
        let region = &*self.shared;
        // SAFETY: only the lifetime changes. Workers use the reference only while inside the region, and this call
        // returns (or unwinds) only after it closed the region and saw that no worker is inside.
        let task = unsafe { std::mem::transmute::<&Task<'_>, &'static Task<'static>>(task) };
        let job = Job { task, count };
        // SAFETY: `busy` is held and the last region was left closed and empty, so nobody reads the job.
        unsafe { *region.job.get() = Some(job) };
        for (worker, share) in region.shares.iter().enumerate() {
            share.0.store(region.start(worker, count), Ordering::Relaxed);
        }
        let last = number(region.state.load(Ordering::Relaxed));
        region.state.store((last + 1) << 32 | OPEN, Ordering::SeqCst);
        region.wake_sleepers();
        region.work(0, job);
        region.state.fetch_and(!OPEN, Ordering::Relaxed);
        let mut looks = 0u32;
        while region.state.load(Ordering::Acquire) & INSIDE != 0 {
            looks += 1;
            // A worker that lost its core needs it back.
            if looks.is_multiple_of(1 << 12) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        let panic = region.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake_sleepers();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of tasks, so it ends in peace.
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_short_regions_and_sleeps_between_them() {
        // Interpreted, a region takes milliseconds.
        let rounds = if cfg!(miri) { 100 } else { 20_000 };
        for threads in [2, 3, 4] {
            let team = Team::new(threads).expect("threads");
            let sum = AtomicUsize::new(0);
            for round in 0..rounds {
                team.run(threads * 2, &|_, index| {
                    sum.fetch_add(index + 1, Ordering::Relaxed);
                });
                if round % 5000 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            let tasks = threads * 2;
            assert_eq!(sum.into_inner(), rounds * tasks * (tasks + 1) / 2);
        }
    }

    #[test]
    fn teams_end_asleep_or_awake() {
        for threads in 1..=4 {
            for sleep in [0, 1] {
                let team = Team::new(threads).expect("threads");
                team.run(8, &|_, _| {});
                std::thread::sleep(Duration::from_millis(sleep));
            }
        }
    }

    #[test]
    fn callers_on_two_threads_share_a_team() {
        let team = Team::new(3).expect("threads");
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        team.run(5, &|_, index| {
                            sum.fetch_add(index, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 2 * 1000 * 10);
    }
}
