//! Threads that stand by for a chain of small jobs.
//!
//! A token of a small language model is a chain of more than a hundred products of 20 to 200
//! microseconds each. Sending every one of them to sleeping threads of the pool and waiting to be
//! woken again costs a good part of that. Inside [`in_team`] the pool's threads are called once and
//! then watch a word of memory for the next job, from one token to the next.

use std::any::Any;
use std::cell::{OnceCell, RefCell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// In [`Team::state`]: threads at the job, whether it may be joined, and the number of the job.
const MEMBERS: u64 = OPEN - 1;
const OPEN: u64 = 1 << 16;
const JOB: u64 = OPEN << 1;

/// Looks at the next job before a thread lets others run in between (some tens of microseconds).
const LOOKS: u32 = 1000;
/// After this long without a job a thread goes back to the pool; the next job calls it again. It is longer than choosing a
/// token takes: a thread that has gone to sleep may be woken on the processor of the one that gives the jobs, and waits
/// there for milliseconds.
const PATIENCE: Duration = Duration::from_millis(1);

/// A job: `task(0..count)`.
#[derive(Clone, Copy)]
struct Job {
    /// Valid from the opening of the job until it is closed and has no members.
    task: *const (dyn Fn(usize) + Sync),
    count: usize,
}

struct Team {
    /// Threads besides the one that gives the jobs.
    size: usize,
    /// Written by the giver while the job is closed and has no members, read by members.
    job: UnsafeCell<Option<Job>>,
    state: AtomicU64,
    /// The next task that no one has taken.
    next: AtomicUsize,
    /// Threads that were called and have not left.
    called: AtomicUsize,
    /// What the first member that panicked panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written by one thread while `state` lets no other read it.
unsafe impl Send for Team {}
// SAFETY: as above.
unsafe impl Sync for Team {}

/// What a thread has to do with teams.
enum Role {
    None,
    /// Gives jobs to a team.
    Giver(Arc<Team>),
    /// Runs a task: jobs inside it run on this thread alone.
    Busy,
}

thread_local! {
    static ROLE: RefCell<Role> = const { RefCell::new(Role::None) };
    /// The team of this thread, which is always one of the same pool.
    static TEAM: OnceCell<Arc<Team>> = const { OnceCell::new() };
}

fn replace_role(role: Role) -> Role {
    ROLE.with_borrow_mut(|old| std::mem::replace(old, role))
}

/// Puts a role back, however the scope is left.
struct Restore(Option<Role>);

impl Restore {
    fn after(role: Role) -> Self {
        Self(Some(replace_role(role)))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if let Some(role) = self.0.take() {
            replace_role(role);
        }
    }
}

/// Runs `work` with the threads of the pool standing by for the parallel jobs that this thread
/// gives meanwhile: for chains of jobs so short that waking threads for each would cost more than
/// they gain. Results are the same as without. Threads that have no job for a millisecond do other
/// work of the pool, also when `work` has ended.
pub fn in_team<R>(work: impl FnOnce() -> R) -> R {
    let alone = ROLE.with_borrow(|role| matches!(role, Role::None));
    if !alone {
        return work();
    }
    let team = TEAM.with(|team| Arc::clone(team.get_or_init(|| Arc::new(Team::new()))));
    let _restore = Restore::after(Role::Giver(team));
    work()
}

/// Whether this thread gives its jobs to a team.
pub(super) fn is_giver() -> bool {
    ROLE.with_borrow(|role| matches!(role, Role::Giver(_)))
}

/// Runs `task(0..count)` with this thread's team, or on this thread inside a task of one; false if
/// there is none.
pub(super) fn run(count: usize, task: &(dyn Fn(usize) + Sync)) -> bool {
    let team = ROLE.with_borrow(|role| match role {
        Role::None => None,
        Role::Giver(team) => Some(Some(Arc::clone(team))),
        Role::Busy => Some(None),
    });
    match team {
        None => return false,
        Some(Some(team)) if team.size > 0 => team.give(count, task),
        Some(_) => (0..count).for_each(task),
    }
    true
}

impl Team {
    fn new() -> Self {
        Self {
            size: rayon::current_num_threads() - 1,
            job: UnsafeCell::new(None),
            state: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            called: AtomicUsize::new(0),
            panic: Mutex::new(None),
        }
    }

    fn give(self: &Arc<Self>, count: usize, task: &(dyn Fn(usize) + Sync)) {
        /// Waits until no member is at the job, however the scope is left.
        struct Close<'a>(&'a Team);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                self.0.state.fetch_and(!OPEN, Ordering::Relaxed);
                let mut looks = 0;
                while self.0.state.load(Ordering::Acquire) & MEMBERS != 0 {
                    pause(&mut looks);
                }
            }
        }
        self.call(count - 1);
        // SAFETY: only the lifetime changes; `Close` outlives every use of the pointer.
        let task = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(
                task,
            )
        };
        let job = Job { task, count };
        // SAFETY: the last job was closed and left, so no one else reads.
        unsafe { *self.job.get() = Some(job) };
        self.next.store(0, Ordering::Relaxed);
        let number = self.state.load(Ordering::Relaxed) / JOB + 1;
        self.state.store(number * JOB + OPEN, Ordering::Release);
        {
            let _close = Close(self);
            self.work(job);
        }
        let panic = self
            .panic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Calls the threads that are not there, as many as there is work for.
    fn call(self: &Arc<Self>, tasks: usize) {
        for _ in self.called.load(Ordering::Relaxed)..self.size.min(tasks) {
            self.called.fetch_add(1, Ordering::Relaxed);
            let team = Arc::clone(self);
            rayon::spawn(move || {
                team.stand_by();
                team.called.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    /// Helps with one job after the other until none comes.
    fn stand_by(&self) {
        let mut done = 0;
        let mut looks = 0;
        let mut since = None;
        loop {
            let state = self.state.load(Ordering::Relaxed);
            if state & OPEN == 0 || state / JOB == done {
                pause(&mut looks);
                if looks >= LOOKS && since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    return;
                }
                continue;
            }
            if self
                .state
                .compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
            {
                continue;
            }
            // SAFETY: a member of an open job.
            let job = unsafe { *self.job.get() };
            let helped = catch_unwind(AssertUnwindSafe(|| job.map(|job| self.work(job))));
            if let Err(panic) = helped {
                let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(panic);
            }
            self.state.fetch_sub(1, Ordering::Release);
            done = state / JOB;
            (looks, since) = (0, None);
        }
    }

    /// Takes tasks, many at first and single ones in the end, until none is left.
    fn work(&self, job: Job) {
        let _restore = Restore::after(Role::Busy);
        // SAFETY: this thread is a member of the open job, or its giver.
        let task = unsafe { &*job.task };
        loop {
            let taken = self.next.load(Ordering::Relaxed);
            let left = job.count.saturating_sub(taken);
            let share = left * 3 / (4 * (self.size + 1));
            let share = share.max(1);
            let first = self.next.fetch_add(share, Ordering::Relaxed);
            if first >= job.count {
                return;
            }
            (first..(first + share).min(job.count)).for_each(task);
        }
    }
}

/// Passes a little time, letting other threads run now and then once it gets long.
fn pause(looks: &mut u32) {
    *looks = looks.saturating_add(1);
    if *looks < LOOKS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::for_each_task;

    fn pool(threads: usize) -> rayon::ThreadPool {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().expect("a few threads")
    }

    #[test]
    fn every_task_of_every_job_runs_once() {
        let (jobs, most) = if cfg!(miri) { (20, 9) } else { (2000, 40) };
        for threads in [1, 2, 5] {
            pool(threads).install(|| {
                in_team(|| {
                    for job in 0..jobs {
                        let counts: Vec<AtomicUsize> =
                            (0..job % most).map(|_| AtomicUsize::new(0)).collect();
                        for_each_task(counts.len(), |i| {
                            counts[i].fetch_add(1, Ordering::Relaxed);
                        });
                        assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
                    }
                });
            });
        }
    }

    #[test]
    fn a_thread_keeps_its_team_whose_members_leave_when_nothing_comes() {
        pool(3).install(|| {
            let own = || TEAM.with(|team| team.get().cloned());
            assert!(own().is_none());
            in_team(|| for_each_task(9, |_| {}));
            let team = own().expect("made with the first job");
            in_team(|| for_each_task(9, |_| {}));
            assert!(own().is_some_and(|again| Arc::ptr_eq(&again, &team)));
            let start = Instant::now();
            while team.called.load(Ordering::Relaxed) > 0 {
                assert!(start.elapsed() < Duration::from_secs(60), "they stay");
                std::thread::yield_now();
            }
        });
    }

    #[test]
    fn jobs_within_tasks_and_teams_within_teams_run() {
        let sum = AtomicUsize::new(0);
        pool(3).install(|| {
            in_team(|| {
                in_team(|| {
                    for_each_task(7, |i| {
                        for_each_task(5, |j| {
                            sum.fetch_add(10 * i + j, Ordering::Relaxed);
                        });
                    });
                });
            });
        });
        assert_eq!(sum.into_inner(), 10 * 21 * 5 + 10 * 7);
    }

    #[test]
    fn teams_of_two_threads_share_a_pool() {
        let pool = pool(2);
        let jobs = if cfg!(miri) { 5 } else { 500 };
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    pool.in_place_scope(|_| {
                        in_team(|| {
                            for _ in 0..jobs {
                                let sum = AtomicUsize::new(0);
                                for_each_task(9, |i| {
                                    sum.fetch_add(i, Ordering::Relaxed);
                                });
                                assert_eq!(sum.into_inner(), 36);
                            }
                        });
                    });
                });
            }
        });
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_giver_and_the_team_goes_on() {
        let sum = AtomicUsize::new(0);
        pool(3).install(|| {
            in_team(|| {
                for bad in 0..4 {
                    let job = AssertUnwindSafe(|| {
                        for_each_task(20, |i| assert_ne!(i, 5 * bad, "on purpose"));
                    });
                    assert!(catch_unwind(job).is_err());
                    for_each_task(20, |i| {
                        sum.fetch_add(i, Ordering::Relaxed);
                    });
                }
            });
        });
        assert_eq!(sum.into_inner(), 4 * 190);
    }
}
