//! Seeds, determinism and canaries: what `cargo test` runs of the simulator.
//!
//! `SIM_SEED=n cargo test -p sim seeds` replays one seed with its trace.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use sim::canary::Bug;
use sim::world::Setup;
use sim::{Outcome, run, simulate};

const STEPS: u32 = 200;

/// Seeds among which one is to find a planted bug.
const CANARY_SEEDS: u64 = 200;

/// Steps within which they are to be found.
const CANARY_STEPS: u32 = 150;

#[test]
fn seeds_hold_every_invariant() {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        let seed = seed.parse().unwrap();
        let sqlite = seed % sim::SQLITE_EVERY == 0;
        let outcome = simulate(Setup { seed, steps: STEPS, sqlite, echo: true, bug: Bug::None });
        assert!(outcome.failure.is_none(), "{}", outcome.failure.unwrap());
        return;
    }
    let summary = run(1_000, 0, STEPS);
    assert_eq!(summary.seeds, 1_000);
    if let Some(failure) = summary.failures.first() {
        panic!("{failure}");
    }
}

fn outcome(seed: u64, sqlite: bool, bug: Bug) -> Outcome {
    simulate(Setup { seed, steps: STEPS, sqlite, bug, echo: false })
}

#[test]
fn a_seed_is_a_trace() {
    for seed in 1..12 {
        let first = outcome(seed, false, Bug::None);
        assert_eq!(first.hash, outcome(seed, false, Bug::None).hash, "seed {seed}");
        assert_ne!(first.hash, outcome(seed + 1, false, Bug::None).hash);
    }
}

#[test]
fn both_implementations_of_the_log_behave_alike() {
    for seed in 1..12 {
        let memory = outcome(seed, false, Bug::None);
        assert_eq!(memory.hash, outcome(seed, true, Bug::None).hash, "seed {seed}");
    }
}

/// One of the seeds finds the bug, and nothing without it.
fn is_found(bug: Bug) {
    let finds = |seed: &u64| {
        outcome(*seed, false, bug).failure.is_some_and(|failure| failure.step <= CANARY_STEPS)
    };
    let seed = (0..CANARY_SEEDS).find(finds).unwrap();
    assert!(outcome(seed, false, Bug::None).failure.is_none());
}

#[test]
fn a_torn_commit_is_found() {
    is_found(Bug::TornCommit);
}

#[test]
fn forgotten_producers_are_found() {
    is_found(Bug::ForgottenProducers);
}

#[test]
fn rows_that_a_segment_replaces_are_found() {
    is_found(Bug::KeptExtents);
}

#[test]
fn forgotten_intents_are_found() {
    is_found(Bug::ForgottenIntents);
}

#[test]
fn lost_deletion_markers_are_found() {
    is_found(Bug::LostMarkers);
}

#[test]
fn an_undo_without_a_marker_is_found() {
    is_found(Bug::UnmarkedUndo);
}

#[test]
fn skipped_pages_are_found() {
    is_found(Bug::SkippedPages);
}

#[test]
fn forgotten_readers_are_found() {
    is_found(Bug::ForgottenReaders);
}

#[test]
fn untrimmed_repeats_are_found() {
    is_found(Bug::UntrimmedRepeats);
}

#[test]
fn ignored_credit_is_found() {
    is_found(Bug::IgnoredCredit);
}

#[test]
fn lost_notes_are_found() {
    is_found(Bug::LostNotes);
}
