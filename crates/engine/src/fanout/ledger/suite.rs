//! The contract of [`Ledger`] as tests. Every implementation runs [`run`] on fresh ledgers; those whose
//! commits can fail run [`failed_commits_store_nothing`] as well.
//!
//! Each case is a function from an empty ledger to nothing, and fails by assertion.

#![allow(clippy::unwrap_used, reason = "a contract suite fails by panicking")]

use protocol::fanout::SubscriptionEpoch;
use protocol::offset::Generation;
use protocol::time::UnixMillis;

use super::{Begun, Ledger, LedgerWrite, Phase, SessionRow, Step, SubscriptionRow};
use crate::log::LogError;

/// The largest number that every implementation stores exactly.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Names in the order of their UTF-8, which is not that of UTF-16.
const SOURCES: [&str; 9] =
    ["", "p/'; --", "p/A", "p/a", "p/a\0b", "p/a/b", "p/é", "p/\u{ffff}", "p/😀"];

/// Runs every case, each on a ledger of its own.
pub fn run<L: Ledger>(mut fresh: impl FnMut() -> L) {
    empty_ledger_knows_nothing(fresh());
    empty_commits_do_nothing(fresh());
    sessions_round_trip(fresh());
    subscriptions_round_trip(fresh());
    subscriptions_come_by_life_and_source(fresh());
    subscriptions_are_replaced_by_key(fresh());
    subscriptions_are_dropped_by_key(fresh());
    writes_of_a_commit_are_stored_in_order(fresh());
    many_writes_are_one_commit(fresh());
}

/// A commit that fails on the way stores nothing, and can be made again.
///
/// `breaks(true)` makes the storage refuse the last of [`writes_of_every_kind`], `breaks(false)` mends
/// it. The ledger has no rows but those of the table `subscriptions`, and not the one of source `p/a`.
pub fn failed_commits_store_nothing<L: Ledger>(mut ledger: L, mut breaks: impl FnMut(bool)) {
    breaks(true);
    for _ in 0..2 {
        let failed = ledger.commit(writes_of_every_kind());
        assert!(matches!(failed, Err(LogError::Failed(_))), "{failed:?}");
    }
    breaks(false);
    assert_eq!(ledger.session().unwrap(), None);
    let is_new = |row: &SubscriptionRow| row.source == "p/a";
    assert!(!ledger.subscriptions().unwrap().iter().any(is_new));
    ledger.commit(writes_of_every_kind()).unwrap();
    assert_eq!(ledger.session().unwrap(), Some(session()));
    assert!(ledger.subscriptions().unwrap().iter().any(is_new));
}

/// One row of every kind; the last one belongs into the table `subscriptions`, for the source `p/a`.
#[must_use]
pub fn writes_of_every_kind() -> Vec<LedgerWrite> {
    vec![
        LedgerWrite::Alarm(UnixMillis(4_000_000_000_000)),
        LedgerWrite::Session(session()),
        LedgerWrite::Subscription(subscription(1, "p/a")),
    ]
}

fn session() -> SessionRow {
    SessionRow {
        phase: Phase::Live,
        generation: Generation(1),
        content_type: "application/json".into(),
        ttl_seconds: 1_800,
        envelope: false,
        epoch: SubscriptionEpoch(2),
        due: None,
        attempts: 0,
    }
}

fn subscription(generation: u64, source: &str) -> SubscriptionRow {
    SubscriptionRow {
        generation: Generation(generation),
        source: source.to_owned(),
        live: Some(SubscriptionEpoch(2)),
        step: Step::Settled,
        begun: None,
        attempts: 0,
        due: None,
    }
}

fn empty_ledger_knows_nothing<L: Ledger>(ledger: L) {
    assert_eq!(ledger.session().unwrap(), None);
    assert_eq!(ledger.subscriptions().unwrap(), []);
}

fn empty_commits_do_nothing<L: Ledger>(mut ledger: L) {
    ledger.commit(vec![]).unwrap();
    assert_eq!(ledger.session().unwrap(), None);
    ledger.commit(writes_of_every_kind()).unwrap();
    ledger.commit(vec![]).unwrap();
    assert_eq!(ledger.session().unwrap(), Some(session()));
    assert_eq!(ledger.subscriptions().unwrap(), [subscription(1, "p/a")]);
}

fn sessions_round_trip<L: Ledger>(mut ledger: L) {
    let lowest = SessionRow {
        phase: Phase::None,
        generation: Generation(0),
        content_type: String::new(),
        ttl_seconds: 0,
        epoch: SubscriptionEpoch(0),
        due: Some(UnixMillis(0)),
        ..session()
    };
    let highest = SessionRow {
        phase: Phase::Ending,
        generation: Generation(NUMBER_MAX),
        content_type: "text/plain; charset=\"ü\"".into(),
        ttl_seconds: NUMBER_MAX,
        envelope: true,
        epoch: SubscriptionEpoch(NUMBER_MAX),
        due: Some(UnixMillis(NUMBER_MAX)),
        attempts: u32::MAX,
    };
    let creating = SessionRow { phase: Phase::Creating, ..session() };
    // There is one row: each replaces the one before, with all of its columns.
    for stored in [session(), lowest.clone(), highest.clone(), creating, highest, lowest, session()]
    {
        ledger.commit(vec![LedgerWrite::Session(stored.clone())]).unwrap();
        assert_eq!(ledger.session().unwrap(), Some(stored));
    }
}

fn subscriptions_round_trip<L: Ledger>(mut ledger: L) {
    let epochs = [0, 1, NUMBER_MAX].map(SubscriptionEpoch);
    let steps = [Step::Settled]
        .into_iter()
        .chain(epochs.map(Step::Joining))
        .chain(epochs.map(Step::Leaving))
        .chain(epochs.map(Step::Undoing));
    let lives = || [None].into_iter().chain(epochs.map(Some));
    let ends = [(0, None), (1, Some(UnixMillis(0))), (u32::MAX, Some(UnixMillis(NUMBER_MAX)))];
    let begun = |epoch| {
        let (since, first) = (SubscriptionEpoch(epoch), SubscriptionEpoch(NUMBER_MAX));
        Begun { since, first, from: "-1".into() }
    };
    for step in steps {
        for live in lives() {
            for (attempts, due) in ends {
                let row = SubscriptionRow {
                    live,
                    step,
                    begun: due.map(|due| begun(due.0)),
                    attempts,
                    due,
                    ..subscription(NUMBER_MAX, "p/s")
                };
                ledger.commit(vec![LedgerWrite::Subscription(row.clone())]).unwrap();
                assert_eq!(ledger.subscriptions().unwrap(), [row]);
            }
        }
    }
}

fn subscriptions_come_by_life_and_source<L: Ledger>(mut ledger: L) {
    let generations = [0, 9, 10, NUMBER_MAX];
    let wanted: Vec<_> = generations
        .into_iter()
        .flat_map(|generation| SOURCES.map(|source| subscription(generation, source)))
        .collect();
    let writes = wanted.iter().rev().cloned().map(LedgerWrite::Subscription);
    ledger.commit(writes.collect()).unwrap();
    assert_eq!(ledger.subscriptions().unwrap(), wanted);
}

fn subscriptions_are_replaced_by_key<L: Ledger>(mut ledger: L) {
    ledger.commit(writes_of_every_kind()).unwrap();
    let newer = SubscriptionRow {
        live: None,
        step: Step::Leaving(SubscriptionEpoch(3)),
        attempts: 1,
        due: Some(UnixMillis(5)),
        ..subscription(1, "p/a")
    };
    ledger.commit(vec![LedgerWrite::Subscription(newer.clone())]).unwrap();
    assert_eq!(ledger.subscriptions().unwrap(), [newer]);
    assert_eq!(ledger.session().unwrap(), Some(session()));
}

fn subscriptions_are_dropped_by_key<L: Ledger>(mut ledger: L) {
    let drop = |generation, source: &str| LedgerWrite::DropSubscription {
        generation: Generation(generation),
        source: source.to_owned(),
    };
    let absent = || vec![drop(2, "p/a"), drop(1, "p/A"), drop(1, "p/a/b")];
    ledger.commit(absent()).unwrap();
    ledger.commit(writes_of_every_kind()).unwrap();
    for write in absent() {
        ledger.commit(vec![write]).unwrap();
    }
    assert_eq!(ledger.subscriptions().unwrap(), [subscription(1, "p/a")]);
    ledger.commit(vec![LedgerWrite::Subscription(subscription(2, "p/a")), drop(1, "p/a")]).unwrap();
    assert_eq!(ledger.subscriptions().unwrap(), [subscription(2, "p/a")]);
    ledger.commit(vec![drop(2, "p/a")]).unwrap();
    assert_eq!(ledger.subscriptions().unwrap(), []);
    // The session stays when all of its subscriptions have gone.
    assert_eq!(ledger.session().unwrap(), Some(session()));
}

fn writes_of_a_commit_are_stored_in_order<L: Ledger>(mut ledger: L) {
    let drop = || LedgerWrite::DropSubscription { generation: Generation(1), source: "p/a".into() };
    let store = |attempts| {
        LedgerWrite::Subscription(SubscriptionRow { attempts, ..subscription(1, "p/a") })
    };
    ledger.commit(vec![store(1), drop()]).unwrap();
    assert_eq!(ledger.subscriptions().unwrap(), []);
    ledger.commit(vec![store(1), drop(), store(2), store(3)]).unwrap();
    let wanted = SubscriptionRow { attempts: 3, ..subscription(1, "p/a") };
    assert_eq!(ledger.subscriptions().unwrap(), [wanted]);
}

fn many_writes_are_one_commit<L: Ledger>(mut ledger: L) {
    let rows: Vec<_> = (0..1_000).map(|n| subscription(1, &format!("p/{n:04}"))).collect();
    ledger.commit(rows.iter().cloned().map(LedgerWrite::Subscription).collect()).unwrap();
    assert_eq!(ledger.subscriptions().unwrap(), rows);
}
