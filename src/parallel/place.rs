//! Which core a sleeping thread would wake up on.
//!
//! Linux wakes a thread on the core it last ran on, unless that is busy and another core is known
//! to be idle. When a process has kept all cores busy it does not look for an idle one ("the cache
//! domain is overloaded"), so a member that last ran where its leader runs now would wait behind it
//! until the scheduler balances the cores, 4 to 8 ms later: half the time of a ResNet-50. So the
//! leader forbids such a member its own core before it calls, and the member takes the ban back as
//! soon as it runs.

#[cfg(target_os = "linux")]
pub(super) use linux::Place;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Place;

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

    use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

    /// Where a thread sleeps, for others to see. Everything is a hint: whatever fails is ignored,
    /// since the thread then merely wakes up later.
    pub(in super::super) struct Place {
        /// Its number in the system, 0 before it runs.
        thread: AtomicI32,
        /// The core on which it fell asleep, [`AWAKE`] while it runs.
        core: AtomicUsize,
        /// The cores that it had before it was forbidden one.
        allowed: Mutex<Option<CpuSet>>,
    }

    const AWAKE: usize = usize::MAX;

    impl Default for Place {
        fn default() -> Place {
            Place {
                thread: AtomicI32::new(0),
                core: AtomicUsize::new(AWAKE),
                allowed: Mutex::new(None),
            }
        }
    }

    impl Place {
        /// Called by the thread when it begins.
        pub(in super::super) fn settle(&self) {
            self.thread.store(gettid().as_raw_nonzero().get(), SeqCst);
        }

        /// Called by the thread before it goes to sleep.
        pub(in super::super) fn leave(&self) {
            self.core.store(sched_getcpu(), SeqCst);
        }

        /// Called by another thread before it wakes this one, which nobody else may do meanwhile.
        pub(in super::super) fn make_way(&self) {
            let core = sched_getcpu();
            if self.core.load(SeqCst) != core {
                return;
            }
            let thread = Pid::from_raw(self.thread.load(SeqCst));
            let Ok(allowed) = sched_getaffinity(thread) else { return };
            let mut others = allowed;
            others.unset(core);
            if others.count() > 0 && sched_setaffinity(thread, &others).is_ok() {
                *self.allowed.lock().unwrap_or_else(|e| e.into_inner()) = Some(allowed);
            }
        }

        /// Called by the thread when it has been woken.
        pub(in super::super) fn arrive(&self) {
            self.core.store(AWAKE, SeqCst);
            let allowed = self.allowed.lock().unwrap_or_else(|e| e.into_inner()).take();
            if let Some(allowed) = allowed {
                // Cannot fail for a set that was in force a moment ago; else the ban stays.
                let _ = sched_setaffinity(None, &allowed);
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_sleeper_is_moved_off_our_core_and_gets_its_cores_back() {
            let place: &'static Place = Box::leak(Box::default());
            let (wake, woken) = std::sync::mpsc::channel::<()>();
            let sleeper = std::thread::spawn(move || {
                let before = sched_getaffinity(None).unwrap();
                place.settle();
                place.leave();
                woken.recv().unwrap();
                let inside = sched_getaffinity(None).unwrap();
                place.arrive();
                (before, inside, sched_getaffinity(None).unwrap())
            });
            while place.core.load(SeqCst) == AWAKE {
                std::thread::yield_now();
            }
            // We may be moved between the two reads: then the ban names another core, or none.
            place.core.store(sched_getcpu(), SeqCst);
            place.make_way();
            wake.send(()).unwrap();
            let (before, inside, after) = sleeper.join().unwrap();
            assert_eq!(before, after);
            assert!(inside.count() + 1 >= before.count());
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    /// Nothing is known of other systems.
    #[derive(Default)]
    pub(in super::super) struct Place;

    impl Place {
        pub(in super::super) fn settle(&self) {}
        pub(in super::super) fn leave(&self) {}
        pub(in super::super) fn make_way(&self) {}
        pub(in super::super) fn arrive(&self) {}
    }
}
