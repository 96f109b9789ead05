//! Joins that come twice, overlap with removals, and find another life of the source.

use protocol::fanout::Subscribe;
use protocol::offset::{Generation, Position};

use super::members::{Joined, Start};
use super::*;
use crate::fanout::roster::memory::MemoryRoster;

const NOW: UnixMillis = UnixMillis(1_000);
const LIFE: Generation = Generation(5);
const SESSION: &str = "a";

fn shard(id: ShardId) -> Shard<MemoryRoster> {
    let bounds = ShardBounds {
        members_max: 1,
        shards_max: 9,
        inline_max: 200,
        concurrency: 50,
        deadline_ms: 5_000,
        range_bytes: 1_000,
    };
    Shard::open(MemoryRoster::default(), id, bounds, NOW).unwrap()
}

fn join(shard: &mut Shard<MemoryRoster>, epoch: u64, source: Generation) -> Joined {
    let wish = Subscribe {
        session: SESSION.into(),
        generation: Generation(1),
        epoch: SubscriptionEpoch(epoch),
        first: SubscriptionEpoch(epoch),
        known: None,
        from: "-1".into(),
    };
    let at = Start { source, start: Position(0), tail: Position(0) };
    shard.join(&wish, at, NOW).unwrap()
}

/// What is left when the epochs of a range are removed.
fn remaining(shard: &mut Shard<MemoryRoster>, first: u64, last: u64) -> Option<u64> {
    let range = (SubscriptionEpoch(first), SubscriptionEpoch(last));
    shard.remove(SESSION, range, NOW).unwrap().remaining.map(|epoch| epoch.0)
}

#[test]
fn an_epoch_is_a_subscription_of_one_life() {
    let mut shard = shard(ShardId::ROOT);
    assert_eq!(join(&mut shard, 7, LIFE), Joined::Member);
    let next = Generation(LIFE.0 + 1);
    assert_eq!(join(&mut shard, 7, next), Joined::Removed);
    assert_eq!(shard.membership(SESSION, next), Ok(None));
    assert_eq!(join(&mut shard, 8, next), Joined::Member);
}

#[test]
fn an_empty_range_removes_nothing_and_counts_what_is_under_way() {
    let mut shard = shard(ShardId::ROOT);
    let begin = |shard: &mut Shard<_>, epoch| shard.begin_join(SESSION, SubscriptionEpoch(epoch));
    let end = |shard: &mut Shard<_>, epoch| shard.end_join(SESSION, SubscriptionEpoch(epoch));
    for epoch in [3, 3, 7] {
        begin(&mut shard, epoch);
    }
    assert_eq!(remaining(&mut shard, 8, 7), Some(7));
    // What is over no longer counts, though another join is still under way.
    end(&mut shard, 7);
    assert_eq!(remaining(&mut shard, 8, 7), Some(3));
    assert_eq!(join(&mut shard, 3, LIFE), Joined::Member);
    end(&mut shard, 3);
    assert_eq!(remaining(&mut shard, 4, 3), Some(3));
    // A removal is for the copy that is still under way, too.
    assert_eq!(remaining(&mut shard, 3, 3), None);
    assert_eq!(join(&mut shard, 3, LIFE), Joined::Removed);
    end(&mut shard, 3);
    assert_eq!(remaining(&mut shard, 4, 3), None);
}

#[test]
fn a_place_that_was_given_back_is_noted_again() {
    let mut root = shard(ShardId::ROOT);
    let (there, epoch) = (ShardId(1), SubscriptionEpoch(7));
    root.keep(there, SESSION, epoch, NOW).unwrap();
    let entry = root.entry(SESSION).unwrap().unwrap();
    assert_eq!((entry.shard, entry.epoch), (there, epoch));
    // Whoever is noted is not moved, nor counted twice.
    root.keep(ShardId(2), SESSION, SubscriptionEpoch(9), NOW).unwrap();
    assert_eq!(root.entry(SESSION).unwrap(), Some(entry));
    root.left((there, SESSION), epoch, None, NOW).unwrap();
    assert_eq!(root.entry(SESSION), Ok(None));
}
