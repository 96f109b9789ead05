//! The contract of [`Log`] as tests. Every implementation runs [`run`] on fresh logs.
//!
//! Each case is a function from an empty log to nothing, and fails by assertion.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a contract suite fails by panicking"
)]

use std::ops::Range;

use protocol::content_type::ContentType;
use protocol::fanout::{ShardId, SourceLife, SubscriptionEpoch};
use protocol::headers::StreamSeq;
use protocol::lifetime::Lifetime;
use protocol::limits::ROW_BYTES_MAX;
use protocol::offset::{Generation, Offset, Position};
use protocol::producer::{Epoch, Producer, ProducerId, Seq};
use protocol::time::UnixMillis;

use super::{
    Blob, Counts, Duty, ForkId, ForkRow, Framing, Intent, Key, LinkState, Log, LogError, Marker,
    ProducerState, Release, RotationRow, SegmentRow, Write,
};
use crate::life::{Closed, Inherited, Life, Origin, Phase, SessionKind, Tombstone};

/// Runs every case, each on a log of its own.
pub fn run<L: Log>(mut fresh: impl FnMut() -> L) {
    empty_log_knows_nothing(fresh());
    lives_round_trip(fresh());
    lives_come_newest_first(fresh());
    extents_are_read_by_range(fresh());
    every_range_reads_its_bytes(fresh());
    json_ranges_become_arrays(fresh());
    gaps_are_corruption(fresh());
    large_ranges_read_whole(fresh());
    any_byte_survives(fresh());
    erasing_is_bounded_and_idempotent(fresh());
    sealed_extents_are_read_like_others(fresh());
    sealed_extents_are_erased_like_others(fresh());
    producers_belong_to_lives(fresh());
    links_belong_to_lives(fresh());
    shards_belong_to_lives(fresh());
    relations_round_trip(fresh());
    segments_are_read_by_range(fresh());
    rotations_round_trip(fresh());
    markers_come_by_due(fresh());
    rows_of_a_life_are_counted(fresh());
    duties_round_trip(fresh());
    a_key_is_written_once_more(fresh());
}

fn life(generation: u64) -> Life {
    Life {
        generation: Generation(generation),
        base: Key(generation * 1_000),
        phase: Phase::Live,
        content_type: ContentType::parse("text/plain; charset=utf-8").unwrap(),
        lifetime: Lifetime::Unlimited,
        public: false,
        session: None,
        touched: UnixMillis(1_700_000_000_000),
        checkpoint: Position(0),
        hot_ends: 0,
        seq: None,
        closed: Closed::No,
        origin: None,
    }
}

fn producer_id(id: &str) -> ProducerId {
    ProducerId::parse(id).unwrap()
}

fn extent<B: Blob>(key: u64, bytes: &[u8]) -> Write<B> {
    Write::Extent { key: Key(key), head: vec![7, key as u8], bytes: B::from_vec(bytes.to_vec()) }
}

fn keys(range: Range<u64>) -> Range<Key> {
    Key(range.start)..Key(range.end)
}

fn read<L: Log>(log: &L, range: Range<u64>) -> Vec<u8> {
    log.read(keys(range), Framing::Raw).unwrap().to_vec()
}

fn empty_log_knows_nothing<L: Log>(log: L) {
    assert_eq!(log.tombstone().unwrap(), None);
    assert_eq!(log.lives(9).unwrap(), []);
    assert_eq!(log.extents(keys(0..9), 9).unwrap(), []);
    assert_eq!(log.last_extent(keys(0..9)).unwrap(), None);
    assert_eq!(log.segments(keys(0..9), 9).unwrap(), []);
    assert_eq!(log.last_segment(keys(0..9)).unwrap(), None);
    assert_eq!(log.segment_names(keys(0..9), 9).unwrap(), []);
    assert_eq!(log.rotation(Generation(1)).unwrap(), None);
    assert_eq!(log.markers(9).unwrap(), []);
    assert_eq!(log.producer(Generation(1), &producer_id("p")).unwrap(), None);
    assert!(!log.has_producers(Generation(1)).unwrap());
    assert_eq!(log.link(Generation(1), &link("p/s", 1)).unwrap(), None);
    assert!(!log.has_links(Generation(1)).unwrap());
    assert_eq!(log.life(Generation(1)).unwrap(), None);
    assert_eq!(log.shards(9).unwrap(), []);
    assert_eq!(log.fork(&ForkId { child: "c".into(), generation: Generation(1) }).unwrap(), None);
    assert_eq!(log.forks_of(Generation(1), 9).unwrap(), 0);
    assert_eq!(log.counts(Generation(1), keys(0..9), 9).unwrap(), Counts::default());
    assert_eq!(log.highest_fork(Generation(1)).unwrap(), None);
    assert_eq!(log.releases(9).unwrap(), []);
    assert_eq!(log.duties().unwrap(), []);
    assert!(log.read(keys(5..5), Framing::Raw).unwrap().is_empty());
}

fn lives_round_trip<L: Log>(mut log: L) {
    let producer = Producer { id: producer_id("p"), epoch: Epoch(1), seq: Seq((1 << 53) - 1) };
    let origin = Origin {
        source: "_default/söurce".into(),
        source_generation: Generation(3),
        at: Position(10),
        requested: Some(Offset { generation: Generation(3), position: Position(9) }),
        sub_offset: 1,
        lineage: vec![Inherited { generation: Generation(3), end: Position(10) }],
    };
    let full = Life {
        lifetime: Lifetime::Ttl { seconds: 0 },
        checkpoint: Position(99),
        hot_ends: 70_000,
        seq: Some(StreamSeq::parse("0042").unwrap()),
        closed: Closed::By(Some(producer)),
        origin: Some(origin),
        phase: Phase::SoftDeleted,
        ..life(4)
    };
    let expiring =
        Life { lifetime: Lifetime::ExpiresAt { at: UnixMillis(1_800_000_000_001) }, ..life(5) };
    let public = Life { public: true, ..life(6) };
    let session = Life { session: Some(SessionKind::Plain), ..life(7) };
    let wraps = Life { public: true, session: Some(SessionKind::Envelope), ..life(8) };
    let held = Life { public: true, ..full.clone() };
    for stored in [life(3), full, held, expiring, public, session, wraps] {
        log.commit(vec![Write::Life(stored.clone())]).unwrap();
        assert_eq!(log.life(stored.generation).unwrap(), Some(stored.clone()));
        assert_eq!(log.lives(1).unwrap(), [stored]);
    }
    let tombstone = Tombstone { generation: Generation(5), next_base: Key((1 << 53) - 1) };
    log.commit(vec![Write::Tombstone(tombstone)]).unwrap();
    assert_eq!(log.tombstone().unwrap(), Some(tombstone));
}

fn lives_come_newest_first<L: Log>(mut log: L) {
    log.commit(vec![Write::Life(life(2)), Write::Life(life(9)), Write::Life(life(5))]).unwrap();
    let generations =
        |lives: Vec<Life>| lives.iter().map(|life| life.generation.0).collect::<Vec<_>>();
    assert_eq!(generations(log.lives(2).unwrap()), [9, 5]);
    log.commit(vec![Write::DropLife(Generation(9)), Write::DropLife(Generation(9))]).unwrap();
    assert_eq!(generations(log.lives(5).unwrap()), [5, 2]);
}

fn extents_are_read_by_range<L: Log>(mut log: L) {
    log.commit(vec![extent(10, b"abc"), extent(13, b"de"), extent(15, b"")]).unwrap();
    let rows = log.extents(keys(10..15), 9).unwrap();
    assert_eq!(
        rows.iter().map(|row| (row.key.0, row.length)).collect::<Vec<_>>(),
        [(10, 3), (13, 2)]
    );
    assert_eq!(rows[1].head, [7, 13]);
    assert_eq!(log.extents(keys(0..99), 2).unwrap().len(), 2);
    assert_eq!(log.extents(keys(11..13), 9).unwrap(), []);
    let last = log.last_extent(keys(0..99)).unwrap().unwrap();
    assert_eq!((last.key, last.length), (Key(15), 0));
    assert_eq!(log.last_extent(keys(0..15)).unwrap().unwrap().end(), Key(15));
    assert_eq!(log.last_extent(keys(0..10)).unwrap(), None);
}

fn every_range_reads_its_bytes<L: Log>(mut log: L) {
    let whole = b"the quick brown fox";
    let parts = [(100, 0..4), (104, 4..5), (105, 5..16), (116, 16..19)];
    log.commit(parts.into_iter().map(|(key, range)| extent(key, &whole[range])).collect()).unwrap();
    for from in 0..=whole.len() {
        for to in from..=whole.len() {
            let range = 100 + from as u64..100 + to as u64;
            assert_eq!(read(&log, range), &whole[from..to], "{from}..{to}");
        }
    }
}

fn json_ranges_become_arrays<L: Log>(mut log: L) {
    log.commit(vec![extent(0, b"1,\n{},\n"), extent(7, b"\"x\",\n")]).unwrap();
    let array = |range| log.read(keys(range), Framing::JsonArray).unwrap().to_vec();
    assert_eq!(array(0..12), b"[1,\n{},\n\"x\"]");
    assert_eq!(array(3..7), b"[{}]");
    assert_eq!(array(7..12), b"[\"x\"]");
}

fn gaps_are_corruption<L: Log>(mut log: L) {
    log.commit(vec![extent(10, b"abc"), extent(14, b"de")]).unwrap();
    for range in [9..11, 10..15, 12..15, 15..17, 20..21] {
        let outcome = log.read(keys(range.clone()), Framing::Raw);
        assert!(matches!(outcome, Err(LogError::Corrupt(_))), "{range:?}");
    }
}

fn large_ranges_read_whole<L: Log>(mut log: L) {
    let row: Vec<u8> = (0..ROW_BYTES_MAX).map(|at| (at % 251) as u8).collect();
    let rows = 9;
    for at in 0..rows {
        log.commit(vec![extent(at * ROW_BYTES_MAX, &row)]).unwrap();
    }
    assert_eq!(read(&log, ROW_BYTES_MAX..2 * ROW_BYTES_MAX), row);
    for framing in [Framing::Raw, Framing::JsonArray] {
        let bytes = log.read(keys(1..rows * ROW_BYTES_MAX - 1), framing).unwrap().to_vec();
        assert_eq!(bytes.len() as u64, rows * ROW_BYTES_MAX - 2);
        let shift = usize::from(framing == Framing::Raw);
        assert_eq!(bytes[5], row[5 + shift]);
        assert_eq!(bytes[ROW_BYTES_MAX as usize + 5], row[5 + shift]);
    }
}

fn any_byte_survives<L: Log>(mut log: L) {
    let all: Vec<u8> = (0..=255).collect();
    log.commit(vec![extent(0, &all), extent(256, &all)]).unwrap();
    assert_eq!(read(&log, 0..512), [all.as_slice(), &all].concat());
    assert_eq!(read(&log, 1..500), [&all[1..], &all[..244]].concat());
}

fn erasing_is_bounded_and_idempotent<L: Log>(mut log: L) {
    log.commit((0..6).map(|at| extent(at * 2, b"ab")).collect()).unwrap();
    let erase = || vec![Write::EraseExtents { keys: keys(2..10), rows: 3 }];
    let left = |log: &L| {
        log.extents(keys(0..99), 9).unwrap().iter().map(|row| row.key.0).collect::<Vec<_>>()
    };
    log.commit(erase()).unwrap();
    assert_eq!(left(&log), [0, 8, 10]);
    log.commit(erase()).unwrap();
    log.commit(erase()).unwrap();
    assert_eq!(left(&log), [0, 10]);
}

fn producers_belong_to_lives<L: Log>(mut log: L) {
    let state = |seq| ProducerState { epoch: Epoch(2), seq: Seq(seq) };
    let write = |generation, id: &str, seq| Write::Producer {
        generation: Generation(generation),
        id: producer_id(id),
        state: state(seq),
        as_of: Position(5),
    };
    log.commit(vec![write(1, "a", 1), write(1, "b", 2), write(2, "a", 3), write(1, "a", 4)])
        .unwrap();
    assert_eq!(log.producer(Generation(1), &producer_id("a")).unwrap(), Some(state(4)));
    assert_eq!(log.producer(Generation(2), &producer_id("a")).unwrap(), Some(state(3)));
    assert_eq!(log.producer(Generation(2), &producer_id("b")).unwrap(), None);
    log.commit(vec![Write::EraseProducers { generation: Generation(1), rows: 1 }]).unwrap();
    assert!(log.has_producers(Generation(1)).unwrap());
    log.commit(vec![Write::EraseProducers { generation: Generation(1), rows: 9 }]).unwrap();
    assert!(!log.has_producers(Generation(1)).unwrap());
    assert!(log.has_producers(Generation(2)).unwrap());
}

fn link(source: &str, generation: u64) -> SourceLife {
    SourceLife { source: source.into(), generation: Generation(generation) }
}

fn links_belong_to_lives<L: Log>(mut log: L) {
    let state = |epoch, next: Option<u64>| LinkState {
        epoch: SubscriptionEpoch(epoch),
        next: next.map(Position),
    };
    let put = |life, link, state| {
        let (life, as_of) = (Generation(life), Position(5));
        Write::Link { life, link, state, as_of }
    };
    let drop = |source: &str, generation: Option<u64>, up_to| Write::DropLinks {
        life: Generation(1),
        source: source.into(),
        generation: generation.map(Generation),
        from: SubscriptionEpoch(1),
        up_to: SubscriptionEpoch(up_to),
    };
    let known = |log: &L, life, link| log.link(Generation(life), &link).unwrap();
    log.commit(vec![
        put(1, link("p/ä", 3), state(7, Some(0))),
        put(1, link("p/ä", 4), state(8, Some(1 << 52))),
        put(1, link("p/ä", 0), state(9, None)),
        put(1, link("p/b", 3), state(7, Some(9))),
        put(2, link("p/ä", 3), state(1, Some(2))),
        put(1, link("p/b", 3), state(7, Some(10))),
    ])
    .unwrap();
    assert_eq!(known(&log, 1, link("p/b", 3)), Some(state(7, Some(10))));
    log.commit(vec![drop("p/ä", Some(3), 6)]).unwrap();
    assert_eq!(known(&log, 1, link("p/ä", 3)), Some(state(7, Some(0))), "a later epoch stays");
    log.commit(vec![drop("p/ä", Some(3), 9)]).unwrap();
    assert_eq!(known(&log, 1, link("p/ä", 3)), None);
    assert_eq!(known(&log, 1, link("p/ä", 4)), Some(state(8, Some(1 << 52))));
    log.commit(vec![drop("p/ä", None, 99)]).unwrap();
    assert_eq!(known(&log, 1, link("p/ä", 4)), None);
    assert_eq!(known(&log, 1, link("p/ä", 0)), Some(state(9, None)), "floors stay");
    assert_eq!(known(&log, 2, link("p/ä", 3)), Some(state(1, Some(2))));
    let erase = |rows| vec![Write::EraseLinks { life: Generation(1), rows }];
    log.commit(erase(1)).unwrap();
    assert!(log.has_links(Generation(1)).unwrap());
    log.commit(erase(9)).unwrap();
    assert!(!log.has_links(Generation(1)).unwrap());
    assert!(log.has_links(Generation(2)).unwrap());
}

fn shards_belong_to_lives<L: Log>(mut log: L) {
    let key = |generation, shard| (Generation(generation), ShardId(shard));
    let put = |(generation, shard)| Write::Shard { generation, shard };
    let drop = |(generation, shard)| Write::DropShard { generation, shard };
    let all = [key(1, 0), key(1, 499), key(2, 0), key(3, u32::MAX)];
    log.commit(all.iter().rev().copied().map(put).collect()).unwrap();
    log.commit(vec![put(key(2, 0))]).unwrap();
    assert_eq!(log.shards(9).unwrap(), all);
    assert_eq!(log.shards(2).unwrap(), all[..2]);
    for _ in 0..2 {
        log.commit(vec![drop(key(1, 0)), drop(key(3, 7))]).unwrap();
        assert_eq!(log.shards(9).unwrap(), all[1..]);
    }
}

fn relations_round_trip<L: Log>(mut log: L) {
    let id = |child: &str| ForkId { child: child.into(), generation: Generation(7) };
    let referenced = ForkRow::Referenced { source: Generation(3), at: Position(0) };
    let farther = ForkRow::Referenced { source: Generation(3), at: Position(1 << 40) };
    log.commit(vec![
        Write::Fork(id("a"), referenced.clone()),
        Write::Fork(id("b"), ForkRow::Refused),
        Write::Fork(id("c"), farther),
    ])
    .unwrap();
    assert_eq!(log.fork(&id("a")).unwrap(), Some(referenced));
    assert_eq!(log.fork(&id("b")).unwrap(), Some(ForkRow::Refused));
    assert_eq!(log.forks_of(Generation(3), 9).unwrap(), 2);
    assert_eq!(log.forks_of(Generation(3), 1).unwrap(), 1);
    assert_eq!(log.highest_fork(Generation(3)).unwrap(), Some(Position(1 << 40)));
    assert_eq!(log.highest_fork(Generation(7)).unwrap(), None);
    log.commit(vec![Write::DropFork(id("a")), Write::DropFork(id("a"))]).unwrap();
    assert_eq!(log.forks_of(Generation(3), 9).unwrap(), 1);
    let release = |generation, attempts| Release {
        generation: Generation(generation),
        source: "_default/s".into(),
        attempts,
    };
    log.commit(vec![
        Write::Release(release(8, 0)),
        Write::Release(release(7, 0)),
        Write::Release(release(8, 3)),
    ])
    .unwrap();
    assert_eq!(log.releases(9).unwrap(), [release(7, 0), release(8, 3)]);
    assert_eq!(log.releases(1).unwrap(), [release(7, 0)]);
    log.commit(vec![Write::DropRelease(Generation(7))]).unwrap();
    assert_eq!(log.releases(9).unwrap(), [release(8, 3)]);
}

fn rows_of_a_life_are_counted<L: Log>(mut log: L) {
    let producer = |generation, id: &str| Write::Producer {
        generation: Generation(generation),
        id: producer_id(id),
        state: ProducerState { epoch: Epoch(0), seq: Seq(0) },
        as_of: Position(0),
    };
    let fork = |child: &str, row| {
        Write::Fork(ForkId { child: child.into(), generation: Generation(9) }, row)
    };
    let of = |source| ForkRow::Referenced { source: Generation(source), at: Position(0) };
    log.commit(vec![
        Write::Segment(segment(0, 300, true)),
        extent(300, b"abc"),
        extent(303, b"d"),
        producer(1, "a"),
        producer(1, "b"),
        producer(2, "a"),
        fork("a", of(1)),
        fork("b", of(2)),
        fork("c", ForkRow::Refused),
    ])
    .unwrap();
    let counted = Counts { extents: 2, segments: 1, producers: 2, forks: 1 };
    assert_eq!(log.counts(Generation(1), keys(0..999), 9).unwrap(), counted);
    // What is kept apart counts like the rest.
    log.commit(vec![Write::Seal, extent(304, b"e"), extent(400, b"")]).unwrap();
    let counted = Counts { extents: 2, segments: 0, producers: 1, forks: 1 };
    assert_eq!(log.counts(Generation(2), keys(303..400), 9).unwrap(), counted);
    let counted = Counts { extents: 1, segments: 1, producers: 1, forks: 1 };
    assert_eq!(log.counts(Generation(1), keys(0..999), 1).unwrap(), counted);
}

fn duties_round_trip<L: Log>(mut log: L) {
    let writes = Duty::ALL.iter().map(|duty| Write::Duty(*duty, UnixMillis(5))).collect();
    log.commit(writes).unwrap();
    log.commit(vec![
        Write::Duty(Duty::Erase, UnixMillis(9)),
        Write::DropDuty(Duty::Expire),
        Write::Alarm(UnixMillis(4_000_000_000_000)),
    ])
    .unwrap();
    let mut duties = log.duties().unwrap();
    duties.sort_unstable();
    let fives = [Duty::Fork, Duty::Release, Duty::Rotate, Duty::Sweep, Duty::Fanout];
    let mut expected = vec![(Duty::Erase, UnixMillis(9))];
    expected.extend(fives.map(|duty| (duty, UnixMillis(5))));
    assert_eq!(duties, expected);
}

fn a_key_is_written_once_more<L: Log>(mut log: L) {
    log.commit(vec![extent(0, b"old")]).unwrap();
    log.commit(vec![extent(0, b"new")]).unwrap();
    assert_eq!(read(&log, 0..3), b"new");
    assert_eq!(log.extents(keys(0..9), 9).unwrap().len(), 1);
}

fn segment(key: u64, length: u64, own: bool) -> SegmentRow {
    SegmentRow {
        key: Key(key),
        length,
        name: format!("_default/söme path//{key:016}"),
        own,
        size: length + 7,
        sums: vec![0, u32::MAX, 0x8000_0001],
        ends: vec![1, 200, length],
    }
}

fn segments_are_read_by_range<L: Log>(mut log: L) {
    let rows = [segment(0, 300, true), segment(300, 1_000, false), segment(1_300, 400, true)];
    log.commit(rows.iter().cloned().map(Write::Segment).collect()).unwrap();
    assert_eq!(log.segments(keys(0..9_999), 9).unwrap(), rows);
    assert_eq!(log.segments(keys(0..9_999), 2).unwrap(), rows[..2]);
    assert_eq!(log.segments(keys(1..1_300), 9).unwrap(), rows[1..2]);
    assert_eq!(log.last_segment(keys(0..1_300)).unwrap(), Some(rows[1].clone()));
    assert_eq!(log.last_segment(keys(1..300)).unwrap(), None);
    let names = log.segment_names(keys(0..1_000), 9).unwrap();
    assert_eq!(names, [(rows[0].name.clone(), true), (rows[1].name.clone(), false)]);
    for left in [1, 0] {
        log.commit(vec![Write::EraseSegments { keys: keys(0..1_300), rows: 1 }]).unwrap();
        assert_eq!(log.segments(keys(0..1_300), 9).unwrap().len(), left);
    }
    assert_eq!(log.segments(keys(0..9_999), 9).unwrap(), rows[2..]);
    // Extents and segments do not know of each other.
    log.commit(vec![extent(1_300, b"abc")]).unwrap();
    log.commit(vec![Write::EraseExtents { keys: keys(0..9_999), rows: u32::MAX }]).unwrap();
    assert_eq!(log.extents(keys(0..9_999), 9).unwrap(), []);
    assert_eq!(log.segments(keys(0..9_999), 9).unwrap().len(), 1);
}

fn rotations_round_trip<L: Log>(mut log: L) {
    let intent = Intent { name: "p/x//1".into(), from: Position(0), to: Position(1 << 52) };
    let open = RotationRow { generation: Generation(3), attempt: 1, intent: Some(intent) };
    let idle = RotationRow { attempt: 2, intent: None, ..open.clone() };
    for row in [open, idle] {
        log.commit(vec![Write::Rotation(row.clone())]).unwrap();
        assert_eq!(log.rotation(Generation(3)).unwrap(), Some(row));
        assert_eq!(log.rotation(Generation(4)).unwrap(), None);
    }
    for _ in 0..2 {
        log.commit(vec![Write::DropRotation(Generation(3))]).unwrap();
        assert_eq!(log.rotation(Generation(3)).unwrap(), None);
    }
}

fn markers_come_by_due<L: Log>(mut log: L) {
    let marker = |due, name: &str, attempts| Marker {
        due: UnixMillis(due),
        name: name.to_owned(),
        attempts,
    };
    let (a, b, c) = (marker(5, "z", 0), marker(7, "ä", 1), marker(7, "b", 2));
    log.commit([&b, &a, &c].map(|marker| Write::Marker(marker.clone())).to_vec()).unwrap();
    assert_eq!(log.markers(9).unwrap(), [a.clone(), c.clone(), b.clone()]);
    assert_eq!(log.markers(1).unwrap(), std::slice::from_ref(&a));
    log.commit(vec![Write::Marker(marker(7, "b", 9))]).unwrap();
    assert_eq!(log.markers(9).unwrap()[1].attempts, 9);
    for _ in 0..2 {
        log.commit(vec![Write::DropMarker(a.clone()), Write::DropMarker(c.clone())]).unwrap();
        assert_eq!(log.markers(9).unwrap(), std::slice::from_ref(&b));
    }
}

/// Five extents of three bytes; the first three are kept apart.
fn sealed<L: Log>(log: &mut L) {
    log.commit(vec![extent(10, b"abc"), extent(13, b"def"), extent(16, b"ghi")]).unwrap();
    assert_eq!(log.last_sealed().unwrap(), None);
    log.commit(vec![Write::Seal]).unwrap();
    log.commit(vec![extent(19, b"jk\n"), extent(22, b"m,\n")]).unwrap();
    // While some are kept apart, sealing changes nothing.
    log.commit(vec![Write::Seal, Write::Duty(Duty::Erase, UnixMillis(1))]).unwrap();
    assert_eq!(log.last_sealed().unwrap().unwrap().key, Key(16));
}

fn sealed_extents_are_read_like_others<L: Log>(mut log: L) {
    log.commit(vec![Write::Seal]).unwrap();
    assert_eq!(log.last_sealed().unwrap(), None);
    sealed(&mut log);
    let whole = b"abcdefghijk\nm,\n";
    for start in 0..15 {
        for end in start..=15 {
            let range = start as u64 + 10..end as u64 + 10;
            assert_eq!(read(&log, range), whole[start..end]);
        }
    }
    assert_eq!(log.read(keys(16..25), Framing::JsonArray).unwrap().to_vec(), b"[ghijk\nm]");
    let found = |range, limit| -> Vec<u64> {
        log.extents(keys(range), limit).unwrap().iter().map(|row| row.key.0).collect()
    };
    assert_eq!(found(0..99, 9), [10, 13, 16, 19, 22]);
    assert_eq!(found(11..22, 2), [13, 16]);
    let last = |range| log.last_extent(keys(range)).unwrap().map(|row| row.key.0);
    assert_eq!((last(0..99), last(0..19), last(0..10)), (Some(22), Some(16), None));
}

fn sealed_extents_are_erased_like_others<L: Log>(mut log: L) {
    let left = |log: &L| -> Vec<u64> {
        log.extents(keys(0..99), 99).unwrap().iter().map(|row| row.key.0).collect()
    };
    let erase = |log: &mut L, range, rows| {
        log.commit(vec![Write::EraseExtents { keys: keys(range), rows }]).unwrap();
    };
    sealed(&mut log);
    // Exactly the ones that are kept apart.
    erase(&mut log, 0..19, u32::MAX);
    assert_eq!((left(&log), log.last_sealed().unwrap()), (vec![19, 22], None));
    // The rest can be kept apart now; then what comes after is erased first.
    log.commit(vec![Write::Seal]).unwrap();
    log.commit(vec![extent(25, b"n")]).unwrap();
    erase(&mut log, 25..99, u32::MAX);
    assert_eq!((left(&log), log.last_sealed().unwrap().unwrap().key), (vec![19, 22], Key(22)));
    log.commit(vec![extent(25, b"n")]).unwrap();
    // A few at a time, over the border.
    erase(&mut log, 0..99, 1);
    assert_eq!((left(&log), log.last_sealed().unwrap().unwrap().key), (vec![22, 25], Key(22)));
    erase(&mut log, 0..99, 2);
    assert_eq!((left(&log), log.last_sealed().unwrap()), (vec![], None));
    erase(&mut log, 0..99, 2);
    log.commit(vec![extent(30, b"o"), Write::Seal]).unwrap();
    assert_eq!(log.last_sealed().unwrap().unwrap().key, Key(30));
}

#[cfg(test)]
mod tests {
    use crate::log::memory::MemoryLog;

    #[test]
    fn memory_keeps_the_contract() {
        super::run(MemoryLog::default);
    }
}
