//! The stream's part of fan-out: which shards a source has, and which of them have to be told.
//!
//! ```text
//! attach_shard          a row: from now on the shard is told
//! append_group          bytes, and the duty Fanout, in one commit
//! begin_nudges          whoever is behind the tail, one nudge in flight per shard
//! nudged                noted: it is the shard's from here on · drop: no row · no answer: the duty
//! on_alarm              everybody has noted the tail: no duty · else again, after a pause
//! ```
//!
//! # Core types
//! - `Shards`: what is in memory of them. Their rows and the duty are all that is stored.
//! - `held`: a life that ends before its shards have everything is held for them, then lapses.
//! - [`Replicated`]: what a shard reads of a source.
//!
//! # Invariants
//! 1. While a shard has not noted the tail, there is the duty [`Duty::Fanout`]. It is written with
//!    the bytes that it is about.
//! 2. A row goes only when its shard says so, and not if the shard has attached since it was asked.
//! 3. The bytes of a life stay until its last shard has gone, or the hold is over.
//!
//! # Error semantics
//! [`LogError`]: nothing was stored. What the source decides is part of the answer.
//!
//! # What stays out
//! Who subscribes, what is delivered, and the calls to the shards.

use protocol::fanout::{
    AttachShard, LifeState, Nudge, Nudged, ShardAttached, ShardId, SourceDescription, SourceRefusal,
};
use protocol::limits::{FANOUT_PATIENCE_MS, FANOUT_PAUSE_MS_MAX};
use protocol::offset::{OffsetParam, Position};
use protocol::time::UnixMillis;

use crate::life::{Life, Phase};
use crate::log::{Duty, Log, LogError, Write};
use crate::offsets::OffsetError;
use crate::stream::{Missing, Stream};

mod held;
mod replicate;
mod shards;
#[cfg(test)]
mod tests;

pub use replicate::Replicated;
pub(crate) use shards::Shards;
use shards::Told;

impl<L: Log> Stream<L> {
    /// Notes that a shard is to be told of appends, and finds where a subscription begins. Does not
    /// count as an access. Whether a cold offset of a JSON stream is one, [`Stream::boundary`] tells.
    ///
    /// # Errors
    /// [`LogError`]; the shard may have been noted, so ask again.
    pub fn attach_shard(
        &mut self,
        request: &AttachShard,
        now: UnixMillis,
    ) -> Result<ShardAttached, LogError> {
        if let Some(refusal) = self.refusal(now)? {
            return Ok(ShardAttached::Refused(refusal));
        }
        let refused = |refusal| Ok(ShardAttached::Refused(refusal));
        let Some(current) = &self.current else { return refused(SourceRefusal::NotFound) };
        let Ok(from) = OffsetParam::parse(&request.from) else {
            return refused(SourceRefusal::InvalidOffset);
        };
        let start = match self.resolve(current, from) {
            Ok(start) => start,
            Err(OffsetError::Stale) => return refused(SourceRefusal::StaleOffset),
            Err(OffsetError::BeyondTail { .. }) => return refused(SourceRefusal::OffsetBeyondTail),
            Err(OffsetError::Invalid) => return refused(SourceRefusal::InvalidOffset),
            Err(OffsetError::Log(error)) => return Err(error),
        };
        let (generation, tail) = (current.life.generation, current.tail);
        let content_type = current.life.content_type.as_str().to_owned();
        let told = Told { generation, state: LifeState::Live, tail };
        if self.shards.attach(request.shard, told)? {
            self.commit(vec![Write::Shard { generation, shard: request.shard }])?;
        }
        Ok(ShardAttached::Attached { generation, start, tail, content_type })
    }

    /// What a source is, for a session that is yet to be made. Does not count as an access.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn describe_source(&mut self, now: UnixMillis) -> Result<SourceDescription, LogError> {
        if let Some(refusal) = self.refusal(now)? {
            return Ok(SourceDescription::Refused(refusal));
        }
        let content_type = self.content_type().map(|known| known.as_str().to_owned());
        Ok(match content_type {
            Some(content_type) => SourceDescription::Found { content_type },
            None => SourceDescription::Refused(SourceRefusal::NotFound),
        })
    }

    fn refusal(&mut self, now: UnixMillis) -> Result<Option<SourceRefusal>, LogError> {
        match self.check(now) {
            Ok(()) => Ok(None),
            Err(Missing::NotFound) => Ok(Some(SourceRefusal::NotFound)),
            Err(Missing::Gone) => Ok(Some(SourceRefusal::Gone)),
            Err(Missing::Log(error)) => Err(error),
        }
    }

    /// Who has to be told what, at most `limit` at a time; each must be answered with [`Stream::nudged`].
    /// Whoever is being told, or did not answer last time, is left out: the duty asks again.
    pub fn begin_nudges(&mut self, limit: usize, now: UnixMillis) -> Vec<(ShardId, Nudge)> {
        if self.stale && self.reload().is_err() {
            return Vec::new();
        }
        let mut nudges = Vec::new();
        let limit = limit.saturating_sub(self.shards.in_flight(now));
        for told in self.told() {
            let room = limit.saturating_sub(nudges.len());
            let shards = u32::try_from(self.shards.count(told.generation)).unwrap_or(u32::MAX);
            let Told { generation, state, tail } = told;
            let nudge = Nudge { generation, tail, state, shards, traceparent: None };
            let begun = self.shards.begin(told, room, now);
            nudges.extend(begun.into_iter().map(|shard| (shard, nudge.clone())));
        }
        nudges
    }

    /// Takes a shard's answer to a nudge; `None`: there is none.
    ///
    /// # Errors
    /// [`LogError`]; the shard is told once more.
    pub fn nudged(
        &mut self,
        shard: ShardId,
        nudge: &Nudge,
        answer: Option<Nudged>,
        now: UnixMillis,
    ) -> Result<(), LogError> {
        let Nudge { generation, state, tail, .. } = *nudge;
        let drops = self.shards.end(shard, Told { generation, state, tail }, answer);
        self.settle(now)?;
        if drops && self.shards.knows(generation, shard) {
            // A row that cannot be removed now is the duty's.
            let dropped = self.drop_shard(generation, shard, now);
            return dropped.inspect_err(|_| self.shards.fail(generation, shard));
        }
        Ok(())
    }

    /// How many shards the stream has that clients see.
    pub fn shard_count(&self) -> usize {
        self.generation().map_or(0, |generation| self.shards.count(generation))
    }

    /// Which shards of the stream that clients see have not noted a position and may still answer, and
    /// whether there are others, that did not answer: those are not waited for.
    pub fn unaware_shards(&self, position: Position) -> (Vec<ShardId>, bool) {
        let Some(generation) = self.generation() else { return (Vec::new(), false) };
        self.shards.unaware(Told { generation, state: LifeState::Live, tail: position })
    }

    /// Plans the duty that goes with bytes of a stream that has shards: once a burst.
    pub(crate) fn plan_fanout(&mut self, writes: &mut Vec<Write<L::Bytes>>, now: UnixMillis) {
        if self.shard_count() > 0 && !self.duties.contains_key(&Duty::Fanout) {
            self.shards.failures = 0;
            self.plan_duty(writes, Duty::Fanout, now.saturating_add_ms(FANOUT_PATIENCE_MS));
        }
    }

    /// Looks whether everybody has noted what there is; `true`: nudge those who have not.
    pub(crate) fn do_fanout(&mut self, now: UnixMillis) -> Result<bool, LogError> {
        let mut writes = Vec::new();
        self.plan_lapses(&mut writes, now);
        let lives = self.told();
        let waits = self.shards.look_again(&lives);
        match waits {
            false => self.plan_no_duty(&mut writes, Duty::Fanout),
            true => {
                let pause = FANOUT_PATIENCE_MS
                    .saturating_mul(1 << self.shards.failures.min(16))
                    .min(FANOUT_PAUSE_MS_MAX);
                let again = now.saturating_add_ms(pause);
                let again = self.next_lapse().map_or(again, |lapse| lapse.max(now).min(again));
                self.plan_duty(&mut writes, Duty::Fanout, again);
            }
        }
        self.commit(writes)?;
        Ok(waits)
    }

    /// Loads what is stored of shards; the current life is loaded with it in mind.
    pub(crate) fn load_shards(&mut self) -> Result<(), LogError> {
        let rows = self.log.shards(shards::SHARDS_MAX)?;
        self.shards.load(rows);
        Ok(())
    }

    /// Loads the lives that are held for shards. Whoever was told what is not known any more; without
    /// the duty, everybody has noted everything.
    pub(crate) fn load_held(&mut self) -> Result<(), LogError> {
        let current = self.current.as_ref().map(|current| current.life.generation);
        let mut held = Vec::new();
        for generation in self.shards.generations() {
            if Some(generation) != current {
                held.extend(self.log.life(generation)?.filter(Life::is_held));
            }
        }
        self.shards.hold(held);
        if !self.duties.contains_key(&Duty::Fanout) {
            for told in self.told() {
                self.shards.note_all(told);
            }
        }
        Ok(())
    }

    /// The lives that have shards, and how they stand.
    fn told(&self) -> Vec<Told> {
        let current = self.current.as_ref().and_then(|current| {
            let life = &current.life;
            let tail = if life.phase == Phase::Live { current.tail } else { life.checkpoint };
            Told::of(life, tail)
        });
        let held = self.shards.held.values().filter_map(|life| Told::of(life, life.checkpoint));
        let has_shards = |told: &Told| self.shards.has(told.generation);
        current.into_iter().chain(held).filter(has_shards).collect()
    }

    /// Whether the bytes of a life are kept for its shards.
    pub(crate) fn is_kept_for_shards(&self, life: &Life) -> bool {
        let told = Told::of(life, life.checkpoint);
        self.shards.has(life.generation) && told.is_some_and(|told| told.state == LifeState::Held)
    }
}
