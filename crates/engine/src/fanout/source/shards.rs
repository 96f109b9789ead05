//! What is in memory of a stream's shards: who has noted what, and who is being told.

use std::collections::BTreeMap;

use protocol::fanout::{LifeState, Nudged, ShardId};
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;

use crate::life::{Life, Phase};
use crate::log::LogError;

/// Rows of the table that are looked at; no more are made.
pub(super) const SHARDS_MAX: u32 = 16_384;

/// How long a shard may take to answer before it is told again.
const NUDGE_PATIENCE_MS: u64 = 30_000;

/// How a life stands: what its shards are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(super) generation: Generation,
    pub(super) state: LifeState,
    pub(super) tail: Position,
}

impl Told {
    /// How a life stands; `None` when nobody is to be told of it.
    pub(super) fn of(life: &Life, tail: Position) -> Option<Self> {
        let state = match life.phase {
            Phase::Live => LifeState::Live,
            Phase::Held => LifeState::Held,
            Phase::SoftDeleted if life.touched > UnixMillis(0) => LifeState::Held,
            Phase::SoftDeleted | Phase::Lapsed => LifeState::Lapsed,
            Phase::Forking | Phase::Erasing => return None,
        };
        Some(Self { generation: life.generation, state, tail })
    }

    /// A life goes through its states in one order, and its tail only grows.
    fn order(self) -> (u8, Position) {
        let state = match self.state {
            LifeState::Live => 0,
            LifeState::Held => 1,
            LifeState::Lapsed => 2,
        };
        (state, self.tail)
    }
}

/// One shard of one life.
#[derive(Clone, Debug, Default)]
struct Shard {
    /// What it has noted, as far as this instance knows.
    noted: Option<Told>,
    /// Nudges without an answer so far. More than one: the earlier ones are taken for lost.
    outstanding: u32,
    /// When the last nudge was begun.
    since: UnixMillis,
    /// Whether it has attached since the first of those nudges was begun.
    attached: bool,
    /// Whether there was no answer last time.
    is_failing: bool,
}

impl Shard {
    fn is_behind(&self, told: Told) -> bool {
        self.noted.is_none_or(|noted| noted.order() < told.order())
    }

    fn is_in_flight(&self, now: UnixMillis) -> bool {
        self.outstanding > 0 && now.saturating_since_ms(self.since) < NUDGE_PATIENCE_MS
    }
}

/// The shards of all lives of one path.
#[derive(Default)]
pub(crate) struct Shards {
    known: BTreeMap<(Generation, ShardId), Shard>,
    /// Lives that are over and held for shards, or were until they lapsed.
    pub(super) held: BTreeMap<Generation, Life>,
    /// How often in a row the duty found somebody who did not answer.
    pub(super) failures: u32,
}

impl Shards {
    /// Takes the rows of the table. What is in flight stays in flight.
    pub(super) fn load(&mut self, rows: Vec<(Generation, ShardId)>) {
        let mut before = std::mem::take(&mut self.known);
        for key in rows {
            let shard = Shard { noted: None, ..before.remove(&key).unwrap_or_default() };
            self.known.insert(key, shard);
        }
    }

    pub(super) fn hold(&mut self, lives: Vec<Life>) {
        self.held = lives.into_iter().map(|life| (life.generation, life)).collect();
    }

    pub(super) fn generations(&self) -> Vec<Generation> {
        let mut generations: Vec<_> =
            self.known.keys().map(|(generation, _)| *generation).collect();
        generations.dedup();
        generations
    }

    fn of(&self, generation: Generation) -> impl Iterator<Item = &Shard> {
        let keys = (generation, ShardId(0))..=(generation, ShardId(u32::MAX));
        self.known.range(keys).map(|(_, shard)| shard)
    }

    fn of_mut(
        &mut self,
        generation: Generation,
    ) -> impl Iterator<Item = (ShardId, &mut Shard)> + use<'_> {
        let keys = (generation, ShardId(0))..=(generation, ShardId(u32::MAX));
        self.known.range_mut(keys).map(|((_, id), shard)| (*id, shard))
    }

    pub(super) fn count(&self, generation: Generation) -> usize {
        self.of(generation).count()
    }

    /// Whether a life has shards.
    pub(crate) fn has(&self, generation: Generation) -> bool {
        self.of(generation).next().is_some()
    }

    pub(super) fn knows(&self, generation: Generation, shard: ShardId) -> bool {
        self.known.contains_key(&(generation, shard))
    }

    /// A shard attaches and is told the tail; `true` when it needs a row.
    pub(super) fn attach(&mut self, shard: ShardId, told: Told) -> Result<bool, LogError> {
        let key = (told.generation, shard);
        if let Some(known) = self.known.get_mut(&key) {
            known.attached = true;
            known.is_failing = false;
            return Ok(false);
        }
        if self.known.len() >= SHARDS_MAX as usize {
            return Err(LogError::Failed("the stream has too many shards".into()));
        }
        self.known.insert(key, Shard { noted: Some(told), ..Shard::default() });
        Ok(true)
    }

    /// Begins to tell those who are behind, at most `limit`.
    pub(super) fn begin(&mut self, told: Told, limit: usize, now: UnixMillis) -> Vec<ShardId> {
        let waits =
            |shard: &Shard| shard.is_behind(told) && !shard.is_failing && !shard.is_in_flight(now);
        let behind = self.of_mut(told.generation).filter(|(_, shard)| waits(shard)).take(limit);
        let begin = |(id, shard): (ShardId, &mut Shard)| {
            shard.attached &= shard.outstanding > 0;
            shard.outstanding = shard.outstanding.saturating_add(1);
            shard.since = now;
            id
        };
        behind.map(begin).collect()
    }

    /// Takes an answer; `true` when the shard's row is to go. That it wants to be dropped is believed
    /// only if it has certainly said so after it attached.
    pub(super) fn end(&mut self, shard: ShardId, told: Told, answer: Option<Nudged>) -> bool {
        let Some(known) = self.known.get_mut(&(told.generation, shard)) else { return false };
        let certain = known.outstanding == 1 && !known.attached;
        known.outstanding = known.outstanding.saturating_sub(1);
        known.is_failing = answer.is_none();
        match answer {
            None => false,
            Some(Nudged::Drop) if certain => true,
            // Whoever subscribed since it said so was told the tail when the shard attached.
            Some(Nudged::Noted(_) | Nudged::Drop) => {
                if known.is_behind(told) {
                    known.noted = Some(told);
                }
                false
            }
        }
    }

    /// Shards that are being told.
    pub(super) fn in_flight(&self, now: UnixMillis) -> usize {
        self.known.values().filter(|shard| shard.is_in_flight(now)).count()
    }

    /// A shard is left alone until the duty looks again.
    pub(super) fn fail(&mut self, generation: Generation, shard: ShardId) {
        if let Some(known) = self.known.get_mut(&(generation, shard)) {
            known.is_failing = true;
        }
    }

    pub(super) fn forget(&mut self, generation: Generation, shard: ShardId) {
        self.known.remove(&(generation, shard));
    }

    /// Who has not noted this and may still answer, and whether there are others.
    pub(super) fn unaware(&self, told: Told) -> (Vec<ShardId>, bool) {
        let keys = (told.generation, ShardId(0))..=(told.generation, ShardId(u32::MAX));
        let behind = self.known.range(keys).filter(|(_, shard)| shard.is_behind(told));
        let (failing, waited): (Vec<_>, Vec<_>) = behind.partition(|(_, shard)| shard.is_failing);
        (waited.into_iter().map(|((_, id), _)| *id).collect(), !failing.is_empty())
    }

    pub(super) fn note_all(&mut self, told: Told) {
        for (_, shard) in self.of_mut(told.generation) {
            shard.noted = Some(told);
        }
    }

    /// Begins another round: whoever did not answer may be told again, and so is everybody whose life
    /// is over, until they want to be dropped. Returns whether somebody is behind.
    pub(super) fn look_again(&mut self, lives: &[Told]) -> bool {
        let (mut waits, mut fails) = (false, false);
        for told in lives {
            for (_, shard) in self.of_mut(told.generation) {
                if told.state != LifeState::Live {
                    fails |= shard.noted.take().is_some();
                }
                fails |= std::mem::take(&mut shard.is_failing);
                waits |= shard.is_behind(*told);
            }
        }
        self.failures = if fails { self.failures.saturating_add(1) } else { 0 };
        waits
    }
}
