//! Which core a sleeping thread would wake up on.
//!
//! Linux wakes a thread on the core it last ran on, unless that is busy and another core is known
//! to be idle. When a process has kept all cores busy it does not look for an idle one ("the cache
//! domain is overloaded"), so a member that last ran where its leader runs now would wait behind it
//! until the scheduler balances the cores, 4 to 8 ms later: half the time of a ResNet-50. So the
//! leader forbids such a member its own core while it calls: the system chooses the core within the
//! call that wakes a thread, so the ban need not last until the member runs.

#[cfg(target_os = "linux")]
pub(super) use linux::Place;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Place;

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::SeqCst};

    use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

    /// Where a thread sleeps, for others to see. Everything is a hint: whatever fails is ignored,
    /// since the thread then merely wakes up later.
    pub(in super::super) struct Place {
        /// Its number in the system, 0 before it runs.
        thread: AtomicI32,
        /// The core on which it fell asleep, [`AWAKE`] while it runs.
        core: AtomicUsize,
        /// A [`Ban`] lives, which then may not be taken for what the user wants.
        banned: AtomicBool,
    }

    /// A core is forbidden to a thread while this lives.
    pub(in super::super) struct Ban<'a> {
        place: &'a Place,
        thread: Option<Pid>,
        /// The cores that the thread had before.
        allowed: CpuSet,
        /// Those that it was left.
        others: CpuSet,
    }

    const AWAKE: usize = usize::MAX;

    impl Default for Place {
        fn default() -> Place {
            Place {
                thread: AtomicI32::new(0),
                core: AtomicUsize::new(AWAKE),
                banned: AtomicBool::new(false),
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

        /// Called by another thread before it wakes this one; what it returns is to be dropped
        /// after that.
        pub(in super::super) fn make_way(&self) -> Option<Ban<'_>> {
            let core = sched_getcpu();
            if self.core.load(SeqCst) != core || self.banned.swap(true, SeqCst) {
                return None;
            }
            let ban = self.ban(core);
            if ban.is_none() {
                self.banned.store(false, SeqCst);
            }
            ban
        }

        fn ban(&self, core: usize) -> Option<Ban<'_>> {
            let thread = Pid::from_raw(self.thread.load(SeqCst));
            let allowed = sched_getaffinity(thread).ok()?;
            let mut others = allowed;
            others.unset(core);
            let banned = others.count() > 0 && sched_setaffinity(thread, &others).is_ok();
            banned.then(|| Ban { place: self, thread, allowed, others })
        }

        /// Called by the thread when it has been woken.
        pub(in super::super) fn arrive(&self) {
            self.core.store(AWAKE, SeqCst);
        }
    }

    impl Drop for Ban<'_> {
        fn drop(&mut self) {
            // Other cores than were left it have been chosen by somebody else meanwhile, and stay.
            // Looking and setting are two calls to the system, which knows no way to do both in
            // one: a choice made just between them is lost.
            if sched_getaffinity(self.thread).is_ok_and(|cores| cores == self.others) {
                let _ = sched_setaffinity(self.thread, &self.allowed);
            }
            self.place.banned.store(false, SeqCst);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// Calls `during` with the number of a sleeping thread that is forbidden our core, and that
        /// core; returns the thread's cores before and after the ban.
        fn ban(during: impl Fn(Option<Pid>, usize)) -> (CpuSet, CpuSet) {
            let place: &'static Place = Box::leak(Box::default());
            let (wake, woken) = std::sync::mpsc::channel::<()>();
            let sleeper = std::thread::spawn(move || {
                let before = sched_getaffinity(None).unwrap();
                place.settle();
                place.leave();
                woken.recv().unwrap();
                place.arrive();
                (before, sched_getaffinity(None).unwrap())
            });
            while place.core.load(SeqCst) == AWAKE {
                std::thread::yield_now();
            }
            while sched_getaffinity(None).unwrap().count() > 1 {
                let core = sched_getcpu();
                place.core.store(core, SeqCst);
                // None if we were moved between the two reads.
                if let Some(ban) = place.make_way() {
                    assert!(!sched_getaffinity(ban.thread).unwrap().is_set(core));
                    assert!(place.make_way().is_none());
                    during(ban.thread, core);
                    break;
                }
            }
            wake.send(()).unwrap();
            sleeper.join().unwrap()
        }

        #[test]
        fn a_sleeper_is_moved_off_our_core_and_gets_its_cores_back() {
            let (before, after) = ban(|_, _| ());
            assert_eq!(before, after);
        }

        #[test]
        fn cores_that_somebody_chooses_during_a_ban_stay() {
            let chosen = AtomicUsize::new(AWAKE);
            let (_, after) = ban(|thread, core| {
                let mut only = CpuSet::new();
                only.set(core);
                sched_setaffinity(thread, &only).unwrap();
                chosen.store(core, SeqCst);
            });
            let chosen = chosen.into_inner();
            assert!(chosen == AWAKE || after.count() == 1 && after.is_set(chosen));
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
        pub(in super::super) fn make_way(&self) -> Option<()> {
            None
        }
        pub(in super::super) fn arrive(&self) {}
    }
}
