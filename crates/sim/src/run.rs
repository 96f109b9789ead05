//! Running seeds: one, or many on two threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::canary::Bug;
use crate::violation::Violation;
use crate::world::{Setup, World};

/// Every so many seeds, one runs on real SQLite.
pub const SQLITE_EVERY: u64 = 16;

/// Threads of [`run`]; seeds are independent.
const THREADS: usize = 2;

/// How one seed ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Hash of the whole trace.
    pub hash: u64,
    /// Steps taken.
    pub steps: u32,
    /// What was found, if anything.
    pub failure: Option<Failure>,
}

/// A broken invariant and how to see it again.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The step at which it was found.
    pub step: u32,
    /// What is broken.
    pub violation: Violation,
    /// The last lines of the trace.
    pub trace: Vec<String>,
    /// What the replaying command needs besides the seed.
    pub replay: &'static str,
}

/// What a range of seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds run.
    pub seeds: u64,
    /// Steps taken in all of them.
    pub steps: u64,
    /// Failures, lowest seed first.
    pub failures: Vec<Failure>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in &self.trace {
            writeln!(f, "    {line}")?;
        }
        writeln!(f, "seed {}, step {}: {}", self.seed, self.step, self.violation)?;
        write!(f, "replay: cargo xtask sim{} --seeds 1 --start {} --trace", self.replay, self.seed)
    }
}

/// The setup of a seed: which implementation it runs on follows from the seed.
#[must_use]
pub(crate) fn setup(seed: u64, steps: u32) -> Setup {
    let sqlite = seed.is_multiple_of(SQLITE_EVERY);
    Setup { seed, steps, sqlite, bug: Bug::None, echo: false }
}

/// Runs one seed.
#[must_use]
pub fn simulate(setup: Setup) -> Outcome {
    let mut world = match World::new(setup) {
        Ok(world) => world,
        Err(violation) => {
            let failure =
                Failure { seed: setup.seed, step: 0, violation, trace: Vec::new(), replay: "" };
            return Outcome { hash: 0, steps: 0, failure: Some(failure) };
        }
    };
    let failure = world.run(setup.steps).err().map(|violation| Failure {
        seed: setup.seed,
        step: world.steps_done(),
        violation,
        trace: world.trace().tail(),
        replay: "",
    });
    Outcome { hash: world.trace().hash(), steps: world.steps_done(), failure }
}

/// Runs `seeds` seeds from `start` on, `steps` steps each.
#[must_use]
pub fn run(seeds: u64, start: u64, steps: u32) -> Summary {
    run_with(seeds, start, |seed| setup(seed, steps), |_| {})
}

/// As [`run`], with a setup per seed, and told of every seed that is done.
pub fn run_with(
    seeds: u64,
    start: u64,
    setup: impl Fn(u64) -> Setup + Sync,
    done: impl Fn(&Outcome) + Sync,
) -> Summary {
    run_each(seeds, start, |seed| simulate(setup(seed)), done)
}

/// Runs seeds of any world.
pub fn run_each(
    seeds: u64,
    start: u64,
    simulate: impl Fn(u64) -> Outcome + Sync,
    done: impl Fn(&Outcome) + Sync,
) -> Summary {
    let next = AtomicU64::new(0);
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= seeds {
                        return;
                    }
                    let outcome = simulate(start.wrapping_add(index));
                    done(&outcome);
                    let Ok(mut summary) = summary.lock() else { return };
                    summary.seeds += 1;
                    summary.steps += u64::from(outcome.steps);
                    summary.failures.extend(outcome.failure);
                }
            });
        }
    });
    let mut summary = summary.into_inner().unwrap_or_default();
    summary.failures.sort_by_key(|failure| failure.seed);
    summary
}
