//! The private thread pool: its size, and what happens to it after `fork`.
//!
//! Everything parallel runs inside [`install`]. rayon's threads do not survive a `fork`: the child
//! inherits a pool whose workers exist only in the parent, and waiting for them would hang. So the
//! pool in use is remembered together with the process id that built it; a child finds a foreign
//! id, builds its own pool, and leaves the inherited one alone (dropping it would wait for threads
//! that do not exist). Nothing is started before the first kernel runs.
//!
//! Pools are never freed: [`set_num_threads`] may be called while another thread is inside the old
//! pool. A pool of a size that was used before is taken up again, so the number of idle threads is
//! bounded by twice the sum of the distinct sizes a program asks for.

use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::crew::Awake;
use super::floats::Ieee;
use super::members::Members;
use crate::{Error, Result};

/// Largest accepted number of threads.
pub const MAX_THREADS: usize = 1024;

pub(super) struct Pool {
    process: u32,
    pub(super) threads: usize,
    /// For loops that are rayon's.
    workers: rayon::ThreadPool,
    /// For loops that a crew works on.
    pub(super) members: Members,
    /// Threads busy with crews.
    pub(super) awake: Awake,
    /// Pools built earlier, newest first; all live until the process ends.
    older: Option<&'static Pool>,
}

/// Newest pool of the list; null before the first kernel runs.
static POOLS: AtomicPtr<Pool> = AtomicPtr::new(std::ptr::null_mut());
/// Size asked for by [`set_num_threads`]; 0 means the default.
static REQUESTED: AtomicUsize = AtomicUsize::new(0);

/// Runs `work` inside the pool, so that rayon's parallel iterators in it use our threads.
pub fn install<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    crate::isa::check_cap()?;
    Ok(current()?.workers.install(work))
}

/// Number of threads that kernels use: the last [`set_num_threads`], else `OXIDET_NUM_THREADS`
/// where that is not empty, else the usable cores (affinity and cgroup quota respected).
pub fn num_threads() -> Result<usize> {
    match REQUESTED.load(Ordering::Relaxed) {
        0 => default_threads(),
        threads => Ok(threads),
    }
}

/// Sets the number of threads for all following kernels of this process.
pub fn set_num_threads(threads: usize) -> Result<()> {
    if !(1..=MAX_THREADS).contains(&threads) {
        return Err(Error::value(
            "num_threads",
            format!("an integer from 1 to {MAX_THREADS}"),
            threads.to_string(),
        ));
    }
    REQUESTED.store(threads, Ordering::Relaxed);
    Ok(())
}

fn default_threads() -> Result<usize> {
    let Some(text) = std::env::var_os("OXIDET_NUM_THREADS").filter(|text| !text.is_empty()) else {
        return Ok(std::thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_THREADS));
    };
    match text.to_str().and_then(|t| t.trim().parse().ok()) {
        Some(n) if (1..=MAX_THREADS).contains(&n) => Ok(n),
        _ => Err(Error::value(
            "OXIDET_NUM_THREADS",
            format!("an integer from 1 to {MAX_THREADS}"),
            format!("{text:?}"),
        )),
    }
}

/// The pool of the size in force, started if need be.
pub(super) fn current() -> Result<&'static Pool> {
    of(num_threads()?)
}

/// The pool of the given size, started if need be.
pub(super) fn of(threads: usize) -> Result<&'static Pool> {
    let process = std::process::id();
    loop {
        let newest = POOLS.load(Ordering::Acquire);
        // SAFETY: the pointer is null or came from `Box::leak` below, so it is valid for the rest
        // of the process and only ever shared; a forked child has its own copy of that memory.
        let head: Option<&'static Pool> = unsafe { newest.as_ref() };
        let mut candidate = head;
        while let Some(pool) = candidate {
            if pool.process == process && pool.threads == threads {
                return Ok(pool);
            }
            candidate = pool.older;
        }
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("oxidet-{i}"))
            .start_handler(|_| Ieee::stay())
            .build()
            .map_err(cannot_start)?;
        let members = Members::start(threads - 1).map_err(cannot_start)?;
        let awake = Awake::default();
        let pool = Box::new(Pool { process, threads, workers, members, awake, older: head });
        let pool = Box::into_raw(pool);
        match POOLS.compare_exchange(newest, pool, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: just published, never freed.
            Ok(_) => return Ok(unsafe { &*pool }),
            // Another thread was first. SAFETY: nobody else has seen this pool.
            Err(_) => drop(unsafe { Box::from_raw(pool) }),
        }
    }
}

fn cannot_start(error: impl std::fmt::Display) -> Error {
    Error::value("num_threads", "a thread count the system can start", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_has_the_size_that_was_asked_for_and_is_reused() {
        for threads in [3, 1, 2, 3] {
            set_num_threads(threads).unwrap();
            assert_eq!(install(rayon::current_num_threads).unwrap(), threads);
        }
        let first: *const Pool = current().unwrap();
        set_num_threads(1).unwrap();
        set_num_threads(3).unwrap();
        assert!(std::ptr::eq(first, current().unwrap()));
    }

    #[test]
    fn an_illegal_size_is_refused() {
        for bad in [0, MAX_THREADS + 1] {
            let message = set_num_threads(bad).unwrap_err().to_string();
            assert!(message.starts_with("num_threads: expected"), "{message}");
        }
    }
}
