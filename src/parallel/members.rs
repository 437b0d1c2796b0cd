//! The threads that work for crews: they sleep until a leader calls them, and for a moment after a
//! plan they stay awake for the next one.
//!
//! They are threads of our own rather than the rayon pool's, because a leader must be able to see
//! who is free: a job queued behind another leader's plan would come too late to be of use, and
//! rayon wakes more of its threads than there is work for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use super::floats::Ieee;
use super::place::Place;

/// How long a member looks for the next call before it goes to sleep: longer than what Python does
/// between two calls of a model in a loop.
const LINGER: Duration = Duration::from_micros(100);

type Call = Box<dyn FnOnce() + Send>;

/// What a thread and its leaders share.
#[derive(Default)]
struct Member {
    /// Somebody has called it and it has not finished.
    busy: AtomicBool,
    place: Place,
}

/// The members of a pool. Dropped, they end.
pub(super) struct Members(Box<[(Arc<Member>, SyncSender<Call>)]>);

impl Members {
    /// Starts `count` threads.
    pub(super) fn start(count: usize) -> std::io::Result<Members> {
        let start = |index: usize| {
            let (calls, inbox) = sync_channel(1);
            let member = Arc::new(Member::default());
            let thread = std::thread::Builder::new().name(format!("oxidet-member-{index}"));
            let own = Arc::clone(&member);
            thread.spawn(move || own.live(&inbox))?;
            Ok((member, calls))
        };
        Ok(Members((1..=count).map(start).collect::<std::io::Result<_>>()?))
    }

    /// Has up to `most` free threads do what `work` makes of their numbers, which begin at 1.
    pub(super) fn call<W>(&self, most: usize, work: impl Fn(usize) -> W)
    where
        W: FnOnce() + Send + 'static,
    {
        let free = (1..).zip(&self.0).filter(|(_, (member, _))| !member.busy.swap(true, SeqCst));
        for (worker, (member, calls)) in free.take(most) {
            let _ban = member.place.make_way();
            // A free member's inbox is empty, so this neither waits nor fails.
            let sent = calls.try_send(Box::new(work(worker)));
            debug_assert!(sent.is_ok());
        }
    }
}

impl Member {
    fn live(&self, inbox: &Receiver<Call>) {
        self.place.settle();
        Ieee::stay();
        while let Some(call) = self.next(inbox) {
            self.place.arrive();
            call();
            self.busy.store(false, SeqCst);
        }
    }

    /// The next call; nothing once there can be none.
    fn next(&self, inbox: &Receiver<Call>) -> Option<Call> {
        let since = Instant::now();
        while since.elapsed() < LINGER {
            match inbox.try_recv() {
                Err(TryRecvError::Empty) => std::hint::spin_loop(),
                call => return call.ok(),
            }
        }
        self.place.leave();
        inbox.recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_member_is_called_once_at_a_time_and_comes_again() {
        let members = Members::start(2).unwrap();
        let (gate, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let wait = |worker: usize| {
            assert!((1..=2).contains(&worker));
            let (gate, calls) = (Arc::clone(&gate), Arc::clone(&calls));
            move || {
                calls.fetch_add(1, SeqCst);
                while !gate.load(SeqCst) {
                    std::thread::yield_now();
                }
            }
        };
        for expected in [2, 4, 6] {
            gate.store(false, SeqCst);
            // The third finds nobody free.
            (0..3).for_each(|_| members.call(1, wait));
            while calls.load(SeqCst) < expected {
                std::thread::yield_now();
            }
            gate.store(true, SeqCst);
            while members.0.iter().any(|(member, _)| member.busy.load(SeqCst)) {
                std::thread::yield_now();
            }
            assert_eq!(calls.load(SeqCst), expected);
            std::thread::sleep(2 * LINGER);
        }
    }
}
