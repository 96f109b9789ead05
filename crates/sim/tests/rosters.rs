//! The storage of subscription objects and session objects on the real SQLite library: the contract
//! suites, and random commits beside the naive implementations in memory.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use engine::fanout::breaker::Open;
use engine::fanout::ledger::memory::MemoryLedger;
use engine::fanout::ledger::sql::SqlLedger;
use engine::fanout::ledger::{
    self, Begun, Ledger, LedgerWrite, Phase, SessionRow, Step, SubscriptionRow,
};
use engine::fanout::roster::memory::MemoryRoster;
use engine::fanout::roster::sql::SqlRoster;
use engine::fanout::roster::{self, Entry, LifeRow, MemberRow, Place, Roster, RosterWrite};
use engine::log::LogError;
use engine::log::sql::Database;
use proptest::prelude::*;
use protocol::fanout::{LifeState, ShardId, SubscriptionEpoch};
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;
use sim::sqlite::NativeDatabase;

fn database() -> NativeDatabase {
    NativeDatabase::in_memory().unwrap()
}

fn roster_on(database: &NativeDatabase) -> SqlRoster<NativeDatabase> {
    SqlRoster::open(database.clone()).unwrap()
}

fn ledger_on(database: &NativeDatabase) -> SqlLedger<NativeDatabase> {
    SqlLedger::open(database.clone()).unwrap()
}

fn execute(database: &NativeDatabase, sql: &str) {
    database.clone().execute(sql, vec![]).unwrap();
}

fn tables_of(database: &NativeDatabase) -> usize {
    database.query("SELECT name FROM sqlite_master", vec![]).unwrap().len()
}

#[test]
fn sqlite_keeps_the_contract_of_rosters() {
    roster::suite::run(|| roster_on(&database()));
}

#[test]
fn sqlite_keeps_the_contract_of_ledgers() {
    ledger::suite::run(|| ledger_on(&database()));
}

/// The first commit makes the tables, and fails with them; later ones fail at their rows.
#[test]
fn failed_commits_store_nothing() {
    let first = database();
    roster::suite::failed_commits_store_nothing(roster_on(&first), |is_broken| {
        assert_eq!((tables_of(&first), first.alarm()), (usize::from(!is_broken), None));
        let sql = if is_broken { "CREATE TABLE rooms (x)" } else { "DROP TABLE rooms" };
        execute(&first, sql);
    });
    let later = database();
    let mut roster = roster_on(&later);
    roster.commit(vec![RosterWrite::Room { shard: ShardId(1), members: 9 }]).unwrap();
    roster::suite::failed_commits_store_nothing(roster, |is_broken| {
        assert_eq!(later.alarm(), None);
        let [from, to] = if is_broken { ["rooms", "away"] } else { ["away", "rooms"] };
        execute(&later, &format!("ALTER TABLE {from} RENAME TO {to}"));
    });
    assert_eq!(later.alarm(), Some(UnixMillis(4_000_000_000_000)));

    let first = database();
    ledger::suite::failed_commits_store_nothing(ledger_on(&first), |is_broken| {
        let sql =
            if is_broken { "CREATE TABLE subscriptions (x)" } else { "DROP TABLE subscriptions" };
        execute(&first, sql);
    });
    let later = database();
    let mut ledger = ledger_on(&later);
    let absent = LedgerWrite::DropSubscription { generation: Generation(1), source: "p/a".into() };
    ledger.commit(vec![absent]).unwrap();
    ledger::suite::failed_commits_store_nothing(ledger, |is_broken| {
        assert_eq!(later.alarm(), None);
        let [from, to] =
            if is_broken { ["subscriptions", "away"] } else { ["away", "subscriptions"] };
        execute(&later, &format!("ALTER TABLE {from} RENAME TO {to}"));
    });
    assert_eq!(later.alarm(), Some(UnixMillis(4_000_000_000_000)));
}

#[test]
fn opening_and_reading_write_nothing() {
    let database = database();
    let mut roster = roster_on(&database);
    assert_eq!(roster.members().unwrap(), []);
    roster.commit(vec![]).unwrap();
    let mut ledger = ledger_on(&database);
    assert_eq!(ledger.session().unwrap(), None);
    ledger.commit(vec![]).unwrap();
    assert_eq!(tables_of(&database), 0);
}

#[test]
fn what_was_stored_is_there_after_waking() {
    let database = database();
    roster_on(&database).commit(roster::suite::writes_of_every_kind()).unwrap();
    ledger_on(&database).commit(ledger::suite::writes_of_every_kind()).unwrap();
    roster::suite::has_one_of_every_kind(&roster_on(&database));
    assert!(ledger_on(&database).session().unwrap().is_some());
    assert_eq!(ledger_on(&database).subscriptions().unwrap().len(), 1);
    assert_eq!(roster_on(&database).database().alarm(), Some(UnixMillis(4_000_000_000_000)));
}

/// Rows that no commit has stored are told, not guessed at.
#[test]
fn rows_that_do_not_decode_are_corrupt() {
    let database = database();
    roster_on(&database).commit(roster::suite::writes_of_every_kind()).unwrap();
    ledger_on(&database).commit(ledger::suite::writes_of_every_kind()).unwrap();
    let corrupt = |table: &str| {
        let what = format!("a row of table {table} does not decode");
        Some(LogError::Corrupt(what))
    };
    let damages = [
        "place = 4",
        "place = 1",
        "place = 2",
        "next = 5",
        "due = 5",
        "generation = -1",
        "place = 1, next = 1, attempts = 4294967296, due = 1",
    ];
    for damage in damages {
        execute(&database, &format!("UPDATE members SET {damage}"));
        assert_eq!(roster_on(&database).members().err(), corrupt("members"), "{damage}");
        execute(&database, "DELETE FROM members");
        roster_on(&database).commit(roster::suite::writes_of_every_kind()).unwrap();
    }
    execute(&database, "UPDATE source_lives SET state = 3");
    assert_eq!(roster_on(&database).lives().err(), corrupt("source_lives"));
    for damage in ["step = 3", "step = 1", "epoch = 1"] {
        execute(&database, &format!("UPDATE subscriptions SET {damage}"));
        assert_eq!(ledger_on(&database).subscriptions().err(), corrupt("subscriptions"));
        ledger_on(&database).commit(ledger::suite::writes_of_every_kind()).unwrap();
    }
    for damage in ["phase = 4", "envelope = 2"] {
        execute(&database, &format!("UPDATE session SET {damage}"));
        assert_eq!(ledger_on(&database).session().err(), corrupt("session"));
        ledger_on(&database).commit(ledger::suite::writes_of_every_kind()).unwrap();
    }
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..3_u64, Just((1 << 53) - 1)]
}

fn id() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{0,2}", any::<String>()]
}

fn due() -> impl Strategy<Value = UnixMillis> {
    number().prop_map(UnixMillis)
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        Just(Place::InStep),
        (number(), any::<u32>(), due()).prop_map(|(next, attempts, due)| Place::Own {
            next: Position(next),
            attempts,
            due
        }),
        (any::<bool>(), any::<u32>(), due())
            .prop_map(|(has_ended, attempts, due)| Place::Leaving { has_ended, attempts, due }),
    ]
}

fn life() -> impl Strategy<Value = LifeRow> {
    let states = [LifeState::Live, LifeState::Held, LifeState::Lapsed];
    let state = proptest::sample::select(states.to_vec());
    (number(), number(), number(), state, proptest::option::of(due()), any::<u32>()).prop_map(
        |(generation, cursor, up_to, state, due, attempts)| LifeRow {
            generation: Generation(generation),
            cursor: Position(cursor),
            up_to: Position(up_to),
            state,
            due,
            attempts,
        },
    )
}

fn member() -> impl Strategy<Value = MemberRow> {
    (id(), number(), number(), number(), place()).prop_map(
        |(session, source, generation, epoch, place)| MemberRow {
            session,
            source: Generation(source),
            generation: Generation(generation),
            epoch: SubscriptionEpoch(epoch),
            place,
        },
    )
}

fn roster_write() -> impl Strategy<Value = RosterWrite> {
    let open = (due(), number()).prop_map(|(until, pause_ms)| Open { until, pause_ms });
    let entry = (id(), number(), any::<u32>()).prop_map(|(session, epoch, shard)| Entry {
        session,
        epoch: SubscriptionEpoch(epoch),
        shard: ShardId(shard),
    });
    prop_oneof![
        2 => life().prop_map(RosterWrite::Life),
        1 => number().prop_map(|life| RosterWrite::DropLife(Generation(life))),
        4 => member().prop_map(RosterWrite::Member),
        2 => (number(), id()).prop_map(|(source, session)| RosterWrite::DropMember {
            source: Generation(source),
            session
        }),
        1 => proptest::option::of(open).prop_map(RosterWrite::Breaker),
        4 => entry.prop_map(RosterWrite::Entry),
        2 => id().prop_map(|session| RosterWrite::DropEntry { session }),
        1 => (0..4_u32, number())
            .prop_map(|(shard, members)| RosterWrite::Room { shard: ShardId(shard), members }),
        1 => due().prop_map(RosterWrite::Alarm),
    ]
}

fn session() -> impl Strategy<Value = SessionRow> {
    let phases = [Phase::None, Phase::Creating, Phase::Live, Phase::Ending];
    let phase = proptest::sample::select(phases.to_vec());
    let texts = (any::<String>(), any::<bool>());
    let ends = (proptest::option::of(due()), any::<u32>());
    (phase, number(), texts, number(), number(), ends).prop_map(
        |(phase, generation, (content_type, envelope), ttl_seconds, epoch, (due, attempts))| {
            let (generation, epoch) = (Generation(generation), SubscriptionEpoch(epoch));
            SessionRow {
                phase,
                generation,
                content_type,
                ttl_seconds,
                envelope,
                epoch,
                due,
                attempts,
            }
        },
    )
}

fn subscription() -> impl Strategy<Value = SubscriptionRow> {
    let epoch = || number().prop_map(SubscriptionEpoch);
    let step = prop_oneof![
        Just(Step::Settled),
        epoch().prop_map(Step::Joining),
        epoch().prop_map(Step::Leaving),
        epoch().prop_map(Step::Undoing)
    ];
    let live = proptest::option::of(epoch());
    let begun =
        (epoch(), epoch(), id()).prop_map(|(since, first, from)| Begun { since, first, from });
    let begun = proptest::option::of(begun);
    (number(), id(), live, step, begun, any::<u32>(), proptest::option::of(due())).prop_map(
        |(generation, source, live, step, begun, attempts, due)| {
            let generation = Generation(generation);
            SubscriptionRow { generation, source, live, step, begun, attempts, due }
        },
    )
}

fn ledger_write() -> impl Strategy<Value = LedgerWrite> {
    prop_oneof![
        2 => session().prop_map(LedgerWrite::Session),
        4 => subscription().prop_map(LedgerWrite::Subscription),
        2 => (number(), id()).prop_map(|(generation, source)| LedgerWrite::DropSubscription {
            generation: Generation(generation),
            source
        }),
        1 => due().prop_map(LedgerWrite::Alarm),
    ]
}

fn commits<W: Strategy>(write: W) -> impl Strategy<Value = Vec<Vec<W::Value>>> {
    let commit = proptest::collection::vec(write, 0..5);
    proptest::collection::vec(commit, 0..12)
}

proptest! {
    /// Each commit goes to a roster that has just woken up.
    #[test]
    fn rosters_are_alike(commits in commits(roster_write()), after in id(), limit in 0..4_u32) {
        let (database, mut memory) = (database(), MemoryRoster::default());
        for writes in commits {
            memory.commit(writes.clone()).unwrap();
            let mut sql = roster_on(&database);
            sql.commit(writes).unwrap();
            prop_assert_eq!(sql.lives(), memory.lives());
            prop_assert_eq!(sql.members(), memory.members());
            prop_assert_eq!(sql.breaker(), memory.breaker());
            prop_assert_eq!(sql.entry(&after), memory.entry(&after));
            prop_assert_eq!(sql.entries(&after, limit), memory.entries(&after, limit));
            prop_assert_eq!(sql.entries("", u32::MAX), memory.entries("", u32::MAX));
            prop_assert_eq!(sql.rooms(), memory.rooms());
            prop_assert_eq!(database.alarm(), memory.alarm);
        }
    }

    #[test]
    fn ledgers_are_alike(commits in commits(ledger_write())) {
        let (database, mut memory) = (database(), MemoryLedger::default());
        for writes in commits {
            memory.commit(writes.clone()).unwrap();
            let mut sql = ledger_on(&database);
            sql.commit(writes).unwrap();
            prop_assert_eq!(sql.session(), memory.session());
            prop_assert_eq!(sql.subscriptions(), memory.subscriptions());
            prop_assert_eq!(database.alarm(), memory.alarm);
        }
    }
}
