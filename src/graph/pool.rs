//! Memory that runs and passes leave for those behind them.
//!
//! Whoever finds nothing at rest makes memory of its own and leaves it here, so there is as much as
//! there were users at once. Many at once may have been an exception (a burst of threads, a step
//! that held the passes of all its batches): what lies at rest beyond the most that were in use at
//! once lately is freed. Lately is counted in takings, in this window and the one before.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Takings in a window: more than a step of training is likely to make, and few enough that memory
/// nobody needs is soon gone.
const WINDOW: usize = 32;

/// Pieces of memory at rest.
///
/// Never waits for its lock: that may have been held by another thread when this process was forked,
/// and then nobody is there to open it. What cannot be taken is made, what cannot be left is freed.
#[derive(Debug)]
pub(super) struct Pool<T> {
    rest: Mutex<Vec<T>>,
    /// Pieces in use. Those that an error has freed stay counted, here and in the most at once, and
    /// it is only the difference that matters.
    used: AtomicUsize,
    /// Most of them at once in this window, and in the one before.
    most: AtomicUsize,
    before: AtomicUsize,
    takings: AtomicUsize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Pool {
            rest: Mutex::default(),
            used: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            before: AtomicUsize::new(0),
            takings: AtomicUsize::new(0),
        }
    }
}

impl<T> Pool<T> {
    /// A piece at rest, or a new one; the one that was left last, of which most is still in caches.
    pub(super) fn take(&self, new: impl FnOnce() -> T) -> T {
        let used = self.used.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(used, Relaxed);
        if self.takings.fetch_add(1, Relaxed) % WINDOW == WINDOW - 1 {
            self.before.store(self.most.swap(used, Relaxed), Relaxed);
        }
        self.rest.try_lock().ok().and_then(|mut rest| rest.pop()).unwrap_or_else(new)
    }

    /// Leaves a piece that was taken.
    pub(super) fn give_back(&self, piece: T) {
        let used = self.used.fetch_sub(1, Relaxed) - 1;
        let most = self.most.load(Relaxed).max(self.before.load(Relaxed));
        let Ok(mut rest) = self.rest.try_lock() else { return };
        rest.push(piece);
        let spare = rest.len().saturating_sub(most.saturating_sub(used));
        // Freed once the lock is open again.
        let freed: Vec<T> = rest.drain(..spare).collect();
        drop(rest);
        drop(freed);
    }

    /// What lies at rest, to be counted or moved elsewhere; None while another thread does so.
    pub(super) fn at_rest<R>(&self, look: impl FnOnce(&mut Vec<T>) -> R) -> Option<R> {
        self.rest.try_lock().ok().map(|mut rest| look(&mut rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_rest(pool: &Pool<usize>) -> Vec<usize> {
        pool.at_rest(|rest| rest.clone()).unwrap()
    }

    #[test]
    fn what_was_left_last_is_taken_first() {
        let pool = Pool::default();
        let taken: Vec<usize> = (0..3).map(|number| pool.take(|| number)).collect();
        assert_eq!(taken, [0, 1, 2]);
        taken.into_iter().for_each(|piece| pool.give_back(piece));
        assert_eq!(at_rest(&pool), [0, 1, 2]);
        assert_eq!(pool.take(|| 9), 2);
        assert_eq!(at_rest(&pool), [0, 1]);
    }

    #[test]
    fn what_a_burst_leaves_goes_after_two_windows() {
        let pool = Pool::default();
        let burst: Vec<usize> = (0..10).map(|number| pool.take(|| number)).collect();
        burst.into_iter().for_each(|piece| pool.give_back(piece));
        let two_at_once = |times: usize| {
            for _ in 0..times {
                let piece = pool.take(|| panic!("there is always one at rest"));
                let other = pool.take(|| panic!("and another"));
                pool.give_back(piece);
                pool.give_back(other);
            }
            at_rest(&pool).len()
        };
        assert_eq!(two_at_once(WINDOW / 2), 10);
        assert_eq!(two_at_once(WINDOW), 2);
    }

    #[test]
    fn as_many_as_are_used_at_once_stay() {
        let pool = Pool::default();
        for _ in 0..10 * WINDOW {
            let pieces: Vec<usize> = (0..4).map(|number| pool.take(|| number)).collect();
            pieces.into_iter().for_each(|piece| pool.give_back(piece));
            assert_eq!(at_rest(&pool).len(), 4);
        }
    }

    #[test]
    fn what_an_error_has_freed_changes_nothing() {
        let pool = Pool::default();
        for number in 0..3 * WINDOW {
            pool.take(|| number);
            let piece = pool.take(|| number);
            pool.give_back(piece);
            assert!(at_rest(&pool).len() <= 2);
        }
        assert_eq!(at_rest(&pool).len(), 1);
    }
}
