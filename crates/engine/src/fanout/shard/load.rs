//! Loading a shard, and loading it again after a commit that failed.

use std::collections::BTreeMap;

use protocol::fanout::ShardId;
use protocol::time::UnixMillis;

use super::{Breaker, InlineBound, Life, Member, Shard, ShardBounds};
use crate::fanout::roster::Roster;
use crate::log::LogError;

/// How long something may be overdue before a fresh instance doubts that the alarm is set.
const OVERDUE_MS: u64 = 60_000;

impl<R: Roster> Shard<R> {
    /// Loads a shard from its rows.
    ///
    /// # Errors
    /// [`LogError`] when the storage does not answer or a row does not decode.
    pub fn open(
        roster: R,
        id: ShardId,
        bounds: ShardBounds,
        now: UnixMillis,
    ) -> Result<Self, LogError> {
        let mut shard = Self {
            roster,
            id,
            bounds,
            lives: BTreeMap::new(),
            members: BTreeMap::new(),
            breaker: Breaker::default(),
            bound: InlineBound::new(bounds.inline_max),
            rooms: None,
            alarm: None,
            joins: BTreeMap::new(),
            removed: BTreeMap::new(),
            stale: true,
        };
        shard.settle()?;
        // The alarm was set with the rows. The platform gives an alarm up after some failures.
        let is_overdue = |due: &UnixMillis| due.saturating_add_ms(OVERDUE_MS) < now;
        shard.alarm = shard.due().filter(|due| !is_overdue(due));
        if shard.alarm.is_none() {
            shard.commit(Vec::new(), now)?;
        }
        Ok(shard)
    }

    /// The storage below.
    pub fn roster(&self) -> &R {
        &self.roster
    }

    /// Gives the storage back.
    pub fn into_roster(self) -> R {
        self.roster
    }

    /// Makes memory match the rows. What is under way stays under way.
    pub(in crate::fanout) fn settle(&mut self) -> Result<(), LogError> {
        if !self.stale {
            return Ok(());
        }
        let lives = self.roster.lives()?;
        let members = self.roster.members()?;
        self.breaker = Breaker::stored(self.roster.breaker()?);
        self.rooms = None;
        let delivering: Vec<_> = self.lives.values().filter(|life| life.is_delivering).collect();
        let delivering: Vec<_> = delivering.iter().map(|life| life.row.generation).collect();
        self.lives = lives
            .into_iter()
            .map(|row| {
                let is_delivering = delivering.contains(&row.generation);
                (row.generation, Life { row, stored: row, is_delivering })
            })
            .collect();
        let before = std::mem::take(&mut self.members);
        for row in members {
            let key = (row.source, row.session.clone());
            let in_flight = before.get(&key).is_some_and(|member| member.in_flight);
            self.members.insert(key, Member { row, in_flight });
        }
        self.stale = false;
        // Whether the failed commit would have set the alarm is not known: it is set once more.
        self.alarm = None;
        Ok(())
    }
}
