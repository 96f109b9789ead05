//! The contract of [`Roster`] as tests. Every implementation runs [`run`] on fresh rosters.

#![allow(clippy::unwrap_used, reason = "a contract suite fails by panicking")]

use super::Roster;

/// Runs every case, each on a roster of its own.
pub fn run<R: Roster>(mut fresh: impl FnMut() -> R) {
    empty_roster_knows_nothing(fresh());
}

fn empty_roster_knows_nothing<R: Roster>(roster: R) {
    assert_eq!(roster.lives().unwrap(), []);
    assert_eq!(roster.members().unwrap(), []);
    assert_eq!(roster.breaker().unwrap(), None);
    assert_eq!(roster.entry("s").unwrap(), None);
    assert_eq!(roster.entries("", 9).unwrap(), []);
    assert_eq!(roster.rooms().unwrap(), []);
}
