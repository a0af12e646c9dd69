//! Threads for products of matrices: persistent, dynamic, cheap to start.
//!
//! A *run* is a number of independent units. All threads, the calling one included, take units from
//! one counter until none is left, so that a thread that lost its CPU to a neighbour holds up at
//! most one unit. The caller never waits for a thread to wake up: when the units are used up it
//! closes the run, and waits only for threads that are inside. Idle threads spin for some
//! microseconds, then sleep.
//!
//! What a unit computes must not depend on who runs it: results are the same for any number of
//! threads.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Environment variable that sets the number of threads where none is given.
pub const VARIABLE: &str = "GRIST_THREADS";

/// Rounds an idle thread spins before it sleeps: some 25 µs on current x86-64.
const SPINS: u32 = 2000;

/// A run is open for threads to enter.
const OPEN: u64 = 1 << 32;
/// The gate's bits above this count the runs.
const EPOCH_SHIFT: u32 = 33;
/// The gate's low bits count the threads inside.
const INSIDE: u64 = OPEN - 1;

/// A fixed set of threads; see the module's text.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the thread that leads a run; whoever does not get it works alone.
    lead: Mutex<()>,
}

struct Shared {
    /// Number of the run, whether it is open, how many threads are inside.
    gate: AtomicU64,
    /// The open run; valid while a thread is inside.
    run: AtomicPtr<Run<'static>>,
    sleepers: AtomicUsize,
    sleep: Mutex<bool>,
    wake: Condvar,
}

struct Run<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    next: AtomicUsize,
    units: usize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Run<'_> {
    fn take_units(&self) {
        loop {
            let unit = self.next.fetch_add(1, Ordering::Relaxed);
            if unit >= self.units {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.work)(unit))) {
                self.next.store(self.units, Ordering::Relaxed);
                lock(&self.panic).get_or_insert(panic);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool of `threads` threads, the calling one included; of as many as `GRIST_THREADS` says, or
    /// this process may use CPUs, where `None`. Never more than there are CPUs: barriers between
    /// threads that share a CPU cost whole time slices.
    pub fn new(threads: Option<usize>) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let asked = threads.or_else(|| std::env::var(VARIABLE).ok()?.trim().parse().ok());
        Self::with_exactly(asked.unwrap_or(cpus).clamp(1, cpus))
    }

    fn with_exactly(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            run: AtomicPtr::default(),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(false),
            wake: Condvar::new(),
        });
        let workers = (1..threads)
            .filter_map(|i| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("grist-{i}"))
                    .spawn(move || shared.work())
                    .ok() // fewer threads are slower, not wrong
            })
            .collect();
        Self {
            shared,
            workers,
            lead: Mutex::new(()),
        }
    }

    /// Number of threads that take part in a run.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work` once for every unit in `0..units`, on all threads, in any order. Called from
    /// inside a run, or while another thread leads one, it does the units on the calling thread.
    ///
    /// # Panics
    /// With the panic of a unit, if one panics; other units may then be left out.
    pub fn run(&self, units: usize, work: impl Fn(usize) + Sync) {
        let Some(_lead) = self
            .lead
            .try_lock()
            .ok()
            .filter(|_| units > 1 && !self.workers.is_empty())
        else {
            return (0..units).for_each(work);
        };
        let run = Run {
            work: &work,
            next: AtomicUsize::new(0),
            units,
            panic: Mutex::new(None),
        };
        self.shared.open(&run);
        run.take_units();
        self.shared.close();
        if let Some(panic) = run
            .panic
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
        {
            resume_unwind(panic);
        }
    }

    /// Splits `data` into chunks of `len` values (the last may be shorter) and calls `work` with each
    /// chunk's index and the chunk, on all threads.
    ///
    /// # Panics
    /// If `len` is 0, and as [`Pool::run`].
    pub fn chunks<T: Send>(
        &self,
        data: &mut [T],
        len: usize,
        work: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let chunks: Vec<_> = data.chunks_mut(len).map(|c| Mutex::new(Some(c))).collect();
        self.run(chunks.len(), |i| {
            if let Some(chunk) = lock(&chunks[i]).take() {
                work(i, chunk);
            }
        });
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        *lock(&self.shared.sleep) = true;
        // A new epoch that is not open ends the spinning of idle threads.
        self.shared
            .gate
            .fetch_add(1 << EPOCH_SHIFT, Ordering::SeqCst);
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join(); // units' panics are caught: nothing to report
        }
    }
}

impl Shared {
    fn open(&self, run: &Run<'_>) {
        let run: *const Run<'_> = run;
        self.run.store(run.cast_mut().cast(), Ordering::Relaxed);
        // The gate is closed and nobody inside, or the last run had not returned.
        self.gate
            .fetch_add((1 << EPOCH_SHIFT) | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.sleep));
            self.wake.notify_all();
        }
    }

    /// Lets no more threads in and waits until all that are inside have left.
    fn close(&self) {
        let mut gate = self.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while gate & INSIDE != 0 {
            if spins < SPINS {
                std::hint::spin_loop();
                spins += 1;
            } else {
                std::thread::yield_now();
            }
            gate = self.gate.load(Ordering::Acquire);
        }
    }

    fn work(&self) {
        let mut seen = 0;
        loop {
            let gate = self.next_epoch(seen);
            seen = gate >> EPOCH_SHIFT;
            if gate & OPEN == 0 {
                if *lock(&self.sleep) {
                    return;
                }
                continue;
            }
            let entered =
                self.gate
                    .compare_exchange(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed);
            if entered.is_err() {
                seen = u64::MAX; // somebody else came or the run closed: look again
                continue;
            }
            // SAFETY: `Pool::run` keeps its `Run` alive until `close` has seen that nobody is
            // inside; this thread entered while the run was open and leaves below.
            let run = unsafe { &*self.run.load(Ordering::Relaxed) };
            run.take_units();
            self.gate.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Waits until the gate shows another epoch than `seen`.
    fn next_epoch(&self, seen: u64) -> u64 {
        for _ in 0..SPINS {
            let gate = self.gate.load(Ordering::Acquire);
            if gate >> EPOCH_SHIFT != seen {
                return gate;
            }
            std::hint::spin_loop();
        }
        let mut ended = lock(&self.sleep);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let gate = loop {
            let gate = self.gate.load(Ordering::SeqCst);
            if gate >> EPOCH_SHIFT != seen || *ended {
                break gate;
            }
            ended = self
                .wake
                .wait(ended)
                .unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        gate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::with_exactly(threads);
            for units in [0, 1, 2, 3, 100, 1000] {
                let counts: Vec<_> = (0..units).map(|_| AtomicUsize::new(0)).collect();
                for _ in 0..20 {
                    pool.run(units, |i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    });
                }
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 20));
            }
        }
    }

    #[test]
    fn threads_that_sleep_are_woken() {
        let pool = Pool::with_exactly(3);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let ids = Mutex::new(std::collections::HashSet::new());
            pool.run(50, |_| {
                lock(&ids).insert(std::thread::current().id());
                std::thread::sleep(std::time::Duration::from_millis(1));
            });
            assert!(lock(&ids).len() > 1);
        }
    }

    #[test]
    fn chunks_cover_the_data() {
        let pool = Pool::with_exactly(3);
        let mut data = vec![0; 1003];
        pool.chunks(&mut data, 10, |i, chunk| {
            chunk
                .iter_mut()
                .enumerate()
                .for_each(|(j, v)| *v = i * 10 + j);
        });
        assert!(data.iter().enumerate().all(|(i, &v)| i == v));
    }

    #[test]
    fn runs_nest_and_share() {
        let pool = Pool::with_exactly(2);
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    pool.run(10, |_| {
                        pool.run(10, |_| {
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                    });
                });
            }
        });
        assert_eq!(count.into_inner(), 300);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let pool = Pool::with_exactly(2);
        let result = catch_unwind(AssertUnwindSafe(|| pool.run(64, |i| assert_ne!(i, 7))));
        assert!(result.is_err());
        pool.run(64, |_| {});
    }
}
