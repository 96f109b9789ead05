//! The contract of [`Roster`] as tests. Every implementation runs [`run`] on fresh rosters; those whose
//! commits can fail run [`failed_commits_store_nothing`] as well.
//!
//! Each case is a function from an empty roster to nothing, and fails by assertion.

#![allow(clippy::unwrap_used, reason = "a contract suite fails by panicking")]

use protocol::fanout::{LifeState, ShardId, SubscriptionEpoch};
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;

use super::{Entry, LifeRow, MemberRow, Place, Roster, RosterWrite};
use crate::fanout::breaker::Open;
use crate::log::LogError;

/// The largest number that every implementation stores exactly.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Ids in the order of their UTF-8, which is not that of UTF-16: one that is a prefix of others, one
/// with a NUL, one twice the same to the eye, and one that would end a statement.
const IDS: [&str; 10] = ["", "'; --", "A", "a", "a\0b", "a\0c", "e\u{301}", "é", "\u{ffff}", "😀"];

/// Runs every case, each on a roster of its own.
pub fn run<R: Roster>(mut fresh: impl FnMut() -> R) {
    empty_roster_knows_nothing(fresh());
    empty_commits_do_nothing(fresh());
    lives_round_trip(fresh());
    members_round_trip(fresh());
    members_come_by_life_and_session(fresh());
    the_breaker_round_trips(fresh());
    entries_are_read_by_page(fresh());
    rooms_come_ascending(fresh());
    rows_are_replaced_by_key(fresh());
    rows_are_dropped_by_key(fresh());
    writes_of_a_commit_are_stored_in_order(fresh());
    many_writes_are_one_commit(fresh());
}

/// A commit that fails on the way stores nothing, and can be made again.
///
/// `breaks(true)` makes the storage refuse the last of [`writes_of_every_kind`], `breaks(false)` mends
/// it. The roster has no rows but those of the table `rooms`.
pub fn failed_commits_store_nothing<R: Roster>(mut roster: R, mut breaks: impl FnMut(bool)) {
    breaks(true);
    for _ in 0..2 {
        let failed = roster.commit(writes_of_every_kind());
        assert!(matches!(failed, Err(LogError::Failed(_))), "{failed:?}");
    }
    breaks(false);
    assert_eq!(roster.lives().unwrap(), []);
    assert_eq!(roster.members().unwrap(), []);
    assert_eq!(roster.breaker().unwrap(), None);
    assert_eq!(roster.entries("", 9).unwrap(), []);
    roster.commit(writes_of_every_kind()).unwrap();
    has_one_of_every_kind(&roster);
}

/// One row of every kind; the last one belongs into the table `rooms`.
#[must_use]
pub fn writes_of_every_kind() -> Vec<RosterWrite> {
    vec![
        RosterWrite::Alarm(UnixMillis(4_000_000_000_000)),
        RosterWrite::Life(life(1)),
        RosterWrite::Member(member(1, "s")),
        RosterWrite::Breaker(Some(Open { until: UnixMillis(5), pause_ms: 2_000 })),
        RosterWrite::Entry(entry("s", 1)),
        RosterWrite::Room { shard: ShardId(1), members: 1 },
    ]
}

/// Whether what [`writes_of_every_kind`] stores is there, and nothing else.
pub fn has_one_of_every_kind<R: Roster>(roster: &R) {
    assert_eq!(roster.lives().unwrap(), [life(1)]);
    assert_eq!(roster.members().unwrap(), [member(1, "s")]);
    let open = Open { until: UnixMillis(5), pause_ms: 2_000 };
    assert_eq!(roster.breaker().unwrap(), Some(open));
    assert_eq!(roster.entries("", 9).unwrap(), [entry("s", 1)]);
    assert_eq!(roster.rooms().unwrap(), [(ShardId(1), 1)]);
}

fn life(generation: u64) -> LifeRow {
    LifeRow {
        generation: Generation(generation),
        cursor: Position(10),
        up_to: Position(20),
        state: LifeState::Live,
        due: None,
        attempts: 0,
    }
}

fn member(source: u64, session: &str) -> MemberRow {
    MemberRow {
        session: session.to_owned(),
        source: Generation(source),
        generation: Generation(7),
        epoch: SubscriptionEpoch(9),
        place: Place::InStep,
    }
}

fn entry(session: &str, shard: u32) -> Entry {
    Entry { session: session.to_owned(), epoch: SubscriptionEpoch(9), shard: ShardId(shard) }
}

fn sessions(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.session.as_str()).collect()
}

fn empty_roster_knows_nothing<R: Roster>(roster: R) {
    assert_eq!(roster.lives().unwrap(), []);
    assert_eq!(roster.members().unwrap(), []);
    assert_eq!(roster.breaker().unwrap(), None);
    assert_eq!(roster.entry("s").unwrap(), None);
    assert_eq!(roster.entries("", 9).unwrap(), []);
    assert_eq!(roster.rooms().unwrap(), []);
}

fn empty_commits_do_nothing<R: Roster>(mut roster: R) {
    roster.commit(vec![]).unwrap();
    assert_eq!(roster.lives().unwrap(), []);
    roster.commit(writes_of_every_kind()).unwrap();
    roster.commit(vec![]).unwrap();
    has_one_of_every_kind(&roster);
}

fn lives_round_trip<R: Roster>(mut roster: R) {
    let all = [
        LifeRow {
            generation: Generation(0),
            cursor: Position(0),
            up_to: Position(0),
            due: Some(UnixMillis(0)),
            ..life(0)
        },
        LifeRow { state: LifeState::Held, attempts: 3, ..life(5) },
        LifeRow {
            generation: Generation(NUMBER_MAX),
            cursor: Position(NUMBER_MAX),
            up_to: Position(NUMBER_MAX),
            state: LifeState::Lapsed,
            due: Some(UnixMillis(NUMBER_MAX)),
            attempts: u32::MAX,
        },
    ];
    // Backwards: they come ascending all the same.
    for row in all.iter().rev() {
        roster.commit(vec![RosterWrite::Life(*row)]).unwrap();
    }
    assert_eq!(roster.lives().unwrap(), all);
}

fn members_round_trip<R: Roster>(mut roster: R) {
    let (low, high) = (UnixMillis(0), UnixMillis(NUMBER_MAX));
    let places = [
        Place::InStep,
        Place::Own { next: Position(0), attempts: 0, due: low },
        Place::Own { next: Position(NUMBER_MAX), attempts: u32::MAX, due: high },
        Place::Leaving { has_ended: false, attempts: 0, due: low },
        Place::Leaving { has_ended: true, attempts: u32::MAX, due: high },
    ];
    let numbers = [0, 1, NUMBER_MAX];
    let rows: Vec<_> = numbers
        .into_iter()
        .flat_map(|number| places.into_iter().zip('a'..).map(move |place| (number, place)))
        .map(|(number, (place, id))| MemberRow {
            session: id.to_string(),
            source: Generation(number),
            generation: Generation(number),
            epoch: SubscriptionEpoch(number),
            place,
        })
        .collect();
    for row in &rows {
        roster.commit(vec![RosterWrite::Member(row.clone())]).unwrap();
    }
    assert_eq!(roster.members().unwrap(), rows);
    // Each place follows each: nothing of the one before is left.
    for before in places {
        for place in places {
            let row = |place| RosterWrite::Member(MemberRow { place, ..member(0, "a") });
            roster.commit(vec![row(before), row(place)]).unwrap();
            assert_eq!(roster.members().unwrap().first().unwrap().place, place);
        }
    }
}

fn members_come_by_life_and_session<R: Roster>(mut roster: R) {
    let writes =
        |source| IDS.into_iter().rev().map(move |id| RosterWrite::Member(member(source, id)));
    roster.commit(writes(10).chain(writes(9)).collect()).unwrap();
    let wanted: Vec<_> =
        [9, 10].into_iter().flat_map(|source| IDS.map(|id| member(source, id))).collect();
    assert_eq!(roster.members().unwrap(), wanted);
}

fn the_breaker_round_trips<R: Roster>(mut roster: R) {
    let mut store = |open| {
        roster.commit(vec![RosterWrite::Breaker(open)]).unwrap();
        assert_eq!(roster.breaker().unwrap(), open);
    };
    store(None);
    store(Some(Open { until: UnixMillis(NUMBER_MAX), pause_ms: NUMBER_MAX }));
    store(Some(Open { until: UnixMillis(0), pause_ms: 0 }));
    store(None);
    store(None);
}

fn entries_are_read_by_page<R: Roster>(mut roster: R) {
    let writes = IDS.into_iter().rev().map(|id| RosterWrite::Entry(entry(id, 1)));
    roster.commit(writes.collect()).unwrap();
    for id in IDS {
        assert_eq!(roster.entry(id).unwrap(), Some(entry(id, 1)), "{id:?}");
    }
    assert_eq!(roster.entry("b").unwrap(), None);
    // Whatever the size of a page, all of them together are all entries.
    for limit in 1..=11 {
        let (mut seen, mut after) = (vec![String::new()], String::new());
        loop {
            let page = roster.entries(&after, limit).unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.len() <= limit as usize);
            after.clone_from(&last.session);
            seen.extend(page.into_iter().map(|entry| entry.session));
        }
        assert_eq!(seen, IDS, "pages of {limit}");
    }
    assert_eq!(roster.entries("", 0).unwrap(), []);
    assert_eq!(roster.entries("", u32::MAX).unwrap().len(), IDS.len() - 1);
    // Behind an id that is not there.
    assert_eq!(sessions(&roster.entries("a\0bb", 2).unwrap()), ["a\0c", "e\u{301}"]);
    assert_eq!(roster.entries("😀", 9).unwrap(), []);
    let extremes = [
        Entry {
            session: "a".into(),
            epoch: SubscriptionEpoch(NUMBER_MAX),
            shard: ShardId(u32::MAX),
        },
        Entry { session: "a".into(), epoch: SubscriptionEpoch(0), shard: ShardId(0) },
    ];
    for stored in extremes {
        roster.commit(vec![RosterWrite::Entry(stored.clone())]).unwrap();
        assert_eq!(roster.entry("a").unwrap(), Some(stored));
    }
}

fn rooms_come_ascending<R: Roster>(mut roster: R) {
    let rooms = [(0, 0), (2, NUMBER_MAX), (10, 1), (u32::MAX, 7)];
    let writes = rooms.into_iter().rev();
    let writes =
        writes.map(|(shard, members)| RosterWrite::Room { shard: ShardId(shard), members });
    roster.commit(writes.collect()).unwrap();
    assert_eq!(roster.rooms().unwrap(), rooms.map(|(shard, members)| (ShardId(shard), members)));
}

fn rows_are_replaced_by_key<R: Roster>(mut roster: R) {
    roster.commit(writes_of_every_kind()).unwrap();
    let newer = LifeRow { cursor: Position(20), due: Some(UnixMillis(1)), ..life(1) };
    let moved = MemberRow {
        generation: Generation(8),
        epoch: SubscriptionEpoch(10),
        place: Place::Own { next: Position(3), attempts: 1, due: UnixMillis(4) },
        ..member(1, "s")
    };
    let other = Entry { epoch: SubscriptionEpoch(10), ..entry("s", 2) };
    roster.commit(vec![RosterWrite::Life(newer)]).unwrap();
    roster
        .commit(vec![
            RosterWrite::Member(moved.clone()),
            RosterWrite::Entry(other.clone()),
            RosterWrite::Room { shard: ShardId(1), members: 0 },
        ])
        .unwrap();
    assert_eq!(roster.lives().unwrap(), [newer]);
    assert_eq!(roster.members().unwrap(), [moved]);
    assert_eq!(roster.entries("", 9).unwrap(), [other]);
    assert_eq!(roster.rooms().unwrap(), [(ShardId(1), 0)]);
}

fn rows_are_dropped_by_key<R: Roster>(mut roster: R) {
    let drop_member = |source, session: &str| RosterWrite::DropMember {
        source: Generation(source),
        session: session.to_owned(),
    };
    let drop_entry = |session: &str| RosterWrite::DropEntry { session: session.to_owned() };
    // On a roster without a row, and then beside rows with other keys.
    let absent = || {
        vec![
            RosterWrite::DropLife(Generation(2)),
            drop_member(2, "s"),
            drop_member(1, "S"),
            drop_entry("S"),
        ]
    };
    roster.commit(absent()).unwrap();
    roster.commit(writes_of_every_kind()).unwrap();
    for write in absent() {
        roster.commit(vec![write]).unwrap();
    }
    has_one_of_every_kind(&roster);
    // A life goes without its members: dropping them is the object's business.
    roster.commit(vec![RosterWrite::DropLife(Generation(1))]).unwrap();
    assert_eq!(roster.lives().unwrap(), []);
    assert_eq!(roster.members().unwrap(), [member(1, "s")]);
    roster.commit(vec![RosterWrite::Member(member(2, "s")), drop_member(1, "s")]).unwrap();
    assert_eq!(roster.members().unwrap(), [member(2, "s")]);
    roster.commit(vec![drop_entry("s"), drop_entry("s")]).unwrap();
    assert_eq!(roster.entries("", 9).unwrap(), []);
    assert_eq!(roster.rooms().unwrap(), [(ShardId(1), 1)]);
}

fn writes_of_a_commit_are_stored_in_order<R: Roster>(mut roster: R) {
    let drop = || RosterWrite::DropLife(Generation(1));
    roster.commit(vec![RosterWrite::Life(life(1)), drop()]).unwrap();
    assert_eq!(roster.lives().unwrap(), []);
    let newer = LifeRow { cursor: Position(11), ..life(1) };
    roster.commit(vec![drop(), RosterWrite::Life(life(1)), RosterWrite::Life(newer)]).unwrap();
    assert_eq!(roster.lives().unwrap(), [newer]);
}

fn many_writes_are_one_commit<R: Roster>(mut roster: R) {
    let rows: Vec<_> = (0..1_000).map(|n| member(1, &format!("s{n:04}"))).collect();
    roster.commit(rows.iter().cloned().map(RosterWrite::Member).collect()).unwrap();
    assert_eq!(roster.members().unwrap(), rows);
}
