//! The contract of [`Ledger`] as tests. Every implementation runs [`run`] on fresh ledgers.

#![allow(clippy::unwrap_used, reason = "a contract suite fails by panicking")]

use super::Ledger;

/// Runs every case, each on a ledger of its own.
pub fn run<L: Ledger>(mut fresh: impl FnMut() -> L) {
    empty_ledger_knows_nothing(fresh());
}

fn empty_ledger_knows_nothing<L: Ledger>(ledger: L) {
    assert_eq!(ledger.session().unwrap(), None);
    assert_eq!(ledger.subscriptions().unwrap(), []);
}
