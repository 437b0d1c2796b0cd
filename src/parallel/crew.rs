//! A crew: the pool's threads kept awake for the length of one plan, so that fifty short layers do
//! not each pay for waking them.
//!
//! A layer of a small network takes a few hundred microseconds, and a thread that went to sleep at
//! the end of the last one needs tens of them to come back. [`assemble`] makes one thread the
//! leader; the others spin until it is done. For every loop the leader publishes a [`Job`] and
//! everybody, the leader included, draws task numbers from its counter until none is left. A member
//! that arrives late (or never, on a busy machine) costs nothing: the leader waits only for those
//! who have begun a task.
//!
//! ```text
//! leader: publish job; draw tasks until none is left; withdraw job; wait until nobody is inside
//! member: loop { inside += 1; if there is a job: draw tasks until none is left; inside -= 1 }
//! ```
//!
//! Which thread runs a task never shows in the result: a task's work depends on its number alone.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};

/// Rounds of waiting after which a thread offers its core to others each round: some tens of
/// microseconds, more than the gap between two layers.
const SPINS: usize = 1000;

/// A loop over task numbers that is being worked on.
struct Job<'a> {
    /// Called with the worker's number and the task's.
    run: &'a (dyn Fn(usize, usize) + Sync),
    tasks: usize,
    next: AtomicUsize,
    /// A task panicked.
    failed: AtomicBool,
}

impl Job<'_> {
    /// Draws tasks until none is left. Loops that the tasks start themselves run serially.
    fn work(&self, worker: usize) {
        let before = ROLE.replace(Role::Inside);
        loop {
            let task = self.next.fetch_add(1, SeqCst);
            if task >= self.tasks {
                break;
            }
            if catch_unwind(AssertUnwindSafe(|| (self.run)(worker, task))).is_err() {
                self.failed.store(true, SeqCst);
                self.next.store(self.tasks, SeqCst);
            }
        }
        ROLE.set(before);
    }
}

/// What leader and members share.
#[derive(Default)]
struct Crew {
    /// The job of the moment, or null. The lifetime is a lie that [`Crew::lead`] makes good.
    job: AtomicPtr<Job<'static>>,
    /// Members between looking at `job` and being done with it.
    inside: AtomicUsize,
    finished: AtomicBool,
}

/// What a thread is with respect to crews.
#[derive(Clone, Copy)]
enum Role {
    /// It has none: a loop started here assembles one for its own length.
    Alone,
    /// It leads this crew of so many workers.
    Leads(*const Crew, usize),
    /// It is inside a task: loops started here run serially.
    Inside,
}

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::Alone) };
}

/// Waits a little: first politely to the sibling thread, then to everybody.
fn pause(rounds: &mut usize) {
    *rounds += 1;
    if *rounds < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
}

impl Crew {
    fn serve(&self, worker: usize) {
        let mut rounds = 0;
        while !self.finished.load(SeqCst) {
            if self.job.load(SeqCst).is_null() {
                pause(&mut rounds);
                continue;
            }
            self.inside.fetch_add(1, SeqCst);
            // SAFETY: `inside` was raised before this load. If the load gives a job, the leader has
            // not yet withdrawn it in the single order of these SeqCst operations, so it will find
            // `inside` above zero afterwards and keep the job alive until we lower it.
            if let Some(job) = unsafe { self.job.load(SeqCst).as_ref() } {
                job.work(worker);
            }
            self.inside.fetch_sub(1, SeqCst);
            rounds = 0;
        }
    }

    fn lead(&self, tasks: usize, run: &(dyn Fn(usize, usize) + Sync)) {
        let job = Job { run, tasks, next: AtomicUsize::new(0), failed: AtomicBool::new(false) };
        self.job.store((&raw const job).cast_mut().cast(), SeqCst);
        job.work(0);
        // Withdrawn and left by everybody before `job` and `run` go out of scope; `work` does not
        // unwind.
        self.job.store(null_mut(), SeqCst);
        let mut rounds = 0;
        while self.inside.load(SeqCst) != 0 {
            pause(&mut rounds);
        }
        if job.failed.load(SeqCst) {
            // The panic's own message has been printed where it happened.
            resume_unwind(Box::new("this is a bug in oxidet: a task of a kernel panicked"));
        }
    }
}

/// Restores the leader's role and dismisses the crew, also when what it led panics.
struct Leading<'a>(&'a Crew);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        ROLE.set(Role::Alone);
        self.0.finished.store(true, SeqCst);
    }
}

/// Runs `lead` with all threads of the current rayon pool at hand: loops of [`for_each`] inside it
/// start without waking anybody.
pub fn assemble<T>(lead: impl FnOnce() -> T) -> T {
    let threads = rayon::current_num_threads();
    if threads == 1 || !matches!(ROLE.get(), Role::Alone) {
        return lead();
    }
    let crew = Crew::default();
    rayon::in_place_scope(|scope| {
        for worker in 1..threads {
            let crew = &crew;
            scope.spawn(move |_| crew.serve(worker));
        }
        ROLE.set(Role::Leads(&raw const crew, threads));
        let _leading = Leading(&crew);
        lead()
    })
}

/// Number of workers that a loop of [`for_each`] started here has at most: worker numbers are
/// below it.
pub fn workers() -> usize {
    match ROLE.get() {
        Role::Alone => rayon::current_num_threads(),
        Role::Leads(_, threads) => threads,
        Role::Inside => 1,
    }
}

/// Calls `run(worker, task)` once for every task number below `tasks`, spread over the crew that
/// this thread leads (or one assembled for this loop; serially inside a task). Two calls with the
/// same worker number never overlap.
pub fn for_each(tasks: usize, run: impl Fn(usize, usize) + Sync) {
    match ROLE.get() {
        // SAFETY: `assemble` further up this thread's stack set the pointer, and resets the role
        // before the crew goes out of scope.
        Role::Leads(crew, _) if tasks > 1 => unsafe { &*crew }.lead(tasks, &run),
        Role::Alone if tasks > 1 && rayon::current_num_threads() > 1 => {
            assemble(|| for_each(tasks, run));
        }
        _ => (0..tasks).for_each(|task| run(0, task)),
    }
}

/// [`for_each`] with scratch memory: `run(scratch, task)` gets `len` floats that no other running
/// task has. Their contents are whatever the last user left.
///
/// # Panics
/// If `scratch` holds fewer than `len` floats for each of [`workers`].
pub fn for_each_with(
    tasks: usize,
    scratch: &mut [f32],
    len: usize,
    run: impl Fn(&mut [f32], usize) + Sync,
) {
    assert!(scratch.len() / workers() >= len, "{} floats of scratch, {len} each", scratch.len());
    let base = AtomicPtr::new(scratch.as_mut_ptr());
    for_each(tasks, |worker, task| {
        // SAFETY: worker numbers are below `workers()`, so the part lies inside `scratch`, which is
        // borrowed exclusively here; calls with one worker number never overlap, so no two parts
        // that exist at a time share an element.
        let part =
            unsafe { std::slice::from_raw_parts_mut(base.load(SeqCst).add(worker * len), len) };
        run(part, task);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
    }

    #[test]
    fn every_task_runs_once_whoever_runs_it() {
        for threads in [1, 2, 3, 8] {
            in_pool(threads, || {
                for tasks in [0, 1, 2, 100] {
                    let counts: Vec<AtomicUsize> =
                        (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    let visit = |worker: usize, task: usize| {
                        assert!(worker < threads);
                        counts[task].fetch_add(1, SeqCst);
                    };
                    for_each(tasks, visit);
                    assemble(|| {
                        (0..50).for_each(|_| for_each(tasks, visit));
                        // A loop inside a task, and a crew inside a crew.
                        for_each(tasks, |_, task| for_each(1, |w, _| visit(w, task)));
                        assemble(|| for_each(tasks, visit));
                    });
                    assert!(counts.iter().all(|count| count.load(SeqCst) == 53));
                }
            });
        }
    }

    #[test]
    fn scratch_is_never_shared() {
        in_pool(3, || {
            let mut scratch = vec![0.0; 3 * 7];
            let sums = Mutex::new(Vec::new());
            for_each_with(200, &mut scratch, 7, |part, task| {
                part.fill(task as f32);
                std::thread::yield_now();
                sums.lock().unwrap().push(part.iter().all(|&x| x == task as f32));
            });
            let sums = sums.into_inner().unwrap();
            assert!(sums.len() == 200 && sums.iter().all(|&same| same));
        });
    }

    #[test]
    fn a_panic_in_a_task_ends_the_loop_and_leaves_the_pool_usable() {
        in_pool(2, || {
            for _ in 0..20 {
                let failed = catch_unwind(|| for_each(64, |_, task| assert!(task != 40)));
                assert!(failed.is_err());
            }
            let count = AtomicUsize::new(0);
            for_each(64, |_, _| {
                count.fetch_add(1, SeqCst);
            });
            assert_eq!(count.into_inner(), 64);
        });
    }

    #[test]
    fn two_leaders_share_a_pool() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    pool.install(|| {
                        assemble(|| {
                            for _ in 0..20 {
                                for_each(10, |_, _| {
                                    count.fetch_add(1, SeqCst);
                                });
                            }
                        });
                    });
                });
            }
        });
        assert_eq!(count.into_inner(), 800);
    }
}
