//! Lives that are over before their shards have everything.
//!
//! ```text
//! Live ──► Held ──(too long)──► Lapsed ──► Erasing     clients see nothing from the first step on
//!   └──► SoftDeleted (has forks) ──(last fork)──► Held, or Lapsed
//! ```
//!
//! A held life keeps its bytes, and so its reference at the source that it may be a fork of. It lapses
//! when it was held for too long, or too many are; then its bytes are erased, and its row stays so that
//! its shards can be told. When the last shard has gone, the row goes as well.
//!
//! Of a life that is soft-deleted for its forks, `touched` tells whether it is held for shards as well:
//! it says since when, and is zero once that was for too long.

use protocol::fanout::ShardId;
use protocol::limits::{FANOUT_PATIENCE_MS, HELD_LIVES_MAX};
use protocol::offset::Generation;
use protocol::time::UnixMillis;

use crate::life::{Life, Phase};
use crate::log::{Duty, Log, LogError, Write};
use crate::stream::Stream;

/// That a soft-deleted life is no longer held for its shards.
const OVER: UnixMillis = UnixMillis(0);

impl Life {
    /// Whether the life is over, and known to its shards only.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Held | Phase::Lapsed)
    }
}

impl<L: Log> Stream<L> {
    /// Plans the end of the current life for everybody but its shards.
    pub(crate) fn plan_held(&mut self, writes: &mut Vec<Write<L::Bytes>>, now: UnixMillis) {
        self.plan_no_rotation(writes, now);
        let Some(current) = self.current.take() else { return };
        self.tombstone = self.tombstone.past(&current);
        writes.push(Write::Tombstone(self.tombstone));
        self.dead_bytes = self.dead_bytes.saturating_add(current.hot_bytes());
        self.plan_no_duty(writes, Duty::Expire);
        let (tail, mut life) = (current.tail, current.life);
        if life.phase == Phase::Live {
            life.touched = now.max(UnixMillis(1));
            life.checkpoint = tail;
        }
        let is_over = life.touched == OVER;
        life.phase = Phase::Held;
        self.plan_room(writes, now);
        let generation = life.generation;
        self.shards.held.insert(generation, life.clone());
        match is_over {
            true => self.plan_lapse(writes, generation, now),
            false => writes.push(Write::Life(life)),
        }
        self.plan_told_soon(writes, now);
    }

    /// Has the shards of a life told that it is over, as soon as nobody else does.
    pub(crate) fn plan_told_soon(&mut self, writes: &mut Vec<Write<L::Bytes>>, now: UnixMillis) {
        self.shards.failures = 0;
        self.plan_duty(writes, Duty::Fanout, now.saturating_add_ms(FANOUT_PATIENCE_MS));
    }

    /// Plans the end of the life that is held longest, when as many are held as may be.
    fn plan_room(&mut self, writes: &mut Vec<Write<L::Bytes>>, now: UnixMillis) {
        let held = || self.shards.held.values().filter(|life| life.phase == Phase::Held);
        let oldest = held().map(|life| life.generation).min();
        if let Some(oldest) = oldest.filter(|_| held().count() >= HELD_LIVES_MAX) {
            self.plan_lapse(writes, oldest, now);
        }
    }

    /// Plans the end of a held life's bytes.
    fn plan_lapse(
        &mut self,
        writes: &mut Vec<Write<L::Bytes>>,
        generation: Generation,
        now: UnixMillis,
    ) {
        let Some(life) = self.shards.held.get_mut(&generation) else { return };
        life.phase = Phase::Lapsed;
        let life = life.clone();
        self.plan_release(writes, &life, now);
        writes.push(Write::Life(life));
        self.plan_duty(writes, Duty::Erase, now);
    }

    /// Plans the end of the bytes of all lives that were held for too long.
    pub(super) fn plan_lapses(&mut self, writes: &mut Vec<Write<L::Bytes>>, now: UnixMillis) {
        let hold_ms = self.bounds.fanout_hold_ms;
        let is_over = |life: &Life| life.touched.saturating_add_ms(hold_ms) <= now;
        let held = self.shards.held.values();
        let over: Vec<_> = held
            .filter(|life| life.phase == Phase::Held && is_over(life))
            .map(|life| life.generation)
            .collect();
        for generation in over {
            self.plan_lapse(writes, generation, now);
        }
        let soft = self.current.as_ref().filter(|current| self.is_kept_for_shards(&current.life));
        if soft.is_some_and(|current| {
            current.life.phase == Phase::SoftDeleted && is_over(&current.life)
        }) && let Some(current) = &mut self.current
        {
            current.life.touched = OVER;
            writes.push(Write::Life(current.life.clone()));
            self.plan_duty(writes, Duty::Erase, now);
            // What forks do not need will be gone, and the tail with it.
            self.stale = true;
        }
    }

    /// When the next life has been held for too long.
    pub(super) fn next_lapse(&self) -> Option<UnixMillis> {
        let current = self.current.as_ref().map(|current| &current.life);
        let soft = current.filter(|life| life.phase == Phase::SoftDeleted);
        let held = self.shards.held.values().chain(soft);
        let kept = held.filter(|life| self.is_kept_for_shards(life));
        kept.map(|life| life.touched.saturating_add_ms(self.bounds.fanout_hold_ms)).min()
    }

    /// Forgets a shard; the last one takes a life along that is over.
    pub(super) fn drop_shard(
        &mut self,
        generation: Generation,
        shard: ShardId,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        let mut writes = vec![Write::DropShard { generation, shard }];
        self.shards.forget(generation, shard);
        if !self.shards.has(generation) {
            if let Some(life) = self.shards.held.remove(&generation) {
                if life.phase == Phase::Held {
                    self.plan_release(&mut writes, &life, now);
                }
                writes.push(Write::Life(Life { phase: Phase::Erasing, ..life }));
                self.plan_duty(&mut writes, Duty::Erase, now);
            } else if self.generation() != Some(generation) {
                // What only shards needed of a soft-deleted life can go.
                self.plan_duty(&mut writes, Duty::Erase, now);
                self.stale = true;
            }
        }
        self.commit(writes)
    }
}
