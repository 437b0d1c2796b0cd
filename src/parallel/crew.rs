//! A crew: the pool's threads kept awake for the length of one plan, so that fifty short layers do
//! not each pay for waking them.
//!
//! A layer of a small network takes a few hundred microseconds, and a thread that went to sleep at
//! the end of the last one needs tens of them to come back. [`assemble`] and [`lead`] make the
//! thread that calls them the leader; free members of our pool come and spin until it is done.
//! For every loop the leader publishes a [`Job`] and everybody, the leader included, draws task
//! numbers from its counter until none is left. A member that arrives late (or never, on a busy
//! machine) costs nothing: the leader waits only for those who have begun a task.
//!
//! The leader is a thread that runs already, so that one thread fewer has to be woken. A leader in
//! the pool would be woken on the one idle core and wake its member before the caller has gone to
//! sleep on the other: both then share a core until the system balances its cores, 4 to 8 ms later.
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
use std::sync::{Arc, Mutex};

use super::floats::Ieee;
use super::pool::{self, Pool};
use crate::Result;

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
        let _inside = Acting::new(Role::Inside);
        loop {
            let task = self.next.fetch_add(1, SeqCst);
            if task >= self.tasks {
                break;
            }
            let done = catch_unwind(AssertUnwindSafe(|| (self.run)(worker, task)));
            if let Err(payload) = done {
                // Not dropped: that runs code of whoever panicked, and nothing may unwind from here.
                std::mem::forget(payload);
                self.failed.store(true, SeqCst);
                self.next.store(self.tasks, SeqCst);
            }
        }
    }
}

/// Threads busy with the crews of one pool: together no more than the pool has threads, leaders from
/// outside it included, unless there are as many leaders.
#[derive(Default)]
pub(super) struct Awake {
    leaders: AtomicUsize,
    members: AtomicUsize,
}

/// One more in a count while this lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Counted<'a> {
        count.fetch_add(1, SeqCst);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// What leader and members share. A member may come when the leader is long gone: it then finds
/// `finished`.
#[derive(Default)]
struct Crew {
    /// The job of the moment, or null. The lifetime is a lie that [`Leader::lead`] makes good.
    job: AtomicPtr<Job<'static>>,
    /// Members between looking at `job` and being done with it.
    inside: AtomicUsize,
    /// Members called that have not left.
    members: AtomicUsize,
    finished: AtomicBool,
}

/// The leader's side of a crew; it lives on the stack of its thread.
struct Leader {
    crew: Arc<Crew>,
    pool: &'static Pool,
}

/// What a thread is with respect to crews.
#[derive(Clone, Copy)]
enum Role {
    /// It has none: a loop started here assembles one for its own length.
    Alone,
    /// It leads.
    Leads(*const Leader),
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
    /// What a member does until the leader is done or there are `too_many` of us.
    fn serve(&self, worker: usize, too_many: impl Fn() -> bool) {
        let mut rounds = 0;
        while !self.finished.load(SeqCst) && !too_many() {
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
        self.members.fetch_sub(1, SeqCst);
    }
}

impl Leader {
    /// Calls members while some are missing: at first all are, later those who were still busy
    /// then, or had to leave.
    fn muster(&self) {
        let Pool { threads, members, awake, .. } = self.pool;
        let most = threads.saturating_sub(awake.leaders.load(SeqCst));
        let missing = most.saturating_sub(self.crew.members.load(SeqCst));
        if missing == 0 {
            return;
        }
        members.call(missing, |worker| {
            self.crew.members.fetch_add(1, SeqCst);
            let crew = Arc::clone(&self.crew);
            move || {
                let _counted = Counted::new(&awake.members);
                crew.serve(worker, || {
                    awake.leaders.load(SeqCst) + awake.members.load(SeqCst) > *threads
                });
            }
        });
    }

    fn lead(&self, tasks: usize, run: &(dyn Fn(usize, usize) + Sync)) {
        self.muster();
        let Crew { job: place, inside, .. } = &*self.crew;
        let job = Job { run, tasks, next: AtomicUsize::new(0), failed: AtomicBool::new(false) };
        place.store((&raw const job).cast_mut().cast(), SeqCst);
        job.work(0);
        // Withdrawn and left by everybody before `job` and `run` go out of scope; `work` does not
        // unwind.
        place.store(null_mut(), SeqCst);
        let mut rounds = 0;
        while inside.load(SeqCst) != 0 {
            pause(&mut rounds);
        }
        if job.failed.load(SeqCst) {
            // The panic's own message has been printed where it happened.
            resume_unwind(Box::new("this is a bug in oxidet: a task of a kernel panicked"));
        }
    }
}

/// A role of this thread while this lives, also when what it does in it panics.
struct Acting {
    before: Role,
}

impl Acting {
    fn new(role: Role) -> Acting {
        Acting { before: ROLE.replace(role) }
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        ROLE.set(self.before);
    }
}

/// Dismisses the crew.
impl Drop for Leader {
    fn drop(&mut self) {
        self.crew.finished.store(true, SeqCst);
    }
}

/// Runs `work` with the threads of the pool it is called in at hand (that is, with as many members
/// of ours): loops of [`for_each`] inside it start without waking anybody.
pub fn assemble<T>(work: impl FnOnce() -> T) -> T {
    match (ROLE.get(), workers()) {
        (Role::Alone, 2..) => assemble_in(pool::of(workers()), work),
        _ => work(),
    }
}

/// [`lead_crew`], or `work` alone where no threads can be had, which is no reason not to go on.
fn assemble_in<T>(pool: Result<&'static Pool>, work: impl FnOnce() -> T) -> T {
    match pool {
        Ok(pool) => lead_crew(pool, work),
        Err(_) => {
            let _serial = Acting::new(Role::Inside);
            work()
        }
    }
}

/// [`assemble`] with the threads of our pool, on a thread outside of any.
pub fn lead<T>(work: impl FnOnce() -> T) -> Result<T> {
    if rayon::current_thread_index().is_some() || !matches!(ROLE.get(), Role::Alone) {
        return Ok(assemble(work));
    }
    crate::isa::check_cap()?;
    Ok(lead_crew(pool::current()?, work))
}

fn lead_crew<T>(pool: &'static Pool, work: impl FnOnce() -> T) -> T {
    let _counted = Counted::new(&pool.awake.leaders);
    let leader = Leader { crew: Arc::default(), pool };
    leader.muster();
    let _leads = Acting::new(Role::Leads(&raw const leader));
    let _mode = Ieee::enter();
    work()
}

/// Number of workers that a loop of [`for_each`] started here has at most: worker numbers are
/// below it.
pub fn workers() -> usize {
    match ROLE.get() {
        Role::Alone => match rayon::current_thread_index() {
            Some(_) => rayon::current_num_threads(),
            None => 1,
        },
        // SAFETY: as in `for_each`.
        Role::Leads(leader) => unsafe { &*leader }.pool.threads,
        Role::Inside => 1,
    }
}

/// Calls `run(worker, task)` once for every task number below `tasks`, spread over the crew that
/// this thread leads (or one assembled for this loop; serially inside a task). Two calls with the
/// same worker number never overlap.
pub fn for_each(tasks: usize, run: impl Fn(usize, usize) + Sync) {
    match ROLE.get() {
        // SAFETY: `lead_crew` further up this thread's stack holds the leader, and resets the role
        // before it lets go of it.
        Role::Leads(leader) if tasks > 1 => unsafe { &*leader }.lead(tasks, &run),
        Role::Alone if tasks > 1 && workers() > 1 => assemble(|| for_each(tasks, run)),
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

/// Calls `run(index, chunk)` for every chunk of `len` elements (the last may be shorter), spread as
/// the tasks of [`for_each`].
pub fn for_each_chunk<T: Send>(data: &mut [T], len: usize, run: impl Fn(usize, &mut [T]) + Sync) {
    if data.len() <= len {
        if !data.is_empty() {
            run(0, data);
        }
        return;
    }
    // Every lock is opened once, by the task that has its number.
    let chunks: Vec<_> = data.chunks_mut(len.max(1)).map(Mutex::new).collect();
    for_each(chunks.len(), |_, index| {
        if let Ok(mut chunk) = chunks[index].try_lock() {
            run(index, &mut chunk);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn chunks_cover_the_data_once() {
        let pool = pool::of(3).unwrap();
        for (n, len) in [(0, 4), (1, 4), (4, 4), (5, 4), (1000, 7), (3, 0)] {
            let mut data = vec![0; n];
            lead_crew(pool, || {
                for_each_chunk(&mut data, len, |index, chunk| {
                    assert!(chunk.len() <= len.max(1));
                    chunk.iter_mut().enumerate().for_each(|(i, x)| *x += index * len.max(1) + i);
                });
            });
            assert!(data.iter().enumerate().all(|(i, &x)| i == x), "{n} {len}");
        }
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
    fn a_panic_whose_payload_panics_too_is_no_worse() {
        struct Payload;
        impl Drop for Payload {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        in_pool(2, || {
            for _ in 0..20 {
                let failed = catch_unwind(|| {
                    for_each(64, |_, task| {
                        std::thread::yield_now();
                        if task == 40 {
                            std::panic::panic_any(Payload);
                        }
                    });
                });
                let message = failed.unwrap_err().downcast::<&str>().unwrap();
                assert!(message.starts_with("this is a bug"), "{message}");
            }
        });
    }

    #[test]
    fn without_threads_loops_are_serial() {
        in_pool(2, || {
            let mut sum = 0;
            let pool = Err(crate::Error::value("num_threads", "less", "more"));
            assemble_in(pool, || {
                let total = AtomicUsize::new(0);
                for_each(64, |worker, task| {
                    assert!(worker == 0 && workers() == 1);
                    total.fetch_add(task, SeqCst);
                });
                assemble(|| for_each(64, |_, task| _ = total.fetch_add(task, SeqCst)));
                sum = total.into_inner();
            });
            assert!(sum == 2 * 2016 && workers() == 2);
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

    #[test]
    fn leaders_from_outside_get_members_and_do_without() {
        // A size that no other test uses.
        let pool = pool::of(5).unwrap();
        let count = AtomicUsize::new(0);
        let plan = || {
            lead_crew(pool, || {
                let threads = workers();
                for _ in 0..50 {
                    for_each(20, |worker, _| {
                        assert!(worker < threads);
                        count.fetch_add(1, SeqCst);
                    });
                }
                // A crew inside a crew is the same.
                let inner = |_, _| {
                    count.fetch_add(1, SeqCst);
                };
                lead(|| for_each(20, inner)).unwrap();
            });
        };
        plan();
        assert_eq!(count.load(SeqCst), 1020);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10).for_each(|_| plan()));
            }
        });
        assert_eq!(count.load(SeqCst), 81 * 1020);
        assert_eq!(pool.awake.leaders.load(SeqCst), 0);
    }

    #[test]
    fn both_threads_work_in_every_plan_of_a_row() {
        // The member of the last plan may not be free yet when the next one begins.
        let pool = pool::of(2).unwrap();
        for _ in 0..20 {
            lead_crew(pool, || {
                let seen = Mutex::new(std::collections::HashSet::new());
                let start = std::time::Instant::now();
                while seen.lock().unwrap().len() < 2 && start.elapsed().as_secs() < 60 {
                    for_each(100, |worker, _| {
                        seen.lock().unwrap().insert(worker);
                        std::thread::yield_now();
                    });
                }
                assert_eq!(seen.into_inner().unwrap().len(), 2);
            });
        }
    }
}
