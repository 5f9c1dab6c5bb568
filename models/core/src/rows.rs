//! Splitting row-wise work over workers, safely: every task claims items of its own from one iterator.

use quant_kernels::Parallel;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Rows of a task of the element-wise operations: fixed, so that nothing depends on the number of workers.
pub(crate) const TILE_ROWS: usize = 8;

/// Calls `work(worker, item)` once for every item, in parallel if there are several.
///
/// Items are claimed in order under a lock, so they may hold exclusive slices; nothing is allocated.
pub(crate) fn for_each<I>(parallel: &dyn Parallel, items: I, work: impl Fn(usize, I::Item) + Sync)
where
    I: ExactSizeIterator + Send,
{
    let count = items.len();
    if count <= 1 || parallel.threads() == 1 {
        items.for_each(|item| work(0, item));
        return;
    }
    let items = Mutex::new(items);
    parallel.run(count, &|worker, _| {
        let item = lock(&items).next();
        if let Some(item) = item {
            work(worker, item);
        }
    });
}

/// Splits the first `len` values off.
pub(crate) fn take<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (first, after) = mem::take(rest).split_at_mut(len);
    *rest = after;
    first
}

/// Locks; a panic of another worker is reported by [`Parallel::run`], not here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first `len` values of a buffer that grows to the largest call and stays.
pub(crate) fn sized<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}
