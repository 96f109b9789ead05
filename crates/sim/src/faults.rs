//! What can go wrong below the engine, and how it is drawn.
//!
//! The fault model is written down in `docs/simulation.md`. This file holds the part that happens
//! inside a verb: commits and reads that fail, and the loss of the instance after a commit.

use std::cell::Cell;

use engine::log::{LogError, Write};

use crate::decorators::Hook;
use crate::rng::Rng;

/// What happens inside one verb.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injection {
    /// Bit `n` set: the `n`-th commit of the verb fails; nothing of it is stored.
    pub failing_commits: u64,
    /// The read with this number fails.
    pub failing_read: Option<u32>,
    /// After so many commits the instance dies: nothing more is stored or read, and whatever the
    /// verb answers reaches nobody. Also when the verb makes fewer commits.
    pub dies_after: Option<u32>,
}

impl Injection {
    /// Draws a fault in `percent` of the cases.
    pub fn draw(rng: &mut Rng, percent: u64) -> Self {
        if !rng.chance(percent) {
            return Self::default();
        }
        match rng.below(4) {
            0 => Self { failing_commits: 1 << rng.below(3), ..Self::default() },
            1 => Self { failing_commits: rng.next_u64() | 1, ..Self::default() },
            2 => Self { failing_read: Some(rng.below(12) as u32), ..Self::default() },
            _ => Self { dies_after: Some(rng.below(3) as u32), ..Self::default() },
        }
    }
}

/// The hook of [`crate::decorators::Faulty`].
#[derive(Debug, Default)]
pub struct Faults {
    injection: Cell<Injection>,
    commits: Cell<u32>,
    reads: Cell<u32>,
    fired: Cell<bool>,
}

impl Faults {
    /// Sets what is to happen from now on.
    pub fn arm(&self, injection: Injection) {
        self.injection.set(injection);
        self.commits.set(0);
        self.reads.set(0);
        self.fired.set(false);
    }

    /// Ends the injection; `true` when a call failed because of it.
    pub fn disarm(&self) -> bool {
        self.injection.set(Injection::default());
        self.fired.get()
    }

    fn fail(&self, what: &str) -> Result<(), LogError> {
        self.fired.set(true);
        Err(LogError::Failed(format!("injected: {what}")))
    }

    fn dead(&self) -> bool {
        self.injection.get().dies_after.is_some_and(|commits| self.commits.get() > commits)
    }
}

impl Hook for Faults {
    fn before_read(&self) -> Result<(), LogError> {
        let number = self.reads.get();
        self.reads.set(number.saturating_add(1));
        if self.injection.get().failing_read == Some(number) {
            return self.fail("a read");
        }
        // The dying commit has been refused before any read fails, so that reads of a verb that
        // is done with its commits still work.
        if self.dead() { self.fail("the instance is dead") } else { Ok(()) }
    }

    fn before_commit(&self, writes: Vec<Write<Vec<u8>>>) -> Result<Vec<Write<Vec<u8>>>, LogError> {
        let number = self.commits.get();
        self.commits.set(number.saturating_add(1));
        let failing = self.injection.get().failing_commits.checked_shr(number).unwrap_or(0) & 1;
        if failing == 1 {
            self.fail("a commit")?;
        }
        if self.dead() {
            self.fail("the instance is dead")?;
        }
        Ok(writes)
    }
}

/// The hook of [`crate::decorators::Counting`].
#[derive(Debug, Default)]
pub struct Counters {
    rows: Cell<u64>,
    range_bytes_max: Cell<u64>,
    commits: Cell<u64>,
}

impl Counters {
    /// Extent rows read since the last call.
    pub fn take_rows(&self) -> u64 {
        self.rows.take()
    }

    /// Largest range of bytes asked for so far.
    #[must_use]
    pub fn range_bytes_max(&self) -> u64 {
        self.range_bytes_max.get()
    }

    /// Commits asked for so far, failed ones included.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.get()
    }
}

impl Hook for Counters {
    fn saw_rows(&self, rows: u64) {
        self.rows.set(self.rows.get().saturating_add(rows));
    }

    fn saw_range(&self, bytes: u64) {
        self.range_bytes_max.set(self.range_bytes_max.get().max(bytes));
    }

    fn before_commit(&self, writes: Vec<Write<Vec<u8>>>) -> Result<Vec<Write<Vec<u8>>>, LogError> {
        self.commits.set(self.commits.get().saturating_add(1));
        Ok(writes)
    }
}
